-- Landed files: what `runner load` has taken, so that loading a file twice is a no-op.
-- Safe: new schema, new table; nothing of the applications is touched.
-- depends: 0005_backfill_reversal

create schema staging;

comment on schema staging is 'Rows as they came from files and interfaces, typed, with the file and line that each came from.';

create table staging.file (
    loader text not null,
    sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    name text not null,
    bytes bigint not null check (bytes >= 0),
    run_id uuid not null references backfill.backfill_log (run_id),
    loaded_at timestamptz not null default now(),
    primary key (loader, sha256)
);

comment on table staging.file is 'One row for each file that a loader has taken, known by its content.';
comment on column staging.file.loader is 'Which loader: invoices, rent-history, electricity, ledger, …';
comment on column staging.file.sha256 is 'Of the file''s bytes; the staged rows carry it as file_sha256.';
comment on column staging.file.name is 'Name of the file as it was given, without its directory.';
comment on column staging.file.bytes is 'Its size.';
comment on column staging.file.run_id is 'The run that loaded it; backfill.reverse_run(run) takes the rows out again.';
comment on column staging.file.loaded_at is 'When.';

create function backfill.note_action(p_action jsonb) returns void
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    update backfill.backfill_log
    set parameters = parameters || jsonb_build_object('actions', coalesce(parameters -> 'actions', '[]') || jsonb_build_array(p_action))
    where run_id = backfill.open_run();
$$;

comment on function backfill.note_action(jsonb) is
'Adds what is done in the open run, to what, and why, to the actions among its parameters: its title does not say it.';

create function backfill.ensure_run(p_title text, p_subject jsonb default '{}') returns boolean
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if backfill.open_run() is not null then
        -- A backfill that calls the function for each of its rows has no reasons to keep.
        if exists (select from backfill.backfill_log where run_id = backfill.open_run() and mode = 'manual') then
            perform backfill.note_action(jsonb_build_object('action', p_title) || p_subject);
        end if;
        return false;
    end if;
    perform backfill.begin_run(p_title, p_subject => p_subject);
    return true;
end;
$$;

comment on function backfill.ensure_run(text, jsonb) is
'For functions that a person calls: opens a manual run where none is open (true: the caller finishes it), else joins the open one, whose log keeps title
and subject where a person opened it.';

create function staging.forget_files(p_loader text, p_sha256 text[]) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.require_run('To take a load back: select * from backfill.reverse_run(run), with the run_id of staging.file.');
    delete from staging.file where loader = p_loader and sha256 = any (p_sha256);
end;
$$;

comment on function staging.forget_files(text, text[]) is
'Takes files that are rejected as a whole off the list of loaded ones, in the open run, so that they can come again.';

create function staging.analyze_tables(variadic p_tables regclass[]) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table regclass;
begin
    foreach v_table in array p_tables loop
        if (select relnamespace from pg_class where oid = v_table) <> 'staging'::regnamespace then
            raise exception '% is not a table of schema staging', v_table using errcode = 'BF009';
        end if;
        execute format('analyze %s', v_table);
    end loop;
end;
$$;

comment on function staging.analyze_tables(regclass[]) is
'Statistics of staging tables that a loader has just filled: what is due is asked next, before autovacuum comes by.';

revoke execute on all functions in schema backfill from public;
revoke execute on all functions in schema staging from public;
do $do$
begin
    perform backfill.grant_to('backfill_operator', 'execute on function staging.analyze_tables(regclass[])');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.forget_files(text, text[])');
    perform backfill.track('staging.file', '{loader,name}', null);
    perform backfill.grant_to('backfill_auditor', 'usage on schema staging');
    perform backfill.grant_to('backfill_auditor', 'select on staging.file');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.ensure_run(text, jsonb)');
    perform backfill.grant_to('backfill_operator', 'insert on staging.file');
    perform backfill.grant_to('backfill_operator', 'insert on backfill.reject');
end;
$do$;
