-- The log of runs and the rejects that they left out, both append-only.
-- Which run a transaction is in is kept beside it, and never committed.
-- Safe: new tables of the schema backfill only.
-- depends: 0005_backfill_catalog

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
    parts jsonb not null default '[]',
    as_of timestamptz,
    login name not null default session_user,
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
comment on column backfill.backfill_log.actor is 'Who: the login, and before it whom the caller claims to be, where a name was given.';
comment on column backfill.backfill_log.login is 'The role that logged in, as the server knows it: nothing that a caller says changes it.';
comment on column backfill.backfill_log.mode is 'apply: a catalog backfill; manual: a correction; load: files into staging; reversal: an undo.';
comment on column backfill.backfill_log.spans_transactions is 'True: the row was committed before the work, which goes on in several transactions.';
comment on column backfill.backfill_log.status is 'running, succeeded, partial (some items failed), failed, reversed.';
comment on column backfill.backfill_log.metrics is 'Rows and money by table, what was due, control totals, and what the function reported.';
comment on column backfill.backfill_log.errors is 'Items that failed, each with its reason.';
comment on column backfill.backfill_log.digest is 'Order-independent hash of the changes: equal digests, equal changes.';
comment on column backfill.backfill_log.time_zone is 'Session time zone of the run.';
comment on column backfill.backfill_log.started_at is 'Transaction time at which the run began.';
comment on column backfill.backfill_log.completed_at is 'When it ended; null while it runs.';
comment on column backfill.backfill_log.as_of is 'What was not settled before this moment was left out; null = nothing was, for that.';
comment on column backfill.backfill_log.reverses is 'The run that this reversal undid.';
comment on column backfill.backfill_log.parts is 'What the digest is made of: rows and raw sum of hashes by table and operation. Those of parts of a run add up to those of the whole.';
comment on column backfill.backfill_log.reversed_by is 'The reversal that undid this run, or that undid what had brought it back.';

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

create trigger guard_log before update on backfill.backfill_log
for each row execute function backfill.guard_log();
create trigger refuse_delete before delete on backfill.backfill_log
for each statement execute function backfill.refuse_change();
create trigger refuse_truncate before truncate on backfill.backfill_log
for each statement execute function backfill.refuse_change();
-- Not even where session_replication_role is replica.
alter table backfill.backfill_log enable always trigger guard_log;
alter table backfill.backfill_log enable always trigger refuse_delete;
alter table backfill.backfill_log enable always trigger refuse_truncate;

create table backfill.run_transaction (
    xid xid8 primary key default pg_current_xact_id(),
    run_id uuid not null,
    -- The temporary table that switches the capture on: owned by the engine, so that nobody else turns it off unseen.
    switch oid not null,
    version text,
    first_statement bigint not null,
    marks jsonb not null default '[]',
    locks text[] not null default '{}',
    foreign_keys oid[] not null default '{}',
    ready boolean not null default false,
    round integer not null default 0,
    probing boolean not null default false,
    immediate boolean not null default false,
    seen bigint
);

comment on table backfill.run_transaction is 'The run that is open in a transaction. A row lives as long as the run is open in it, and is never committed.';
comment on column backfill.run_transaction.xid is 'The transaction: whose run it is follows from it, and from nothing that anybody may set.';
comment on column backfill.run_transaction.run_id is 'The run in backfill.backfill_log.';
comment on column backfill.run_transaction.switch is 'Oid of pg_temp.backfill_open_run, by which the triggers know that a run is open.';
comment on column backfill.run_transaction.first_statement is 'What this transaction captured has higher numbers.';
comment on column backfill.run_transaction.version is 'Version of its row in the catalog: renamed away and back, the table is another version.';
comment on column backfill.run_transaction.marks is 'The tracked tables as they were when the run began, see backfill.table_marks().';
comment on column backfill.run_transaction.locks is 'Locks that the transaction held already, see backfill.own_locks(): what it alters in the run, it locks anew.';
comment on column backfill.run_transaction.foreign_keys is 'Foreign keys that referred to tracked tables.';
comment on column backfill.run_transaction.ready is 'The run has begun; what the cursor backfill_before sees is older.';
comment on column backfill.run_transaction.round is 'Counts how often the guard of the commit was queued.';
comment on column backfill.run_transaction.probing is 'The guard finds out whether constraints are immediate.';
comment on column backfill.run_transaction.immediate is 'They are: it was no commit that fired the guard, but SET CONSTRAINTS.';
comment on column backfill.run_transaction.seen is 'The last statement captured when the guard was fired by the commit.';

create sequence backfill_audit.statement_no;
comment on sequence backfill_audit.statement_no is 'Numbers captured statements, over all tables, runs and sessions: rising, not dense, never twice.';

create function backfill.guard_commit() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_open backfill.run_transaction;
    v_log backfill.backfill_log;
begin
    select * into v_open from backfill.run_transaction where xid = pg_current_xact_id();
    -- Finished, or what was queued for a run that was, or queued again since.
    if not found or new.run_id <> v_open.run_id or new.round <> v_open.round then
        return null;
    elsif v_open.probing then
        update backfill.run_transaction set immediate = true where xid = v_open.xid;
        return null;
    end if;
    -- SET CONSTRAINTS ALL IMMEDIATE fires this as the commit does, and is no reason to refuse: who checks keys early may.
    -- Queued once more, it fires at once in that case, and at the end of the commit otherwise.
    update backfill.run_transaction set probing = true, immediate = false where xid = v_open.xid;
    update backfill.run_transaction set round = round + 1 where xid = v_open.xid;
    update backfill.run_transaction set probing = false where xid = v_open.xid returning * into v_open;
    if v_open.immediate then
        set constraints backfill.guard_commit deferred;
        update backfill.run_transaction set round = round + 1 where xid = v_open.xid;
        return null;
    end if;
    select * into v_log from backfill.backfill_log where run_id = v_open.run_id;
    if not v_log.spans_transactions then
        raise exception 'run % (%) is still open: nothing was committed', v_log.run_id, v_log.backfill
            using errcode = 'BF001', hint = 'In one transaction: begin; select backfill.begin_run(''why''); ...; select * from backfill.finish_run(); commit;';
    elsif v_open.seen is distinct from currval('backfill_audit.statement_no') then
        -- What other deferred triggers write comes first: this one stands in the queue behind them again.
        update backfill.run_transaction set seen = currval('backfill_audit.statement_no') where xid = v_open.xid;
        return null;
    end if;
    perform backfill.weigh_run(v_open.run_id, false), backfill.close_transaction();
    return null;
end;
$$;

comment on function backfill.guard_commit() is
'Deferred trigger: a run of one transaction must be finished before the commit (BF001); what one that spans transactions did in
this one is proved (BF012).';

create constraint trigger guard_commit after insert or update of round on backfill.run_transaction
deferrable initially deferred for each row execute function backfill.guard_commit();
alter table backfill.run_transaction enable always trigger guard_commit;

create function backfill.is_linked(p_pack_name text) returns boolean
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regclass('backfill.chain') is null then  -- it comes last, and goes first
        return false;
    end if;
    return exists (select from backfill.chain where detail -> 'tables' @> jsonb_build_array(jsonb_build_object('pack', p_pack_name)));
end;
$$;

comment on function backfill.is_linked(text) is 'Does a link of the chain speak of images in this table of packs, wherever they are now?';

create table backfill.reject (
    run_id uuid not null references backfill.backfill_log (run_id),
    backfill text not null,
    source text not null,
    source_key text not null,
    line bigint,
    reason text not null,
    amount numeric,
    currency text,
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
comment on column backfill.reject.amount is 'Money of the row in minor units of its currency, where it has any.';
comment on column backfill.reject.currency is 'Its currency, where it says one.';
comment on column backfill.reject.payload is 'What a person needs to find and mend it; never account numbers.';
comment on column backfill.reject.seen_at is 'When it was left out.';

do $do$
begin
    perform backfill.append_only('backfill.reject');
end;
$do$;

create function backfill.tables_to_mend() returns setof regclass
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.rebind_tracked();
    -- What somebody has disabled is left to him: the run says so.
    return query
    select t.relation::regclass
    from backfill.tracked as t
    join pg_class as c on c.oid = t.relation
    where t.active and not exists (select 1 from pg_trigger as g
            where g.tgrelid = t.relation and g.tgname ~ '^backfill_(capture|refuse_truncate)' and g.tgenabled in ('D', 'R'))
        and ((select count(*) from pg_trigger as g where g.tgrelid = t.relation and g.tgenabled = 'A'
                and g.tgname ~ '^backfill_(capture_(insert|update|delete)|refuse_truncate)$') < 4
            or (t.relation in (select backfill.tables_by_path())) <> exists (select 1 from pg_trigger as g
                where g.tgrelid = t.relation and g.tgname = 'backfill_use_path'));
end;
$$;

comment on function backfill.tables_to_mend() is 'Tracked tables that do not carry all triggers of the engine: made anew, or restored without them.';

create function backfill.mend_tracked() returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table regclass;
begin
    -- Who owns nothing has nothing to mend; the run itself refuses then, and names the table.
    if backfill.open_run() is not null or not exists (select 1 from pg_class as c
        where c.relkind = 'r' and c.relnamespace >= 16384 and pg_has_role(current_user, c.relowner, 'usage'))
    then
        return true;
    end if;
    for v_table in
        select m from backfill.tables_to_mend() as m join pg_class as c on c.oid = m where pg_has_role(current_user, c.relowner, 'usage')
    loop
        perform backfill.put_triggers(v_table);
    end loop;
    if not exists (select 1 from backfill.guarded_children() as g join pg_class as c on c.oid = g.child
        where g.events is distinct from g.present and not pg_has_role(current_user, c.relowner, 'usage'))
    then
        perform backfill.guard_children();
    end if;
    return true;
end;
$$;

comment on function backfill.mend_tracked() is
'Before a run, with the rights of whoever begins it: puts the engine''s triggers onto tables of his that were made anew or restored.';

create function backfill.fire_constraints() returns void
language plpgsql volatile
security invoker
as $$
declare
    v_names text;
begin
    if not backfill.fires_for_another() then
        set constraints all immediate;
        return;
    end if;
    -- Within the engine's functions: what hangs on other tables waits for the commit, and runs as who caused it.
    select pg_catalog.string_agg(distinct pg_catalog.format('%I.%I', n.nspname, c.conname), ', ') into v_names
    from pg_catalog.pg_constraint as c
    join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.connamespace
    where c.condeferrable and pg_catalog.has_schema_privilege(n.oid, 'usage') and not backfill.is_strange(n.oid, c.conname);
    if v_names is not null then
        execute 'set constraints ' operator(pg_catalog.||) v_names operator(pg_catalog.||) ' immediate';
    end if;
end;
$$;

comment on function backfill.fire_constraints() is
'Fires what is deferred, under the search_path that is set: all of it, or, where it would run as the engine''s owner, what is of tracked tables.';
