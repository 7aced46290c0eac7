-- What of an invoice is not covered, and which invoices an unlinked payment may be for.
-- Safe: views only.
-- depends: 0407_backfill_billing_profiles

create view billing.uncovered_invoices as
with checks as (
    select
        invoice_id,
        sum(amount_cents) as cents
    from billing.check_payment_applications
    group by invoice_id
),

links as (
    select
        invoice_id,
        sum(amount_cents) as cents
    from billing.payments
    where invoice_id is not null and status in ('pending', 'succeeded')
    group by invoice_id
)

select
    i.id as invoice_id,
    i.company_id,
    i.customer_id,
    i.invoice_number,
    i.currency,
    (coalesce(i.sent_at, i.created_at) at time zone 'UTC')::date as issued_on,
    (i.total_cents - coalesce(a.cents, 0) - coalesce(p.cents, 0))::bigint as uncovered_cents
from billing.invoices as i
left join checks as a on i.id = a.invoice_id
left join links as p on i.id = p.invoice_id
where i.status not in ('draft', 'void');

comment on view billing.uncovered_invoices is
'Issued invoices and what of them no check and no linked payment covers. An application that marks an invoice as paid without
linking the payment leaves it uncovered: that payment is what is looked for.';
comment on column billing.uncovered_invoices.invoice_id is 'The invoice.';
comment on column billing.uncovered_invoices.company_id is 'Its company.';
comment on column billing.uncovered_invoices.customer_id is 'Its customer.';
comment on column billing.uncovered_invoices.invoice_number is 'Its number.';
comment on column billing.uncovered_invoices.currency is 'Its currency.';
comment on column billing.uncovered_invoices.issued_on is 'Day of issue, UTC.';
comment on column billing.uncovered_invoices.uncovered_cents is 'Total less checks applied and payments linked, in cents.';

create view billing.payment_candidates as
with unlinked as (
    select
        id,
        company_id,
        customer_id,
        amount_cents,
        currency,
        reference,
        (paid_at at time zone 'UTC')::date as paid_on
    from billing.payments
    where invoice_id is null and status in ('pending', 'succeeded') and paid_at < (select backfill.as_of())
),

named as (
    -- Whole tokens of the reference: INV-14 is not in INV-1499.
    select distinct
        u.id,
        i.invoice_id
    from unlinked as u
    cross join lateral regexp_split_to_table(upper(u.reference), '[\s,;:#()]+') as t (token)
    inner join billing.uncovered_invoices as i
        on u.company_id = i.company_id and btrim(t.token, './-') = upper(i.invoice_number)
),

found as (
    select
        id,
        invoice_id,
        'number' as found_by
    from named
    union all
    select
        u.id,
        i.invoice_id,
        'amount' as found_by
    from unlinked as u
    inner join billing.uncovered_invoices as i
        on
            u.company_id = i.company_id and u.customer_id = i.customer_id and u.currency = i.currency
            and u.amount_cents = i.uncovered_cents
    where
        not exists (
            select 1 from named
            where named.id = u.id and named.invoice_id = i.invoice_id
        )
)

select
    f.id as payment_id,
    f.invoice_id,
    f.found_by,
    i.invoice_number,
    u.amount_cents,
    u.currency,
    i.uncovered_cents,
    u.paid_on,
    i.issued_on,
    coalesce(u.currency = i.currency, false) as same_currency,
    coalesce(u.customer_id = i.customer_id, true) as same_customer,
    u.paid_on - i.issued_on between 0 and 92 as in_window,
    count(*) filter (where f.found_by = 'number') over (partition by f.id) as numbers_named,
    count(*) filter (where f.found_by = 'amount' and u.paid_on - i.issued_on between 0 and 92)
        over (partition by f.id) as invoices_of_amount,
    (
        sum(u.amount_cents) filter (where f.found_by = 'number')
            over (partition by f.invoice_id)
    )::bigint as claimed_by_number_cents,
    count(*) filter (where f.found_by = 'number' or u.paid_on - i.issued_on between 0 and 92)
        over (partition by f.invoice_id) as payments_for_invoice
from found as f
inner join unlinked as u on f.id = u.id
inner join billing.uncovered_invoices as i on f.invoice_id = i.invoice_id;

comment on view billing.payment_candidates is
'Unlinked payments (pending, succeeded) and the invoices they may be for: named in the reference, or of the same customer,
currency and open amount. Grain: one row for each payment and invoice.';
comment on column billing.payment_candidates.payment_id is 'The payment.';
comment on column billing.payment_candidates.invoice_id is 'The invoice.';
comment on column billing.payment_candidates.found_by is
'number: its number is a whole token of the reference; amount: customer, currency, open amount.';
comment on column billing.payment_candidates.invoice_number is 'Its number.';
comment on column billing.payment_candidates.amount_cents is 'Amount of the payment.';
comment on column billing.payment_candidates.uncovered_cents is 'What of the invoice is not covered.';
comment on column billing.payment_candidates.paid_on is 'Day of payment, UTC.';
comment on column billing.payment_candidates.issued_on is 'Day of issue, UTC.';
comment on column billing.payment_candidates.currency is 'Currency of the payment.';
comment on column billing.payment_candidates.same_currency is 'Whether the currencies are the same.';
comment on column billing.payment_candidates.same_customer is 'Whether the customers are the same, or one is not known.';
comment on column billing.payment_candidates.in_window is 'Whether it was paid on the day of issue or up to 92 days later.';
comment on column billing.payment_candidates.numbers_named is 'How many invoices the reference names.';
comment on column billing.payment_candidates.invoices_of_amount is 'How many invoices of the amount there are in the window.';
comment on column billing.payment_candidates.claimed_by_number_cents is 'Sum of the payments whose references name this invoice.';
comment on column billing.payment_candidates.payments_for_invoice is 'How many payments this invoice is a candidate for.';
