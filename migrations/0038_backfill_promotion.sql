-- What a promotion is proved by: snapshots, waivers that expire, and a smoke test of the billing flows.
-- Safe: new append-only tables and functions; the smoke test writes rows that its caller must roll back.
-- depends: 0037_billing_policies

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
declare
    v_table text;
begin
    foreach v_table in array array['snapshot', 'waiver'] loop
        execute format('create trigger refuse_change before update or delete on backfill.%I '
            'for each statement execute function backfill.refuse_change()', v_table);
        execute format('create trigger refuse_truncate before truncate on backfill.%I '
            'for each statement execute function backfill.refuse_change()', v_table);
    end loop;
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
        raise exception 'a waiver until % cannot be: it must end between today and in a year', p_until using errcode = 'BF036';
    end if;
    insert into backfill.waiver (test, until, reason, actor, waived_at)
    values (p_test, p_until, p_reason, concat_ws(' via ', nullif(p_actor, session_user), session_user), clock_timestamp())
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

create function backfill.promotion_checks()
returns table (subject text, finding text, detail text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select 'constraints', format('%s of %s is not validated', c.conname, c.conrelid::regclass),
        'select * from billing.validate_constraints();'
    from pg_constraint as c
    join pg_namespace as n on n.oid = c.connamespace and n.nspname !~ '^(pg_|information_schema)'
    where not c.convalidated
    union all
    select 'policies', format('table %s has no policy', t.table_name), 'select backfill.prepare_rls();'
    from backfill.policy_tables() as t
    where not exists (select from pg_policy where polrelid = t.table_name::regclass)
    order by 1, 2;
$$;

comment on function backfill.promotion_checks() is
'What of the schema is in the way of a promotion: constraints not validated, tables without policies. Empty = nothing.';

create function billing.smoke_test() returns table (step text, passed boolean, message text)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_company uuid := gen_random_uuid();
    v_facility uuid := gen_random_uuid();
    v_check uuid := gen_random_uuid();
    v_paid uuid;
    v_late uuid;
    v_count bigint;
    v_text text;
begin
    passed := true;
    step := 'issue';
    begin
        insert into billing.companies (id, name) values (v_company, 'smoke test ' || v_company);
        insert into billing.settings (company_id, next_invoice_number, interest_annual_bps) values (v_company, 1, 1000);
        insert into billing.facilities (id, company_id, name) values (v_facility, v_company, 'smoke test');
        execute 'select (billing.create_facility_invoice($1, $2, date ''2020-01-06'', date ''2020-01-12'', $3)).id'
        into v_paid using v_company, v_facility, '[{"description": "smoke", "amount_cents": 10000}]'::jsonb;
        execute 'select (billing.create_facility_invoice($1, $2, date ''2020-01-13'', date ''2020-01-19'', $3)).id'
        into v_late using v_company, v_facility, '[{"description": "smoke", "amount_cents": 36500}]'::jsonb;
        update billing.invoices set status = 'sent', sent_at = '2020-02-01 00:00Z', due_date = '2020-02-10' where id = v_paid;
        update billing.invoices set status = 'sent', sent_at = '2020-02-01 00:00Z', due_date = '2020-03-01' where id = v_late;
        select count(distinct invoice_number) into v_count from billing.invoices where company_id = v_company;
        passed := v_count = 2;
        message := format('%s invoices with numbers of their own', v_count);
    exception
        when others then
            passed := false;
            message := sqlerrm;
    end;
    return next;

    step := 'pay';
    begin
        insert into billing.check_payments (id, company_id, facility_id, check_number, received_on, amount_cents)
        values (v_check, v_company, v_facility, 'smoke', '2020-02-05', 10000);
        passed := v_paid is not null;
        message := 'a check of 100.00';
    exception
        when others then
            passed := false;
            message := sqlerrm;
    end;
    return next;

    step := 'allocate';
    begin
        execute 'select count(*) from billing.allocate_check($1)' into v_count using v_check;
        select format('%s, %s cents', i.status, i.amount_paid_cents) into v_text from billing.invoices as i where i.id = v_paid;
        passed := v_text is not distinct from 'paid, 10000 cents' and v_count = 1;
        message := format('the oldest invoice is %s', v_text);
    exception
        when others then
            passed := false;
            message := sqlerrm;
    end;
    return next;

    step := 'accrue';
    begin
        execute 'select count(*) from billing.accrue_invoice_interest($1, date ''2020-03-11'')' into v_count using v_late;
        select sum(a.amount_cents) into v_text from billing.interest_accruals as a where a.invoice_id = v_late;
        passed := v_text is not distinct from '100';  -- 365.00 at 10 % a year for ten days
        message := format('%s cents for ten days', coalesce(v_text, 'no'));
    exception
        when others then
            passed := false;
            message := sqlerrm;
    end;
    return next;

    step := 'void';
    begin
        execute 'select (billing.void_invoice($1, ''smoke test'')).status' into v_text using v_late;
        passed := v_text is not distinct from 'void';
        message := format('the other invoice is %s', v_text);
        begin
            execute 'select billing.void_invoice($1, ''smoke test'')' using v_paid;
            passed := false;
            message := 'a paid invoice was voided';
        exception
            when others then
                null;  -- refused, as it must be
        end;
    exception
        when others then
            passed := false;
            message := sqlerrm;
    end;
    return next;
end;
$$;

comment on function billing.smoke_test() is
'Issue, pay, allocate, accrue, void, on a company of its own; each step with what came of it. It writes: call it in a transaction
that is rolled back, as runner promote does.';

revoke execute on all functions in schema backfill from public;
revoke execute on all functions in schema billing from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor',
        'select on backfill.snapshot, backfill.waiver, backfill.active_waivers');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.promotion_checks()');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.waive(text, date, text, text)');
    perform backfill.grant_to('backfill_operator',
        'execute on function backfill.record_snapshot(timestamptz, text, text, bigint)');
    perform backfill.grant_to('backfill_operator', 'execute on function billing.smoke_test()');
end;
$do$;
