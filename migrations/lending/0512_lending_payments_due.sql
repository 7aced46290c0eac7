-- The rule of the backfill "lending_payments": what is still to be written for what the processor shows as Approved and
-- settled, and for what became a Chargeback.
-- Safe: views only.
-- depends: 0511_lending_links

create view lending.payments_due as
select
    case
        when p.id is null then 'payment'
        when t.status = 'Chargeback' then 'chargeback'
        else 'posting'
    end as kind,
    t.id as transaction_id,
    'rotessa:tx:' || t.id as reference,
    t.schedule_id,
    m.id as mortgage_id,
    m.number as mortgage_number,
    t.customer_id,
    p.id as payment_id,
    t.amount_cents as cents,
    t.process_date,
    t.settlement_date,
    t.settlement_date::timestamp at time zone 'UTC' as effective_at,
    case
        when p.mortgage_id <> m.id then format('the payment is on another mortgage, %s', p.mortgage_id)
        when p.amount_cents <> t.amount_cents
            then format('the payment is of %s cents, the processor says %s', p.amount_cents, t.amount_cents)
        when t.status = 'Chargeback' then null
        when p.rotessa_customer_id <> t.customer_id
            then format('the payment is of customer %s, the processor says %s', p.rotessa_customer_id, t.customer_id)
        when p.status not in ('pending', 'approved')
            then format('the payment is %s, the processor says Approved', p.status)
        when c.period is not null
            then format('%s was closed on %s by %s (%s)', c.period, c.closed_at::date, c.closed_by, c.reason)
        when p.id is null and l.id is not null
            then format('the ledger has a transaction with this reference and no payment, %s', l.id)
    end as fault
from staging.rotessa_transaction as t
inner join lending.mortgages as m on t.schedule_id = m.rotessa_schedule_id
left join lending.payments as p on p.source_reference = 'rotessa:tx:' || t.id
left join ledger.transactions as l on l.reference = 'rotessa:tx:' || t.id
left join ledger.closed_period as c on c.period = to_char(t.settlement_date, 'YYYY-MM')
where
    coalesce(t.settlement_date::timestamp at time zone 'UTC' < (select backfill.as_of()), true)
    and (
        (
            t.status = 'Approved' and t.settlement_date <= (now() at time zone 'UTC')::date
            and (p.id is null or p.ledger_transaction_id is null)
        )
        or (
            t.status = 'Chargeback' and p.id is not null
            and (
                p.status <> 'chargeback'
                or (
                    p.ledger_transaction_id is not null
                    and not exists (
                        select from ledger.transactions as r
                        where r.reverses = p.ledger_transaction_id
                    )
                )
            )
        )
    );

comment on view lending.payments_due is
'What is still to be written of linked schedules: payments for Approved transactions whose settlement date has come, postings of
payments that have none, reversals of payments that became chargebacks. Grain: one row for each transaction at the processor.';
comment on column lending.payments_due.kind is 'payment (and its posting), posting (the payment is there), chargeback.';
comment on column lending.payments_due.transaction_id is 'Rotessa''s id.';
comment on column lending.payments_due.reference is 'rotessa:tx:<id>.';
comment on column lending.payments_due.schedule_id is 'The linked schedule.';
comment on column lending.payments_due.mortgage_id is 'Its mortgage.';
comment on column lending.payments_due.mortgage_number is 'The mortgage''s number.';
comment on column lending.payments_due.customer_id is 'Who paid.';
comment on column lending.payments_due.payment_id is 'The payment, where there is one.';
comment on column lending.payments_due.cents is 'Amount.';
comment on column lending.payments_due.process_date is 'Day on which it was processed.';
comment on column lending.payments_due.settlement_date is 'Day on which it settled.';
comment on column lending.payments_due.effective_at is 'The settlement date at 00:00:00Z.';
comment on column lending.payments_due.fault is 'Why it cannot be written, with the values; null where it can.';

create view backfill.lending_payments_due as
select
    kind,
    transaction_id,
    reference,
    mortgage_number,
    schedule_id,
    settlement_date,
    fault,
    cents,
    'CAD'::text as currency
from lending.payments_due;

comment on view backfill.lending_payments_due is 'The due relation of the backfill lending_payments: see lending.payments_due.';
comment on column backfill.lending_payments_due.currency is 'CAD.';
