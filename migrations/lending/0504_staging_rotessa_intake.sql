-- One step of a fetch each: customers, the schedules of one of them, a page of transactions. What cannot be taken is a reject
-- with its reason, what changed a new version.
-- Safe: functions only; they write nothing but the tables of Rotessa in staging and the log's row of the fetch.
-- depends: 0503_staging_rotessa_fetch

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
        insert into backfill.reject (run_id, backfill, source, source_key, reason, amount, payload)
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
        insert into backfill.reject (run_id, backfill, source, source_key, reason, amount, payload)
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
