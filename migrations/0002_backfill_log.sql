-- Catalog, log, rejects and the register of tracked tables.
-- Safe: new tables of the schema backfill only.
-- depends: 0001_backfill_schema

create table backfill.catalog (
    -- A name that is also the name of its function and the tag of its gates.
    backfill text primary key check (backfill ~ '^[a-z][a-z0-9_]*$'),
    system text not null,
    description text not null,
    position integer not null,
    due_relation text not null,
    rejects_relation text,
    function_name text not null,
    tables text[] not null check (cardinality(tables) > 0)
);

comment on table backfill.catalog is 'The backfills there are. Runs of all of them go by position.';
comment on column backfill.catalog.backfill is 'Name; gates in dbt carry it as their tag.';
comment on column backfill.catalog.system is 'Which system it belongs to: charges, invoices, rent, ledger, lending.';
comment on column backfill.catalog.description is 'What a person reads before running it.';
comment on column backfill.catalog.position is 'Order in a run of several backfills.';
comment on column backfill.catalog.due_relation is 'View of the rows still to write, one row each, with cents bigint; empty = nothing to do.';
comment on column backfill.catalog.rejects_relation is 'View of the source rows that cannot be taken, with their reason; null = the backfill has none.';
comment on column backfill.catalog.function_name is 'Function (parameters jsonb) returns jsonb that writes what is due.';
comment on column backfill.catalog.tables is 'Tables that it writes; each is tracked.';

create table backfill.backfill_log (
    run_id uuid primary key default gen_random_uuid(),
    backfill text not null,
    subject jsonb not null default '{}' check (jsonb_typeof(subject) = 'object'),
    parameters jsonb not null default '{}' check (jsonb_typeof(parameters) = 'object'),
    actor text not null,
    mode text not null check (mode in ('apply', 'manual', 'load', 'reversal')),
    spans_transactions boolean not null default false,
    status text not null default 'running'
    check (status in ('running', 'succeeded', 'partial', 'failed', 'reversed')),
    metrics jsonb not null default '{}' check (jsonb_typeof(metrics) = 'object'),
    errors jsonb not null default '[]' check (jsonb_typeof(errors) = 'array'),
    digest text,
    time_zone text not null default current_setting('TimeZone'),
    started_at timestamptz not null default now(),
    completed_at timestamptz,
    reverses uuid references backfill.backfill_log (run_id),
    reversed_by uuid references backfill.backfill_log (run_id),
    -- A run is over exactly when it has an end.
    check ((status = 'running') = (completed_at is null)),
    check ((status = 'reversed') = (reversed_by is not null)),
    check ((mode = 'reversal') = (reverses is not null))
);

create index backfill_log_status on backfill.backfill_log (status, started_at);
create index backfill_log_backfill on backfill.backfill_log (backfill, started_at);
create index backfill_log_subject on backfill.backfill_log using gin (subject jsonb_path_ops);
create index backfill_log_reverses on backfill.backfill_log (reverses) where reverses is not null;

comment on table backfill.backfill_log is 'One row for each run. Append-only: a finished run changes only by being reversed.';
comment on column backfill.backfill_log.run_id is 'Names the run everywhere: runner log RUN, backfill.reverse_run(RUN).';
comment on column backfill.backfill_log.backfill is 'Name in backfill.catalog, or the title of a correction made by hand.';
comment on column backfill.backfill_log.subject is 'What the run was about, e.g. {"mortgage": "M-17"}; indexed for @>.';
comment on column backfill.backfill_log.parameters is 'What the run was called with.';
comment on column backfill.backfill_log.actor is 'Who: the session''s user unless a name was given.';
comment on column backfill.backfill_log.mode is 'apply: a catalog backfill; manual: a correction; load: files into staging; reversal: an undo.';
comment on column backfill.backfill_log.spans_transactions is 'True: the row was committed before the work, which goes on in several transactions.';
comment on column backfill.backfill_log.status is 'running, succeeded, partial (some items failed), failed, reversed.';
comment on column backfill.backfill_log.metrics is 'Rows and cents by table, control totals, and what the function reported.';
comment on column backfill.backfill_log.errors is 'Items that failed, each with its reason.';
comment on column backfill.backfill_log.digest is 'Order-independent hash of the changes: equal digests, equal changes.';
comment on column backfill.backfill_log.time_zone is 'Session time zone of the run.';
comment on column backfill.backfill_log.started_at is 'Transaction time at which the run began.';
comment on column backfill.backfill_log.completed_at is 'When it ended; null while it runs.';
comment on column backfill.backfill_log.reverses is 'The run that this reversal undid.';
comment on column backfill.backfill_log.reversed_by is 'The reversal that undid this run, or that undid what had brought it back.';

create function backfill.refuse_change() returns trigger
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '% of %.% is refused: audit tables are append-only', tg_op, tg_table_schema, tg_table_name
        using errcode = 'BF008', hint = 'Undo a run with backfill.reverse_run(run); it adds to the log.';
end;
$$;

comment on function backfill.refuse_change() is 'Trigger of the audit tables: refuses UPDATE, DELETE and TRUNCATE (BF008).';

create function backfill.guard_log() returns trigger
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if old.status = 'running' and new.run_id = old.run_id then
        return new;
    end if;
    if to_jsonb(new) - array['status', 'reversed_by'] = to_jsonb(old) - array['status', 'reversed_by']
        and (old.status = 'reversed') <> (new.status = 'reversed') then
        return new;
    end if;
    raise exception 'run % is % and cannot be changed', old.run_id, old.status
        using errcode = 'BF008', hint = 'A finished run changes only through backfill.reverse_run(run).';
end;
$$;

comment on function backfill.guard_log() is 'Trigger: a finished run''s row changes only by being reversed, or by that reversal being undone.';

create function backfill.refuse_unfinished() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from backfill.backfill_log where run_id = new.run_id and status = 'running') then
        raise exception 'run % (%) is still open: nothing was committed', new.run_id, new.backfill
            using errcode = 'BF001', hint = 'In one transaction: begin; select backfill.begin_run(''why''); …; select * from backfill.finish_run(); commit;';
    end if;
    return null;
end;
$$;

comment on function backfill.refuse_unfinished() is 'Deferred trigger: a run of one transaction must be finished before the commit (BF001).';

create trigger guard_log before update on backfill.backfill_log
for each row execute function backfill.guard_log();
create trigger refuse_delete before delete on backfill.backfill_log
for each statement execute function backfill.refuse_change();
create trigger refuse_truncate before truncate on backfill.backfill_log
for each statement execute function backfill.refuse_change();
create constraint trigger refuse_unfinished after insert on backfill.backfill_log
deferrable initially deferred for each row when (not new.spans_transactions)
execute function backfill.refuse_unfinished();

create table backfill.reject (
    run_id uuid not null references backfill.backfill_log (run_id),
    backfill text not null,
    source text not null,
    source_key text not null,
    line bigint,
    reason text not null,
    cents bigint,
    payload jsonb not null default '{}',
    seen_at timestamptz not null default now(),
    primary key (run_id, backfill, source, source_key, reason)
);

create index reject_source on backfill.reject (backfill, source, source_key);

comment on table backfill.reject is 'Source rows that a run could not take, each with its reason. Append-only.';
comment on column backfill.reject.run_id is 'The run that saw and left out the row.';
comment on column backfill.reject.backfill is 'Which backfill or loader left it out.';
comment on column backfill.reject.source is 'Table or file that the row came from.';
comment on column backfill.reject.source_key is 'The row in that source: a key, or the line number as text.';
comment on column backfill.reject.line is 'Line number in a file; null for a table.';
comment on column backfill.reject.reason is 'Why, with the value, in words.';
comment on column backfill.reject.cents is 'Money of the row, where it has any.';
comment on column backfill.reject.payload is 'What a person needs to find and mend it; never account numbers.';
comment on column backfill.reject.seen_at is 'When it was left out.';

create trigger refuse_change before update or delete on backfill.reject
for each statement execute function backfill.refuse_change();
create trigger refuse_truncate before truncate on backfill.reject
for each statement execute function backfill.refuse_change();

create table backfill.tracked (
    table_name text primary key,
    active boolean not null default true,
    pack_name text not null unique,
    key_columns text[] not null check (cardinality(key_columns) > 0),
    business_key text[] not null check (cardinality(business_key) > 0),
    money text,
    columns text[] not null,
    types text[] not null,
    stored_types text[] not null,
    generated boolean[] not null,
    check (cardinality(columns) = cardinality(types)),
    check (cardinality(columns) = cardinality(stored_types)),
    check (cardinality(columns) = cardinality(generated))
);

comment on table backfill.tracked is 'Tables whose changes are captured inside a run, kept by backfill.track() and untrack().';
comment on column backfill.tracked.table_name is 'Schema-qualified, quoted name.';
comment on column backfill.tracked.active is 'False: no longer captured, the history stays.';
comment on column backfill.tracked.pack_name is 'Table of the packed images in backfill_audit.';
comment on column backfill.tracked.key_columns is 'Primary key.';
comment on column backfill.tracked.business_key is 'Columns by which a person knows the row.';
comment on column backfill.tracked.money is 'Column of cents for control totals; null = rows only.';
comment on column backfill.tracked.columns is 'Captured columns; column i is kept in b<i> (before) and a<i> (after).';
comment on column backfill.tracked.types is 'Their types in the table; null where the column was dropped since.';
comment on column backfill.tracked.stored_types is 'Types in which they are kept: typed where PostgreSQL can hash the type, else text.';
comment on column backfill.tracked.generated is 'Generated columns are compared but not restored.';

revoke execute on all functions in schema backfill from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on backfill.catalog, backfill.backfill_log, backfill.reject, backfill.tracked');
end;
$do$;
