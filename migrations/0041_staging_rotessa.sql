-- Rotessa in staging: customers, schedules and transactions as the processor shows them, fetched in steps that can be
-- resumed. A row that changed moves its old content to staging.rotessa_version, so that nothing seen is lost.
-- Safe: new tables and functions in staging, views in lending; of the application only finish_rotessa_fetch() writes,
-- the schedule status and last sync of linked mortgages, inside the fetch's run.
-- depends: 0040_lending_baseline

create table staging.rotessa_fetch (
    fetch_id uuid primary key references backfill.backfill_log (run_id),
    date_from date not null,
    date_to date check (date_to >= date_from),
    look_back_days integer not null check (look_back_days >= 0),
    scan_from date not null,
    next_page integer not null default 1,
    customers_done bigint[] not null default '{}'
);

comment on table staging.rotessa_fetch is 'Fetches from Rotessa and how far each has come. Whether it is over says its row of the log.';
comment on column staging.rotessa_fetch.fetch_id is 'The fetch: its run in backfill.backfill_log.';
comment on column staging.rotessa_fetch.date_from is 'First process date that was asked for.';
comment on column staging.rotessa_fetch.date_to is 'Last process date; null = open.';
comment on column staging.rotessa_fetch.look_back_days is 'How many days before date_from are read again: an Approved payment can become a Chargeback.';
comment on column staging.rotessa_fetch.scan_from is 'date_from less the look-back: what is asked of the processor.';
comment on column staging.rotessa_fetch.next_page is 'First page of the transaction report that has not been taken.';
comment on column staging.rotessa_fetch.customers_done is 'Customers whose schedules have been taken.';

create table staging.rotessa_customer (
    id bigint primary key,
    name text not null,
    custom_identifier text,
    customer_type text,
    active boolean,
    version integer not null default 1,
    fetch_id uuid not null,
    changed_at timestamptz not null default now()
);

comment on table staging.rotessa_customer is 'Customers at Rotessa. Never holds account, transit, institution or routing numbers.';
comment on column staging.rotessa_customer.id is 'Rotessa''s id; borrowers carry it as rotessa_customer_id.';
comment on column staging.rotessa_customer.name is 'Name.';
comment on column staging.rotessa_customer.custom_identifier is 'The identifier that we gave.';
comment on column staging.rotessa_customer.customer_type is 'Personal or Business.';
comment on column staging.rotessa_customer.active is 'Whether Rotessa holds the customer active.';
comment on column staging.rotessa_customer.version is '1, and one more with each change that was seen.';
comment on column staging.rotessa_customer.fetch_id is 'The fetch that saw this content first.';
comment on column staging.rotessa_customer.changed_at is 'When.';

create table staging.rotessa_schedule (
    id bigint primary key,
    customer_id bigint not null,
    amount_cents bigint not null check (amount_cents > 0),
    frequency text not null,
    installments integer,
    process_date date,
    next_process_date date,
    gone boolean not null default false,
    version integer not null default 1,
    fetch_id uuid not null,
    changed_at timestamptz not null default now()
);

create index rotessa_schedule_customer on staging.rotessa_schedule (customer_id, amount_cents);

comment on table staging.rotessa_schedule is 'Payment schedules at Rotessa.';
comment on column staging.rotessa_schedule.id is 'Rotessa''s id; a linked mortgage carries it as rotessa_schedule_id.';
comment on column staging.rotessa_schedule.customer_id is 'Whose schedule: the API tells it only by the customer that lists it.';
comment on column staging.rotessa_schedule.amount_cents is 'Amount of one payment in cents.';
comment on column staging.rotessa_schedule.frequency is 'Once, Weekly, Every Other Week, Monthly, …';
comment on column staging.rotessa_schedule.installments is 'How many payments; null = indefinitely.';
comment on column staging.rotessa_schedule.process_date is 'First payment.';
comment on column staging.rotessa_schedule.next_process_date is 'Next payment; null = none any more.';
comment on column staging.rotessa_schedule.gone is 'The customer no longer lists it.';
comment on column staging.rotessa_schedule.version is '1, and one more with each change that was seen.';
comment on column staging.rotessa_schedule.fetch_id is 'The fetch that saw this content first.';
comment on column staging.rotessa_schedule.changed_at is 'When.';

create table staging.rotessa_transaction (
    id bigint primary key,
    customer_id bigint not null,
    schedule_id bigint,
    amount_cents bigint not null check (amount_cents > 0),
    status text not null check (status in ('Future', 'Pending', 'Approved', 'Declined', 'Chargeback')),
    status_reason text,
    process_date date not null,
    settlement_date date,
    version integer not null default 1,
    fetch_id uuid not null,
    changed_at timestamptz not null default now()
);

create index rotessa_transaction_schedule on staging.rotessa_transaction (schedule_id);

comment on table staging.rotessa_transaction is
'Transactions at Rotessa, each as it was seen last. Posted is what is Approved and has a settlement date that has come: Future and
Pending rows can carry one too.';
comment on column staging.rotessa_transaction.id is 'Rotessa''s id; payments carry it as source reference rotessa:tx:<id>.';
comment on column staging.rotessa_transaction.customer_id is 'Who paid.';
comment on column staging.rotessa_transaction.schedule_id is 'The schedule that it belongs to; null = none.';
comment on column staging.rotessa_transaction.amount_cents is 'Amount in cents.';
comment on column staging.rotessa_transaction.status is 'Future, Pending, Approved, Declined, Chargeback.';
comment on column staging.rotessa_transaction.status_reason is 'NSF, Account Closed, …';
comment on column staging.rotessa_transaction.process_date is 'Day on which it is processed.';
comment on column staging.rotessa_transaction.settlement_date is 'Day on which the money settles: the effective date of its posting.';
comment on column staging.rotessa_transaction.version is '1, and one more with each change that was seen.';
comment on column staging.rotessa_transaction.fetch_id is 'The fetch that saw this content first.';
comment on column staging.rotessa_transaction.changed_at is 'When.';

create table staging.rotessa_version (
    kind text not null check (kind in ('customer', 'schedule', 'transaction')),
    id bigint not null,
    version integer not null,
    content jsonb not null,
    replaced_by uuid not null references staging.rotessa_fetch (fetch_id),
    replaced_at timestamptz not null default now(),
    primary key (kind, id, version)
);

comment on table staging.rotessa_version is 'What rows from Rotessa were before they changed. Append-only.';
comment on column staging.rotessa_version.kind is 'customer, schedule, transaction.';
comment on column staging.rotessa_version.id is 'Rotessa''s id.';
comment on column staging.rotessa_version.version is 'Which version of the row it was.';
comment on column staging.rotessa_version.content is 'The whole row as it was.';
comment on column staging.rotessa_version.replaced_by is 'The fetch that saw it changed.';
comment on column staging.rotessa_version.replaced_at is 'When.';

create trigger refuse_change before update or delete on staging.rotessa_version
for each statement execute function backfill.refuse_change();
create trigger refuse_truncate before truncate on staging.rotessa_version
for each statement execute function backfill.refuse_change();

create function staging.rotessa_fault(
    p_id text, p_customer text, p_schedule text, p_amount text, p_process_date text, p_settlement_date text
) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD'
as $$
    select nullif(concat_ws('; ',
        case when p_id ~ '^[1-9][0-9]{0,17}$' then null else format('id is no whole number: %L', left(p_id, 60)) end,
        case when p_customer ~ '^[1-9][0-9]{0,17}$' then null else format('customer is no whole number: %L', left(p_customer, 60)) end,
        case when p_schedule !~ '^[1-9][0-9]{0,17}$' then format('schedule is no whole number: %L', left(p_schedule, 60)) end,
        case
            when p_amount is null then 'amount is missing'
            when p_amount !~ '^[0-9]{1,13}(\.[0-9]{1,2})?$'
                then format('amount is no amount written like 123.00, with at most two decimals: %L', left(p_amount, 60))
            when p_amount::numeric = 0 then 'amount is zero'
        end,
        (select string_agg(format('%s is not a day written YYYY-MM-DD: %L', d.field, left(d.value, 60)), '; ' order by d.field)
            from (values ('process_date', p_process_date), ('settlement_date', p_settlement_date)) as d (field, value)
            -- Unpadded days (2019-03-7) come up in the processor's own samples. (PostgreSQL 15 has no pg_input_is_valid.)
            where case
                when d.value ~ '^[1-9][0-9]{3}-((0?[1-9]|1[0-2])-(0?[1-9]|1[0-9]|2[0-8])|(0?[13578]|1[02])-(29|30|31)|(0?[469]|11)-(29|30))$'
                    then false
                when d.value ~ '^[1-9][0-9]{3}-0?2-29$'
                    then extract(month from make_date(left(d.value, 4)::integer, 2, 28) + 1) <> 2
                else d.value is not null
            end)
    ), '');
$$;

comment on function staging.rotessa_fault(text, text, text, text, text, text) is
'Why a row from Rotessa cannot be taken, all reasons with their values; null where it can. Amounts are text in dollars.';

create function staging.begin_rotessa_fetch(
    p_from date, p_to date default null, p_look_back_days integer default 45
) returns table (fetch_id uuid, resumed boolean, customers_done bigint[], next_page integer, scan_from date)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_fetch record;
begin
    if p_from is null or p_to < p_from or coalesce(p_look_back_days, -1) < 0 then
        raise exception 'a fetch from % to % with % days of look-back is none', coalesce(p_from::text, 'null'),
            coalesce(p_to::text, 'open'), coalesce(p_look_back_days::text, 'null')
            using errcode = 'BF041', hint = 'From is needed, and not after to.';
    end if;
    perform backfill.take_lock();
    resumed := false;
    for v_fetch in
        select f.*, l.started_at from staging.rotessa_fetch as f
        join backfill.backfill_log as l on l.run_id = f.fetch_id and l.status = 'running'
        order by l.started_at desc
    loop
        -- Pages move on as rows arrive: after a day they are no longer the same pages.
        if not resumed and v_fetch.date_from = p_from and v_fetch.date_to is not distinct from p_to
            and v_fetch.look_back_days = p_look_back_days and v_fetch.started_at > now() - interval '1 day' then
            resumed := true;
            fetch_id := v_fetch.fetch_id;
            customers_done := v_fetch.customers_done;
            next_page := v_fetch.next_page;
            scan_from := v_fetch.scan_from;
        elsif v_fetch.started_at <= now() - interval '1 day' then
            perform backfill.resume_run(v_fetch.fetch_id);
            perform backfill.finish_run('{}', jsonb_build_array('left unfinished for a day, and not resumed'), 'failed');
        end if;
    end loop;
    if not resumed then
        fetch_id := backfill.begin_run('fetch rotessa',
            jsonb_strip_nulls(jsonb_build_object('from', p_from, 'to', p_to, 'look_back_days', p_look_back_days)),
            jsonb_build_object('triggered_by', session_user), 'load', p_spans_transactions => true);
        perform set_config('backfill.run_id', '', true);
        customers_done := '{}';
        next_page := 1;
        scan_from := p_from - p_look_back_days;
        insert into staging.rotessa_fetch (fetch_id, date_from, date_to, look_back_days, scan_from)
        values (begin_rotessa_fetch.fetch_id, p_from, p_to, p_look_back_days, begin_rotessa_fetch.scan_from);
    end if;
    return next;
end;
$$;

comment on function staging.begin_rotessa_fetch(date, date, integer) is
'Begins a fetch, or goes on with one of the same dates that was broken off within the last day: commit before the first request.
Scan_from: what to ask the processor for, the look-back included.';

create function staging.count_rotessa(
    p_fetch uuid, p_kind text, p_created bigint, p_changed bigint, p_unchanged bigint, p_rejected bigint
) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update backfill.backfill_log as l
    set metrics = l.metrics || jsonb_build_object(p_kind, (
        select jsonb_object_agg(c.name, c.count + coalesce((l.metrics -> p_kind ->> c.name)::bigint, 0))
        from (values ('created', p_created), ('changed', p_changed), ('unchanged', p_unchanged), ('rejected', p_rejected))
            as c (name, count)))
    where l.run_id = p_fetch;
end;
$$;

comment on function staging.count_rotessa(uuid, text, bigint, bigint, bigint, bigint) is
'Adds a step''s counts to the fetch''s row of the log, so that they can be watched.';

create function staging.step_rotessa(p_fetch uuid, p_rows jsonb) returns staging.rotessa_fetch
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_fetch staging.rotessa_fetch;
begin
    perform backfill.take_lock();
    select f.* into v_fetch
    from staging.rotessa_fetch as f
    join backfill.backfill_log as l on l.run_id = f.fetch_id and l.status = 'running'
    where f.fetch_id = p_fetch;
    if not found then
        raise exception 'fetch % is not running', coalesce(p_fetch::text, 'null')
            using errcode = 'BF041', hint = 'select * from staging.begin_rotessa_fetch(from, to);';
    elsif jsonb_typeof(p_rows) is distinct from 'array' then
        raise exception 'the processor''s answer is no array but %', coalesce(jsonb_typeof(p_rows), 'null')
            using errcode = 'BF041', hint = 'Nothing was taken. Customers, schedules and reports are bare arrays.';
    end if;
    return v_fetch;
end;
$$;

comment on function staging.step_rotessa(uuid, jsonb) is 'Refuses (BF041) a step of a fetch that does not run, or an answer that is no array.';

create function staging.take_rotessa_customers(p_fetch uuid, p_rows jsonb)
returns table (created bigint, changed bigint, unchanged bigint, rejected bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform staging.step_rotessa(p_fetch, p_rows);
    with raw as materialized (
        select r.*, coalesce(r.id, 'row ' || r.place) as key, nullif(concat_ws('; ',
            case when r.id ~ '^[1-9][0-9]{0,17}$' then null else format('id is no whole number: %L', left(r.id, 60)) end,
            case when btrim(r.name) <> '' then null else 'name is missing' end,
            case when r.active not in ('true', 'false') then format('active is neither true nor false: %L', left(r.active, 60)) end
        ), '') as fault
        from rows from (jsonb_to_recordset(p_rows) as (
            id text, name text, custom_identifier text, customer_type text, active text)) with ordinality
            as r (id, name, custom_identifier, customer_type, active, place)
    ), bad as (
        insert into backfill.reject (run_id, backfill, source, source_key, reason, payload)
        select distinct p_fetch, 'fetch rotessa', 'rotessa customers', left(key, 100), fault, '{}'::jsonb from raw where fault is not null
        on conflict do nothing
    ), good as (
        select distinct on (id::bigint) id::bigint as id, btrim(name) as name, custom_identifier, customer_type, active::boolean as active
        from raw where fault is null
        order by id::bigint, place desc
    ), compared as (
        select g.*, t.version as was, to_jsonb(t) as content,
            t.id is not null and (t.name, t.custom_identifier, t.customer_type, t.active)
                is distinct from (g.name, g.custom_identifier, g.customer_type, g.active) as differs
        from good as g left join staging.rotessa_customer as t on t.id = g.id
    ), kept as (
        insert into staging.rotessa_version (kind, id, version, content, replaced_by)
        select 'customer', id, was, content, p_fetch from compared where differs
    ), written as (
        insert into staging.rotessa_customer (id, name, custom_identifier, customer_type, active, version, fetch_id)
        select id, name, custom_identifier, customer_type, active, coalesce(was, 0) + 1, p_fetch
        from compared where was is null or differs
        on conflict (id) do update
        set name = excluded.name, custom_identifier = excluded.custom_identifier, customer_type = excluded.customer_type,
            active = excluded.active, version = excluded.version, fetch_id = excluded.fetch_id, changed_at = now()
    )
    select count(*) filter (where was is null), count(*) filter (where differs),
        count(*) filter (where was is not null and not differs), (select count(*) from raw where fault is not null)
    into created, changed, unchanged, rejected
    from compared;
    perform staging.count_rotessa(p_fetch, 'customers', created, changed, unchanged, rejected);
    return next;
end;
$$;

comment on function staging.take_rotessa_customers(uuid, jsonb) is
'One step of a fetch: the array of GET /customers. Only id, name, custom_identifier, customer_type and active are taken.';

create function staging.take_rotessa_schedules(p_fetch uuid, p_customer bigint, p_rows jsonb)
returns table (created bigint, changed bigint, unchanged bigint, rejected bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD'
as $$
begin
    perform staging.step_rotessa(p_fetch, p_rows);
    with raw as materialized (
        select r.*, coalesce(r.id, format('customer %s row %s', p_customer, r.place)) as key, nullif(concat_ws('; ',
            replace(staging.rotessa_fault(r.id, p_customer::text, null, r.amount, r.process_date, r.next_process_date),
                'settlement_date', 'next_process_date'),
            case when btrim(r.frequency) <> '' then null else 'frequency is missing' end,
            case when r.installments !~ '^[0-9]{1,9}$' then format('installments is no number: %L', left(r.installments, 60)) end
        ), '') as fault
        from rows from (jsonb_to_recordset(p_rows) as (
            id text, amount text, frequency text, installments text, process_date text, next_process_date text)) with ordinality
            as r (id, amount, frequency, installments, process_date, next_process_date, place)
    ), bad as (
        insert into backfill.reject (run_id, backfill, source, source_key, reason, cents, payload)
        select distinct p_fetch, 'fetch rotessa', 'rotessa schedules', left(key, 100), fault,
            case when amount ~ '^[0-9]{1,13}(\.[0-9]{1,2})?$' then (amount::numeric * 100)::bigint end,
            jsonb_build_object('customer', p_customer)
        from raw where fault is not null
        on conflict do nothing
    ), good as (
        select distinct on (id::bigint) id::bigint as id, p_customer as customer_id, (amount::numeric * 100)::bigint as amount_cents,
            btrim(frequency) as frequency, installments::integer as installments, process_date::date as process_date,
            next_process_date::date as next_process_date, false as gone
        from raw where fault is null
        order by id::bigint, place desc
    ), wanted as (
        select * from good
        union all
        -- What the customer no longer lists is gone, unless the row was merely not readable.
        select t.id, t.customer_id, t.amount_cents, t.frequency, t.installments, t.process_date, null, true
        from staging.rotessa_schedule as t
        where t.customer_id = p_customer and not t.gone and not exists (select from raw as r where r.id = t.id::text)
    ), compared as (
        select g.*, t.version as was, to_jsonb(t) as content,
            t.id is not null and (t.customer_id, t.amount_cents, t.frequency, t.installments, t.process_date, t.next_process_date, t.gone)
                is distinct from (g.customer_id, g.amount_cents, g.frequency, g.installments, g.process_date, g.next_process_date, g.gone)
                as differs
        from wanted as g left join staging.rotessa_schedule as t on t.id = g.id
    ), kept as (
        insert into staging.rotessa_version (kind, id, version, content, replaced_by)
        select 'schedule', id, was, content, p_fetch from compared where differs
    ), written as (
        insert into staging.rotessa_schedule
            (id, customer_id, amount_cents, frequency, installments, process_date, next_process_date, gone, version, fetch_id)
        select id, customer_id, amount_cents, frequency, installments, process_date, next_process_date, gone,
            coalesce(was, 0) + 1, p_fetch
        from compared where was is null or differs
        on conflict (id) do update
        set customer_id = excluded.customer_id, amount_cents = excluded.amount_cents, frequency = excluded.frequency,
            installments = excluded.installments, process_date = excluded.process_date,
            next_process_date = excluded.next_process_date, gone = excluded.gone, version = excluded.version,
            fetch_id = excluded.fetch_id, changed_at = now()
    )
    select count(*) filter (where was is null), count(*) filter (where differs),
        count(*) filter (where was is not null and not differs), (select count(*) from raw where fault is not null)
    into created, changed, unchanged, rejected
    from compared;
    update staging.rotessa_fetch as f set customers_done = f.customers_done || p_customer
    where f.fetch_id = p_fetch and not p_customer = any (f.customers_done);
    perform staging.count_rotessa(p_fetch, 'schedules', created, changed, unchanged, rejected);
    return next;
end;
$$;

comment on function staging.take_rotessa_schedules(uuid, bigint, jsonb) is
'One step of a fetch: all transaction_schedules of one customer. One that is no longer among them is marked as gone.';

create function staging.take_rotessa_transactions(p_fetch uuid, p_page integer, p_rows jsonb)
returns table (created bigint, changed bigint, unchanged bigint, rejected bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD'
set jit = off
as $$
begin
    perform staging.step_rotessa(p_fetch, p_rows);
    with raw as materialized (
        select r.*
        from rows from (jsonb_to_recordset(p_rows) as (
            id text, customer_id text, transaction_schedule_id text, amount text, status text, status_reason text,
            process_date text, settlement_date text)) with ordinality
            as r (id, customer_id, schedule_id, amount, status, status_reason, process_date, settlement_date, place)
    ), judged as materialized (
        -- Written in the plainest form is what nearly every row is; only the others are looked at field by field.
        select r.*, case
            when r.id ~ '^[1-9][0-9]{0,17}$' and r.customer_id ~ '^[1-9][0-9]{0,17}$'
                and (r.schedule_id is null or r.schedule_id ~ '^[1-9][0-9]{0,17}$')
                and r.amount ~ '^[1-9][0-9]{0,12}(\.[0-9]{1,2})?$'
                and r.status in ('Future', 'Pending', 'Approved', 'Declined', 'Chargeback')
                and r.process_date ~ '^[1-9][0-9]{3}-(0?[1-9]|1[0-2])-(0?[1-9]|1[0-9]|2[0-8])$'
                and (r.settlement_date is null or r.settlement_date ~ '^[1-9][0-9]{3}-(0?[1-9]|1[0-2])-(0?[1-9]|1[0-9]|2[0-8])$')
                then null
            else nullif(concat_ws('; ',
                staging.rotessa_fault(r.id, r.customer_id, r.schedule_id, r.amount, r.process_date, r.settlement_date),
                case when r.process_date is null then 'process_date is missing' end,
                case when r.status in ('Future', 'Pending', 'Approved', 'Declined', 'Chargeback') then null
                    else format('status is none that we know: %L', left(r.status, 60)) end
            ), '')
        end as fault
        from raw as r
    ), bad as (
        insert into backfill.reject (run_id, backfill, source, source_key, reason, cents, payload)
        select distinct on (key, fault) p_fetch, 'fetch rotessa', 'rotessa transactions', key, fault,
            case when amount ~ '^[0-9]{1,13}(\.[0-9]{1,2})?$' then (amount::numeric * 100)::bigint end,
            jsonb_strip_nulls(jsonb_build_object('page', p_page, 'row', place, 'status', left(status, 60)))
        from (select j.*, left(coalesce(j.id, format('page %s row %s', p_page, j.place)), 100) as key from judged as j) as j
        where fault is not null
        on conflict do nothing
    ), good as (
        select distinct on (id::bigint) id::bigint as id, customer_id::bigint as customer_id, schedule_id::bigint as schedule_id,
            (amount::numeric * 100)::bigint as amount_cents, status, nullif(btrim(status_reason), '') as status_reason,
            process_date::date as process_date, settlement_date::date as settlement_date
        from judged where fault is null
        order by id::bigint, place desc
    ), compared as materialized (
        select g.*, t.version as was, case when t.id is not null then to_jsonb(t) end as content,
            t.id is not null and (t.customer_id, t.schedule_id, t.amount_cents, t.status, t.status_reason, t.process_date, t.settlement_date)
                is distinct from
                (g.customer_id, g.schedule_id, g.amount_cents, g.status, g.status_reason, g.process_date, g.settlement_date) as differs
        from good as g left join staging.rotessa_transaction as t on t.id = g.id
    ), kept as (
        insert into staging.rotessa_version (kind, id, version, content, replaced_by)
        select 'transaction', id, was, content, p_fetch from compared where differs
    ), altered as (
        update staging.rotessa_transaction as t
        set customer_id = c.customer_id, schedule_id = c.schedule_id, amount_cents = c.amount_cents, status = c.status,
            status_reason = c.status_reason, process_date = c.process_date, settlement_date = c.settlement_date,
            version = c.was + 1, fetch_id = p_fetch, changed_at = now()
        from compared as c where c.differs and t.id = c.id
    ), written as (
        insert into staging.rotessa_transaction (id, customer_id, schedule_id, amount_cents, status, status_reason,
            process_date, settlement_date, fetch_id)
        select id, customer_id, schedule_id, amount_cents, status, status_reason, process_date, settlement_date, p_fetch
        from compared where was is null
    )
    select count(*) filter (where was is null), count(*) filter (where differs),
        count(*) filter (where was is not null and not differs), (select count(*) from judged where fault is not null)
    into created, changed, unchanged, rejected
    from compared;
    update staging.rotessa_fetch as f set next_page = greatest(f.next_page, p_page + 1) where f.fetch_id = p_fetch;
    perform staging.count_rotessa(p_fetch, 'transactions', created, changed, unchanged, rejected);
    return next;
end;
$$;

comment on function staging.take_rotessa_transactions(uuid, integer, jsonb) is
'One step of a fetch: a page of the transaction report. Pages may overlap: rows are known by their id, the later one of a page
counts. What changed is a new version. Bank numbers are not looked at, whatever the rows carry.';

create function staging.finish_rotessa_fetch(p_fetch uuid) returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_synced bigint;
    v_log backfill.backfill_log;
begin
    perform staging.step_rotessa(p_fetch, '[]');
    perform backfill.resume_run(p_fetch);
    update lending.mortgages as m
    set rotessa_schedule_status = lending.schedule_status(m.rotessa_schedule_id), rotessa_last_sync_at = now()
    where m.rotessa_schedule_id is not null
        -- A fetch of schedules that did not ask for this customer says nothing of it.
        and not exists (
            select from staging.rotessa_schedule as s
            join staging.rotessa_fetch as f on f.fetch_id = p_fetch
            where s.id = m.rotessa_schedule_id and not s.customer_id = any (f.customers_done)
        );
    get diagnostics v_synced = row_count;
    v_log := backfill.finish_run(jsonb_build_object('mortgages_synced', v_synced));
    return v_log.metrics;
end;
$$;

comment on function staging.finish_rotessa_fetch(uuid) is
'Ends a fetch: linked mortgages get their schedule''s status and the time of the sync. Returns the counts, as the log has them.';

create function staging.take_rotessa_history(p_schedule bigint, p_rows jsonb) returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_customer bigint;
    v_fetch uuid;
    v_rows jsonb;
begin
    select s.customer_id into v_customer from staging.rotessa_schedule as s where s.id = p_schedule;
    if not found then
        raise exception 'schedule % is not in staging', coalesce(p_schedule::text, 'null')
            using errcode = 'BF041', hint = 'Fetch first: runner fetch rotessa --from DATE.';
    elsif jsonb_typeof(p_rows) is distinct from 'array' then
        raise exception 'the history of schedule % is no array but %', p_schedule, coalesce(jsonb_typeof(p_rows), 'null')
            using errcode = 'BF041', hint = 'Pass financial_transactions of GET /transaction_schedules/{id}.';
    end if;
    perform backfill.take_lock();
    v_fetch := backfill.begin_run('fetch rotessa', jsonb_build_object('schedule', p_schedule),
        jsonb_build_object('schedule', p_schedule, 'triggered_by', session_user), 'load', p_spans_transactions => true);
    perform set_config('backfill.run_id', '', true);
    insert into staging.rotessa_fetch (fetch_id, date_from, date_to, look_back_days, scan_from)
    values (v_fetch, current_date, current_date, 0, current_date);
    -- A schedule does not say whose it is, and its rows may not either.
    select coalesce(jsonb_agg(
        jsonb_build_object('customer_id', v_customer) || jsonb_strip_nulls(r.value) || jsonb_build_object('transaction_schedule_id', p_schedule)
        order by r.place), '[]') into v_rows
    from jsonb_array_elements(p_rows) with ordinality as r (value, place);
    perform staging.take_rotessa_transactions(v_fetch, 1, v_rows);
    return staging.finish_rotessa_fetch(v_fetch);
end;
$$;

comment on function staging.take_rotessa_history(bigint, jsonb) is
'The history of one schedule, as its financial_transactions have it, as a fetch of its own in one transaction. Returns the counts.';

create function lending.schedule_status(p_schedule bigint) returns text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce((
        select case when s.gone then 'missing' when s.next_process_date is null then 'ended' else 'active' end
        from staging.rotessa_schedule as s where s.id = p_schedule
    ), 'missing');
$$;

comment on function lending.schedule_status(bigint) is 'active, ended (no next payment), or missing (not listed by the processor).';

create view lending.schedules as
select
    s.id as schedule_id,
    s.customer_id,
    c.name as customer_name,
    s.amount_cents,
    s.frequency,
    s.installments,
    s.process_date,
    s.next_process_date,
    s.gone,
    s.version,
    s.changed_at,
    m.id as mortgage_id,
    m.number as mortgage_number
from staging.rotessa_schedule as s
left join staging.rotessa_customer as c on s.customer_id = c.id
left join lending.mortgages as m on s.id = m.rotessa_schedule_id;

comment on view lending.schedules is 'Schedules at the processor, with their customer and the mortgage they are linked to. Grain: one row for each schedule.';
comment on column lending.schedules.schedule_id is 'Rotessa''s id.';
comment on column lending.schedules.customer_name is 'Name of the customer.';
comment on column lending.schedules.mortgage_id is 'The mortgage that it is linked to; null = none.';
comment on column lending.schedules.mortgage_number is 'Its number.';

create view lending.transactions as
select
    t.id as transaction_id,
    'rotessa:tx:' || t.id as reference,
    t.customer_id,
    t.schedule_id,
    t.amount_cents,
    t.status,
    t.status_reason,
    t.process_date,
    t.settlement_date,
    t.version,
    t.fetch_id,
    t.changed_at
from staging.rotessa_transaction as t;

comment on view lending.transactions is 'Transactions at the processor as they were seen last. Grain: one row for each transaction.';
comment on column lending.transactions.transaction_id is 'Rotessa''s id.';
comment on column lending.transactions.reference is 'Source system and id: by it a payment is known, whoever writes it.';

revoke execute on all functions in schema staging from public;
revoke execute on all functions in schema lending from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on staging.rotessa_fetch, staging.rotessa_customer, '
        'staging.rotessa_schedule, staging.rotessa_transaction, staging.rotessa_version, lending.schedules, lending.transactions');
    perform backfill.grant_to('backfill_auditor', 'execute on function lending.schedule_status(bigint)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.begin_rotessa_fetch(date, date, integer)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.take_rotessa_customers(uuid, jsonb)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.take_rotessa_schedules(uuid, bigint, jsonb)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.take_rotessa_transactions(uuid, integer, jsonb)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.finish_rotessa_fetch(uuid)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.take_rotessa_history(bigint, jsonb)');
end;
$do$;
