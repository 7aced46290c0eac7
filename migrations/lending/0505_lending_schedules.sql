-- Schedules and transactions at the processor, as people and the backfill look at them.
-- Safe: a function and views; they read.
-- depends: 0504_staging_rotessa_intake

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
