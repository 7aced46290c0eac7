-- What can be applied to invoices, and what of it is left: money on account.
-- Safe: views and a function that only read.
-- depends: 0211_billing_open_amount

create view billing.money_sources as
select
    'check' as source,
    c.id as source_id,
    c.company_id,
    c.facility_id,
    null::uuid as customer_id,
    c.check_number as label,
    coalesce(upper(btrim(c.currency)), billing.company_currency(c.company_id)) as currency,
    c.currency is null as currency_unsaid,
    c.amount_cents::bigint as amount_cents,
    c.received_on,
    c.returned_on is null as usable
from billing.check_payments as c
union all
select
    'payment' as source,
    p.id as source_id,
    p.company_id,
    null::uuid as facility_id,
    p.customer_id,
    -- A reference is free text, and may hold an account number: it is in no message and on no statement.
    p.id::text as label,
    p.currency,
    false as currency_unsaid,
    p.amount_cents::bigint as amount_cents,
    billing.day_of(p.paid_at) as received_on,
    p.status in ('pending', 'succeeded') as usable
from billing.payments as p
union all
select
    'credit' as source,
    i.id as source_id,
    i.company_id,
    i.facility_id,
    i.customer_id,
    i.invoice_number as label,
    i.currency,
    i.currency is null as currency_unsaid,
    -i.total_cents::bigint as amount_cents,
    billing.day_of(coalesce(i.sent_at, i.created_at)) as received_on,
    i.status in ('sent', 'partial', 'paid') as usable
from billing.invoices as i
where i.total_cents < 0;

comment on view billing.money_sources is
'What can be applied to invoices: checks that were not returned, payments that are pending or succeeded, credits that are issued (invoices with a
negative total). A check without a currency is in its company''s.';
comment on column billing.money_sources.source is 'check, payment or credit; of an application also write-off or opening.';
comment on column billing.money_sources.source_id is 'Id of the check, the payment or the credit.';
comment on column billing.money_sources.company_id is 'The company.';
comment on column billing.money_sources.facility_id is 'The facility, where it has one.';
comment on column billing.money_sources.customer_id is 'The customer, where known.';
comment on column billing.money_sources.label is 'Number of the check or credit; id of the payment, whose reference is free text.';
comment on column billing.money_sources.currency is 'Its currency; null: not known.';
comment on column billing.money_sources.currency_unsaid is 'It says no currency: this is the companys.';
comment on column billing.money_sources.amount_cents is 'The amount, in the minor unit of its currency.';
comment on column billing.money_sources.received_on is 'When the money came, or the credit was issued.';
comment on column billing.money_sources.usable is 'It was neither returned, failed, refunded nor voided.';

do $do$
begin
    -- A body in SQL's own form: its names are resolved here and now, whatever path its caller has, and it is still put into the query that
    -- calls it. As a text, because yoyo would split it at its semicolon.
    execute $sql$
    create function billing.balances_of_sources(p_sources uuid[] default null)
    returns table (
        source text,
        source_id uuid,
        company_id uuid,
        facility_id uuid,
        customer_id uuid,
        label text,
        currency text,
        currency_unsaid boolean,
        amount_cents bigint,
        received_on date,
        usable boolean,
        applied_cents bigint,
        unapplied_cents bigint
    )
    language sql stable parallel safe
    rows 10000
    begin atomic
        with a as (
            select
                r.source,
                r.source_id,
                sum(r.amount_cents) as cents
            from billing.application_rows as r
            where
                r.effective_until is null
                and (balances_of_sources.p_sources is null or r.source_id = any(balances_of_sources.p_sources))
            group by r.source, r.source_id
        )

        select
            m.source,
            m.source_id,
            m.company_id,
            m.facility_id,
            m.customer_id,
            m.label,
            m.currency,
            m.currency_unsaid,
            m.amount_cents,
            m.received_on,
            m.usable,
            coalesce(a.cents, 0)::bigint as applied_cents,
            case when m.usable then m.amount_cents - coalesce(a.cents, 0) else 0 end::bigint as unapplied_cents
        from billing.money_sources as m
        left join a on m.source = a.source and m.source_id = a.source_id
        where balances_of_sources.p_sources is null or m.source_id = any(balances_of_sources.p_sources);
    end
    $sql$;
end;
$do$;

comment on function billing.balances_of_sources(uuid[]) is
'Checks, payments and credits (null: all; else those, found by their keys) with what of each is applied and what is left, in minor units.';

create view billing.source_balances as
select * from billing.balances_of_sources();

comment on view billing.source_balances is
'Each check, payment and credit with what of it is applied and what is left: the customer''s or facility''s money on account.';
comment on column billing.source_balances.source is 'check, payment or credit; of an application also write-off or opening.';
comment on column billing.source_balances.source_id is 'Id of the check, the payment or the credit.';
comment on column billing.source_balances.company_id is 'The company.';
comment on column billing.source_balances.facility_id is 'The facility, where it has one.';
comment on column billing.source_balances.customer_id is 'The customer, where known.';
comment on column billing.source_balances.label is 'Number of the check or credit; id of the payment, whose reference is free text.';
comment on column billing.source_balances.currency is 'Its currency; null: not known.';
comment on column billing.source_balances.currency_unsaid is 'It says no currency: this is the companys.';
comment on column billing.source_balances.amount_cents is 'The amount, in the minor unit of its currency.';
comment on column billing.source_balances.received_on is 'When the money came, or the credit was issued.';
comment on column billing.source_balances.usable is 'It was neither returned, failed, refunded nor voided.';
comment on column billing.source_balances.applied_cents is 'What is applied, all together.';
comment on column billing.source_balances.unapplied_cents is 'What of it is left: on account.';

create view billing.check_balances as
select
    b.company_id,
    b.source_id as check_payment_id,
    b.facility_id,
    b.label as check_number,
    b.currency,
    b.amount_cents,
    b.applied_cents,
    b.unapplied_cents
from billing.source_balances as b
where b.source = 'check';

comment on view billing.check_balances is
'Each check with what it paid and what is left of it: applied + unapplied = amount; nothing is left of one that was returned.';
comment on column billing.check_balances.company_id is 'The company.';
comment on column billing.check_balances.check_payment_id is 'The check.';
comment on column billing.check_balances.facility_id is 'The facility, where it has one.';
comment on column billing.check_balances.check_number is 'Its number.';
comment on column billing.check_balances.currency is 'Its currency; null: not known.';
comment on column billing.check_balances.amount_cents is 'The amount, in the minor unit of its currency.';
comment on column billing.check_balances.applied_cents is 'What is applied, all together.';
comment on column billing.check_balances.unapplied_cents is 'What of it is left: on account.';
