-- Backfill "electricity_bills": staged lines into rent.electricity_bills, and their sum a month as rent_config 'el' where
-- that is missing.
-- Safe: functions and views only.
-- depends: 0309_backfill_rent_history

create view backfill.electricity_bills_files as
with judged as (
    select
        b.file_sha256,
        b.line,
        b.provider,
        b.bill_date,
        b.amount,
        rent.bill_period(b.bill_date) as bill_period,
        kept.amount as kept_amount,
        p.closed_at,
        min(b.amount) over (partition by b.provider, b.bill_date) as lowest,
        max(b.amount) over (partition by b.provider, b.bill_date) as highest
    from staging.electricity_bill as b
    left join rent.electricity_bills as kept on b.provider = kept.provider and b.bill_date = kept.bill_date
    left join rent.closed_period as p on rent.bill_period(b.bill_date) = p.period
    where
        not exists (
            select from staging.file_in_flight as f
            where f.sha256 = b.file_sha256
        )
)

select
    file_sha256,
    line,
    provider,
    bill_date,
    bill_period,
    amount,
    kept_amount is not null as is_kept,
    case
        when kept_amount <> amount
            then format('%s of %s is already there with %s kr', provider, bill_date, trim_scale(kept_amount / 100.0))
        when kept_amount is null and closed_at is not null
            then format('%s was closed on %s', bill_period, to_char(closed_at, 'YYYY-MM-DD'))
        when kept_amount is null and lowest < highest
            then format(
                    'files disagree on %s of %s: %s and %s kr', provider, bill_date,
                    trim_scale(lowest / 100.0), trim_scale(highest / 100.0)
                )
    end as problem
from judged;

comment on view backfill.electricity_bills_files is
'Every staged bill with its month: is it kept in rent.electricity_bills, and what keeps it from being taken.';
comment on column backfill.electricity_bills_files.file_sha256 is 'The staged file.';
comment on column backfill.electricity_bills_files.line is 'Line in it.';
comment on column backfill.electricity_bills_files.provider is 'From the section''s heading.';
comment on column backfill.electricity_bills_files.bill_date is 'Due date.';
comment on column backfill.electricity_bills_files.bill_period is 'Month of consumption.';
comment on column backfill.electricity_bills_files.amount is 'Ore.';
comment on column backfill.electricity_bills_files.is_kept is 'A bill of this provider and date is in rent.electricity_bills.';
comment on column backfill.electricity_bills_files.problem is 'Why it cannot be taken; null where it can.';

create view backfill.electricity_bills_due as
with new_bill as (
    select distinct
        provider,
        bill_date,
        bill_period,
        amount
    from backfill.electricity_bills_files
    where problem is null and not is_kept
),

all_bills as (
    select
        bill_period,
        amount
    from new_bill
    union all
    select
        bill_period,
        amount
    from rent.electricity_bills
)

select
    'rent.electricity_bills'::text as table_name,
    provider,
    bill_date,
    bill_period,
    amount,
    amount as cents,
    'SEK'::text as currency
from new_bill
union all
select
    'rent.rent_config' as table_name,
    null as provider,
    null as bill_date,
    a.bill_period,
    sum(a.amount)::bigint as amount,
    0 as cents,
    'SEK' as currency
from all_bills as a
where
    not exists (
        select from rent.rent_config as c
        where c.key = 'el' and c.period = a.bill_period
    )
    and not exists (
        select from rent.closed_period as p
        where p.period = a.bill_period
    )
group by a.bill_period;

comment on view backfill.electricity_bills_due is
'Rows still to write: each bill (provider and due date) once, however many files hold it, and rent_config ''el'' of each month
that has bills and no value.';
comment on column backfill.electricity_bills_due.table_name is 'Where it will be written.';
comment on column backfill.electricity_bills_due.provider is 'From the section''s heading; null for rent_config.';
comment on column backfill.electricity_bills_due.bill_date is 'Due date; null for rent_config.';
comment on column backfill.electricity_bills_due.bill_period is 'Month of consumption.';
comment on column backfill.electricity_bills_due.amount is 'Ore: of the bill, or the month''s sum.';
comment on column backfill.electricity_bills_due.currency is 'SEK.';
comment on column backfill.electricity_bills_due.cents is 'Ore of the bill; 0 for rent_config, whose sum is counted with its bills.';

create view backfill.electricity_bills_rejects as
select
    'staging.electricity_bill'::text as source,
    left(file_sha256, 12) || ' line ' || line as source_key,
    line,
    problem as reason,
    amount as cents,
    jsonb_build_object('provider', provider, 'bill_date', bill_date) as payload,
    'SEK'::text as currency
from backfill.electricity_bills_files
where problem is not null
union all
select
    'rent.electricity_bills' as source,
    b.bill_period as source_key,
    null as line,
    format('%s was closed on %s, without rent_config el', b.bill_period, to_char(p.closed_at, 'YYYY-MM-DD')) as reason,
    sum(b.amount)::bigint as cents,
    jsonb_build_object('bills', count(*)) as payload,
    'SEK' as currency
from rent.electricity_bills as b
inner join rent.closed_period as p on b.bill_period = p.period
where not exists (
        select from rent.rent_config as c
        where c.key = 'el' and c.period = b.bill_period
    )
group by b.bill_period, p.closed_at;

comment on view backfill.electricity_bills_rejects is
'What cannot be taken: another amount is there already, files disagree, or the month is closed.';
comment on column backfill.electricity_bills_rejects.source is 'The file.';
comment on column backfill.electricity_bills_rejects.source_key is 'The line, as text.';
comment on column backfill.electricity_bills_rejects.reason is 'Why it cannot be taken, with the value.';
comment on column backfill.electricity_bills_rejects.currency is 'SEK.';
comment on column backfill.electricity_bills_rejects.cents is 'Amount of the bill in ore, where it could be read.';
comment on column backfill.electricity_bills_rejects.payload is 'Provider and date, as far as they could be read.';

create function backfill.electricity_bills(p_parameters jsonb default '{}') returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_bills bigint;
    v_periods bigint;
begin
    insert into rent.electricity_bills (id, provider, bill_date, amount, bill_period)
    select backfill.business_id('electricity_bill', d.provider, to_char(d.bill_date, 'YYYY-MM-DD')),
        d.provider, d.bill_date, d.amount, d.bill_period
    from backfill.electricity_bills_due as d
    where d.table_name = 'rent.electricity_bills';
    get diagnostics v_bills = row_count;
    -- By now the bills are there, and the view sums those alone.
    insert into rent.rent_config (id, key, period, value)
    select backfill.business_id('rent_config', 'el', d.bill_period), 'el', d.bill_period, d.amount
    from backfill.electricity_bills_due as d
    where d.table_name = 'rent.rent_config';
    get diagnostics v_periods = row_count;
    return jsonb_build_object('bills', v_bills, 'periods', v_periods);
end;
$$;

comment on function backfill.electricity_bills(jsonb) is
'Writes what backfill.electricity_bills_due shows. Run it as a run: select * from backfill.run(''electricity_bills'');';

do $do$
begin
    perform backfill.register(
        'electricity_bills', 'rent', 'Electricity bills of both providers, and rent_config ''el'' of each month', 310,
        'backfill.electricity_bills_due', 'backfill.electricity_bills', '{rent.electricity_bills,rent.rent_config}',
        'backfill.electricity_bills_rejects', p_settled => 'staging.file.loaded_at', p_dimensions => '{bill_date,provider}'
    );
end;
$do$;
