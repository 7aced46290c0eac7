-- Landed files: what `runner load` has taken, so that loading a file twice is a no-op.
-- Safe: a schema where there is none of that name, a new table; nothing of the applications is touched.
-- depends: 0020_backfill_reversal

do $do$
begin
    if backfill.create_baseline_schema('staging') then  -- a common name: another's is shared
        comment on schema staging is 'Rows as they came from files and interfaces, typed, with the file and line that each came from.';
    end if;
end;
$do$;

create function backfill.require_load(p_way text) returns uuid
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run uuid := backfill.require_run(p_way);
begin
    if not exists (select from backfill.backfill_log as l where l.run_id = v_run and l.mode = 'load') then
        raise exception 'the open run % is no load', v_run using errcode = 'BF001', hint = p_way;
    end if;
    return v_run;
end;
$$;

comment on function backfill.require_load(text) is 'The load that is open in this transaction; refuses (BF001) where there is none, and names the way to one.';

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
comment on column staging.file.loader is 'Which loader: invoices, rent-history, electricity, finance_ledger, ...';
comment on column staging.file.sha256 is 'Of the file''s bytes; the staged rows carry it as file_sha256.';
comment on column staging.file.name is 'Name of the file as it was given, without its directory.';
comment on column staging.file.bytes is 'Its size.';
comment on column staging.file.run_id is 'The run that loaded it, or read it again, last; backfill.reverse_run(run) takes the rows of that run out again.';
comment on column staging.file.loaded_at is 'When.';

create view staging.file_in_flight as
select
    loader,
    sha256
from staging.file
where loaded_at >= (select backfill.as_of());

comment on view staging.file_in_flight is 'Files that were not loaded before backfill.as_of(): what came with them is left out. Empty without as-of.';
comment on column staging.file_in_flight.loader is 'Which loader.';
comment on column staging.file_in_flight.sha256 is 'The file.';

create function staging.land_files(p_loader text, p_files jsonb) returns void
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into staging.file (loader, sha256, name, bytes, run_id)
    select p_loader, f.sha256, f.name, f.bytes, backfill.require_load('A file is landed by runner load.')
    from jsonb_to_recordset(p_files) as f (sha256 text, name text, bytes bigint)
    on conflict (loader, sha256) do update set run_id = excluded.run_id, loaded_at = excluded.loaded_at;
$$;

comment on function staging.land_files(text, jsonb) is
'Writes down the files of the open load: [{"sha256", "name", "bytes"}]. Their rows may be staged from then on. A file that was loaded before, and is
read again since another of this load''s belongs to it, is this load''s from here on: the earlier one is undone after it.';

create function backfill.keep_rejects(p_rejects jsonb) returns bigint
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run uuid := backfill.require_load('Rejects of a backfill are kept by backfill.run(); a load''s by runner load.');
    v_title text := (select l.backfill from backfill.backfill_log as l where l.run_id = v_run);
    v_count bigint;
begin
    if exists (select from backfill.catalog as c where c.backfill = v_title) then
        raise exception 'rejects of % are kept by backfill.run() alone', v_title using errcode = 'BF001';
    end if;
    insert into backfill.reject (run_id, backfill, source, source_key, line, reason, amount, currency, payload)
    select v_run, v_title, r.source, r.source_key, r.line, r.reason, r.cents, r.currency, coalesce(r.payload, '{}')
    from jsonb_to_recordset(p_rejects) as r (source text, source_key text, line bigint, reason text, cents numeric, currency text, payload jsonb);
    get diagnostics v_count = row_count;
    return v_count;
end;
$$;

comment on function backfill.keep_rejects(jsonb) is
'Keeps source rows that the open load cannot take, [{"source", "source_key", "line", "reason", "cents", "currency", "payload"}], under its name; how many.';

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

do $do$
begin
    perform backfill.track('staging.file', '{loader,name}', null);
end;
$do$;
