-- What a promotion is proved by: snapshots, waivers that expire, failing rows of dbt's runs, and the checks that systems
-- and projects register.
-- Safe: new append-only tables and functions.
-- depends: 0021_staging_file

create table backfill.snapshot (
    snapshot_id uuid primary key default gen_random_uuid(),
    taken_at timestamptz not null default now(),
    database text not null default current_database(),
    file text not null,
    sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    bytes bigint not null check (bytes > 0),
    server_version text not null,
    actor text not null default session_user
);

comment on table backfill.snapshot is 'Dumps that runner snapshot took. Append-only.';
comment on column backfill.snapshot.snapshot_id is 'Names it.';
comment on column backfill.snapshot.taken_at is 'When the dump was begun.';
comment on column backfill.snapshot.database is 'Of which database.';
comment on column backfill.snapshot.file is 'Where it was written: an absolute path on the machine of the runner.';
comment on column backfill.snapshot.sha256 is 'Of the file.';
comment on column backfill.snapshot.bytes is 'Its size.';
comment on column backfill.snapshot.server_version is 'Version of the server.';
comment on column backfill.snapshot.actor is 'By which role.';

create table backfill.waiver (
    waiver_id uuid primary key default gen_random_uuid(),
    test text not null check (btrim(test) <> ''),
    until date not null,
    reason text not null check (btrim(reason) <> ''),
    actor text not null,
    waived_at timestamptz not null default now()
);

comment on table backfill.waiver is 'Findings that somebody answers for until a day. Append-only: a new one for the same test takes the place of the last.';
comment on column backfill.waiver.waiver_id is 'Names it.';
comment on column backfill.waiver.test is 'Name of the gate, or of the backfill whose due rows are waived.';
comment on column backfill.waiver.until is 'The last day on which it holds.';
comment on column backfill.waiver.reason is 'Why.';
comment on column backfill.waiver.actor is 'Who answers for it.';
comment on column backfill.waiver.waived_at is 'When it was given.';

do $do$
begin
    perform backfill.append_only('backfill.snapshot');
    perform backfill.append_only('backfill.waiver');
end;
$do$;

create view backfill.active_waivers as
select
    w.test,
    w.until,
    w.reason,
    w.actor,
    w.waived_at
from (
    select
        *,
        row_number() over (partition by test order by waived_at desc, waiver_id asc) as nth
    from backfill.waiver
) as w
where w.nth = 1 and w.until >= (now() at time zone 'UTC')::date;

comment on view backfill.active_waivers is 'The latest waiver of each test, as long as it holds (days in UTC).';
comment on column backfill.active_waivers.test is 'Name of the gate or backfill.';
comment on column backfill.active_waivers.until is 'The last day on which it holds.';
comment on column backfill.active_waivers.reason is 'Why.';
comment on column backfill.active_waivers.actor is 'Who answers for it.';
comment on column backfill.active_waivers.waived_at is 'When it was given.';

create function backfill.waive(
    p_test text, p_until date, p_reason text, p_actor text default null
) returns backfill.waiver
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_waiver backfill.waiver;
    v_today date := (now() at time zone 'UTC')::date;
begin
    if btrim(coalesce(p_reason, '')) = '' or btrim(coalesce(p_test, '')) = '' then
        raise exception 'a waiver needs a test and a reason' using errcode = 'BF036';
    elsif p_until is null or p_until < v_today or p_until > v_today + 366 then
        raise exception 'a waiver until % is not possible: choose a day from today to a year from now', p_until using errcode = 'BF036';
    end if;
    insert into backfill.waiver (test, until, reason, actor, waived_at)
    values (p_test, p_until, p_reason, backfill.named_actor(p_actor), clock_timestamp())
    returning * into v_waiver;
    return v_waiver;
end;
$$;

comment on function backfill.waive(text, date, text, text) is
'Lets a promotion pass a failing gate, or due rows of a backfill, until a day (at most a year), with a reason. Kept for good. To
take it back: waive it again until today.';

create function backfill.record_snapshot(
    p_taken_at timestamptz, p_file text, p_sha256 text, p_bytes bigint
) returns backfill.snapshot
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into backfill.snapshot (taken_at, file, sha256, bytes, server_version, actor)
    values (p_taken_at, p_file, p_sha256, p_bytes, current_setting('server_version'), session_user)
    returning *;
$$;

comment on function backfill.record_snapshot(timestamptz, text, text, bigint) is 'Writes down a dump that was taken.';

create table backfill.stored_failure (
    invocation_id text not null,
    test text not null,
    number bigint not null,
    stored_at timestamptz not null default now(),
    payload jsonb,
    primary key (invocation_id, test, number)
);

comment on table backfill.stored_failure is
'Failing rows of dbt tests with store_failures, from every run: dbt itself keeps those of the last run only. Append-only.';
comment on column backfill.stored_failure.invocation_id is 'dbt''s id of the run.';
comment on column backfill.stored_failure.test is 'Name of the test.';
comment on column backfill.stored_failure.number is 'Place in its result; 0 with a null payload: it passed.';
comment on column backfill.stored_failure.stored_at is 'When.';
comment on column backfill.stored_failure.payload is 'The failing row.';

do $do$
begin
    perform backfill.append_only('backfill.stored_failure');
end;
$do$;

create table backfill.promotion_check (
    name text primary key check (btrim(name) <> ''),
    position integer not null unique,
    system text not null,
    function_name text not null,
    created_at timestamptz not null default now()
);

comment on table backfill.promotion_check is
'Lines of the promotion checklist that systems and projects bring, in the order of position; see backfill.register_check().';
comment on column backfill.promotion_check.name is 'The line''s name on the checklist.';
comment on column backfill.promotion_check.position is 'Place among these lines.';
comment on column backfill.promotion_check.system is 'Who brings it: a system''s name, or the project''s own.';
comment on column backfill.promotion_check.function_name is
'A function () returning rows (passed boolean, finding text, way_out text); it runs below a savepoint that is rolled back.';
comment on column backfill.promotion_check.created_at is 'When it was registered.';

create function backfill.register_check(
    p_name text, p_system text, p_position integer, p_function_name text
) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_other backfill.promotion_check;
begin
    if to_regprocedure(p_function_name || '()') is null then
        raise exception 'check % cannot be registered: there is no function %()', p_name, p_function_name
            using errcode = 'BF009', hint = 'Create it first: it returns rows (passed boolean, finding text, way_out text).';
    end if;
    select * into v_other from backfill.promotion_check where position = p_position and name <> p_name;
    if found then
        raise exception 'check % (%) cannot be registered: position % is that of % (%)',
            p_name, p_system, p_position, v_other.name, v_other.system
            using errcode = 'BF009', hint = 'Take another: the checklist goes in the order of the positions.';
    end if;
    insert into backfill.promotion_check (name, position, system, function_name)
    values (p_name, p_position, p_system, p_function_name)
    on conflict (name) do update
    set position = excluded.position, system = excluded.system, function_name = excluded.function_name;
end;
$$;

comment on function backfill.register_check(text, text, integer, text) is
'Adds a line to the promotion checklist: a function () returning rows (passed, finding, way_out), of which none may have failed.';

create function backfill.unregister_check(p_name text) returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    delete from backfill.promotion_check where name = p_name;
$$;

comment on function backfill.unregister_check(text) is 'Takes a line from the promotion checklist.';

do $do$
begin
end;
$do$;
