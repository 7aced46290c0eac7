-- Which invoices a payment that is not applied may be for.
-- Safe: views only.
-- depends: 0407_backfill_billing_profiles

create view billing.uncovered_invoices as
select
    b.invoice_id,
    b.company_id,
    b.customer_id,
    b.invoice_number,
    b.currency,
    b.issued_on,
    b.uncovered_cents
from billing.invoice_balances as b
where b.status not in ('draft', 'void') and b.total_cents > 0;

comment on view billing.uncovered_invoices is
'Issued invoices and what of them no row of applied money covers. An application that marks an invoice as paid without
linking the payment leaves it uncovered: that payment is what is looked for.';
comment on column billing.uncovered_invoices.invoice_id is 'The invoice.';
comment on column billing.uncovered_invoices.company_id is 'Its company.';
comment on column billing.uncovered_invoices.customer_id is 'Its customer.';
comment on column billing.uncovered_invoices.invoice_number is 'Its number.';
comment on column billing.uncovered_invoices.currency is 'Its currency.';
comment on column billing.uncovered_invoices.issued_on is 'Day of issue, UTC.';
comment on column billing.uncovered_invoices.uncovered_cents is 'Total less checks, payments, credits and write-offs, see billing.balances_as_of().';

create function billing.unlinked_payments(p_before timestamptz)
returns table (
    id uuid, company_id uuid, customer_id uuid, amount_cents bigint, currency text, reference text, paid_on date
)
language sql stable
rows 100000
security definer
set search_path = pg_catalog, pg_temp
as $$
    select p.id, p.company_id, p.customer_id, p.amount_cents::bigint, p.currency, p.reference, billing.day_of(p.paid_at)
    from billing.payments as p
    where p.invoice_id is null and p.status in ('pending', 'succeeded') and p.paid_at < p_before
        and p.id not in (
            select e.source_id from billing.application_entries as e where e.source = 'payment' and e.effective_until is null
        );
$$;

comment on function billing.unlinked_payments(timestamptz) is
'Payments that are pending or succeeded, paid before a moment, of which nothing is applied. A function and no view, so that they are planned for as
many whatever the statistics of the table say.';

create function billing.uncovered_now()
returns table (
    invoice_id uuid,
    company_id uuid,
    customer_id uuid,
    invoice_number text,
    currency text,
    issued_on date,
    uncovered_cents bigint
)
language sql stable
rows 100000
security definer
set search_path = pg_catalog, pg_temp
as $$
    select u.* from billing.uncovered_invoices as u;
$$;

comment on function billing.uncovered_now() is 'billing.uncovered_invoices, planned for many whatever the statistics say.';

create view billing.payment_candidates as
with unlinked as materialized (
    select * from billing.unlinked_payments((select backfill.as_of()))
),

invoices as materialized (
    select * from billing.uncovered_now()
),

-- All of them before any is looked up.
tokens as materialized (
    select
        u.id,
        u.company_id,
        r.token,
        r.place
    from unlinked as u
    cross join lateral billing.reference_tokens(u.reference) as r
),

fitting as (
    select
        t.id,
        t.place,
        m.invoice_id,
        m.bare,
        m.sure,
        dense_rank() over (partition by t.id, t.place order by m.fit) as place_of_fit
    from tokens as t
    cross join lateral billing.match_reference(t.company_id, null, t.token) as m
),

named as (
    select
        f.id,
        f.invoice_id,
        bool_and(f.bare) as bare,
        bool_or(f.several) or not bool_or(f.sure) as ambiguous
    from (
        select
            fitting.*,
            count(*) over (partition by fitting.id, fitting.place) > 1 as several
        from fitting
        where fitting.place_of_fit = 1
    ) as f
    group by f.id, f.invoice_id
),

found as (
    select
        n.id,
        n.invoice_id,
        'number' as found_by,
        n.bare,
        n.ambiguous
    from named as n
    union all
    select
        u.id,
        i.invoice_id,
        'amount' as found_by,
        false as bare,
        false as ambiguous
    from unlinked as u
    inner join invoices as i
        on
            u.company_id = i.company_id and u.customer_id = i.customer_id and u.currency = i.currency
            and u.amount_cents = i.uncovered_cents
    where
        not exists (
            select 1 from named
            where named.id = u.id and named.invoice_id = i.invoice_id
        )
),

counted as (
    select
        f.id as payment_id,
        f.invoice_id,
        f.found_by,
        f.bare,
        f.ambiguous,
        i.invoice_number,
        u.amount_cents::bigint as amount_cents,
        u.currency,
        i.uncovered_cents,
        u.paid_on,
        i.issued_on,
        coalesce(u.currency = i.currency, false) as same_currency,
        coalesce(u.customer_id = i.customer_id, true) as same_customer,
        u.customer_id is not null and i.customer_id is not null as customers_known,
        r.reason as refused,
        u.paid_on - i.issued_on between 0 and 92 as in_window,
        count(*) filter (where f.found_by = 'number' and not f.bare) over (partition by f.id) as numbers_named,
        count(*) filter (where f.found_by = 'number' and f.bare) over (partition by f.id) as bare_numbers,
        (
            sum(i.uncovered_cents) filter (where f.found_by = 'number' and not f.bare)
                over (partition by f.id)
        )::bigint as named_cents,
        count(*) filter (where f.found_by = 'amount' and u.paid_on - i.issued_on between 0 and 92)
            over (partition by f.id) as invoices_of_amount,
        count(*) filter (where f.found_by = 'number' or u.paid_on - i.issued_on between 0 and 92)
            over (partition by f.invoice_id) as payments_for_invoice
    from found as f
    inner join unlinked as u on f.id = u.id
    inner join invoices as i on f.invoice_id = i.invoice_id
    left join billing.application_refusals as r
        on f.id = r.source_id and f.invoice_id = r.invoice_id and r.withdrawn is null
),

claimed as (
    select
        c.*,
        -- Several that make the amount exactly each get what is open of them.
        case
            when c.numbers_named > 1 and c.amount_cents = c.named_cents then c.uncovered_cents
            else c.amount_cents
        end as claim_cents,
        c.same_currency and c.same_customer and c.customers_known and c.refused is null and not c.ambiguous as fits
    from counted as c
)

select
    c.payment_id,
    c.invoice_id,
    c.found_by,
    c.bare,
    c.ambiguous,
    c.invoice_number,
    c.amount_cents,
    c.currency,
    c.uncovered_cents,
    c.paid_on,
    c.issued_on,
    c.same_currency,
    c.same_customer,
    c.customers_known,
    c.refused,
    c.in_window,
    c.numbers_named,
    c.bare_numbers,
    c.named_cents,
    c.invoices_of_amount,
    c.payments_for_invoice,
    c.claim_cents,
    c.fits,
    bool_and(c.fits) filter (where c.found_by = 'number' and not c.bare) over (partition by c.payment_id) as all_fit,
    (
        sum(c.claim_cents) filter (where c.found_by = 'number' and not c.bare)
            over (partition by c.invoice_id)
    )::bigint as claimed_by_number_cents
from claimed as c;

comment on view billing.payment_candidates is
'Payments of which nothing is applied (pending, succeeded) and the invoices they may be for: named in the reference, or of the same customer,
currency and open amount. Grain: one row for each payment and invoice.';
comment on column billing.payment_candidates.payment_id is 'The payment.';
comment on column billing.payment_candidates.invoice_id is 'The invoice.';
comment on column billing.payment_candidates.found_by is
'number: its number is in the reference, see billing.match_reference(); amount: customer, currency, open amount.';
comment on column billing.payment_candidates.bare is 'The reference has its digits only, without the letters of its series.';
comment on column billing.payment_candidates.ambiguous is 'The same number fits another invoice as well, or is digits alone where the company has several series.';
comment on column billing.payment_candidates.invoice_number is 'Its number.';
comment on column billing.payment_candidates.amount_cents is 'Amount of the payment.';
comment on column billing.payment_candidates.uncovered_cents is 'What of the invoice is not covered.';
comment on column billing.payment_candidates.paid_on is 'Day of payment, UTC.';
comment on column billing.payment_candidates.issued_on is 'Day of issue, UTC.';
comment on column billing.payment_candidates.currency is 'Currency of the payment.';
comment on column billing.payment_candidates.same_currency is 'Whether the currencies are the same.';
comment on column billing.payment_candidates.same_customer is 'Whether the customers are the same, or one is not known.';
comment on column billing.payment_candidates.customers_known is 'Whether both customers are known.';
comment on column billing.payment_candidates.refused is 'Why a person said no to the two; null: nobody did.';
comment on column billing.payment_candidates.in_window is 'Whether it was paid on the day of issue or up to 92 days later.';
comment on column billing.payment_candidates.numbers_named is 'How many invoices the reference names with their letters.';
comment on column billing.payment_candidates.bare_numbers is 'How many invoices it may name by digits alone.';
comment on column billing.payment_candidates.named_cents is 'What of the invoices that it names with their letters is not covered, together.';
comment on column billing.payment_candidates.invoices_of_amount is 'How many invoices of the amount there are in the window.';
comment on column billing.payment_candidates.payments_for_invoice is 'How many payments this invoice is a candidate for.';
comment on column billing.payment_candidates.claim_cents is 'What this payment would pay of this invoice.';
comment on column billing.payment_candidates.fits is 'Currency and customer are known and the same, the number fits no other, nobody said no.';
comment on column billing.payment_candidates.all_fit is 'Whether that is so of every invoice that it names with its letters.';
comment on column billing.payment_candidates.claimed_by_number_cents is 'Sum of what the payments whose references name this invoice would pay of it.';
