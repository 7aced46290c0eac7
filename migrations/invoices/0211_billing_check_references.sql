-- Which invoice a number means that was read on a check, and what is left for a person to look at.
-- Safe: a view, an index and a table of its own; nothing moves.
-- depends: 0210_billing_interest

create index invoices_number_tail on billing.invoices (company_id, facility_id, billing.number_tail(invoice_number));
comment on index billing.invoices_number_tail is 'Finds the invoice that a number read on a check means.';

create view billing.check_reference_matches as
with candidates as (
    select
        c.company_id,
        c.id as check_payment_id,
        c.facility_id,
        r.reference,
        r.place,
        i.id as invoice_id,
        i.invoice_number,
        i.status in ('sent', 'partial') and i.amount_paid_cents < i.total_cents as outstanding,
        i.status,
        dense_rank() over (
            partition by c.id, r.place
            order by
                case
                    when i.id is null then 4
                    when upper(i.invoice_number) = upper(btrim(r.reference)) then 1
                    when billing.number_prefix(i.invoice_number) = billing.number_prefix(r.reference) then 2
                    else 3
                end
        ) as place_of_fit
    from billing.check_payments as c
    cross join lateral unnest(c.ocr_invoice_refs) with ordinality as r (reference, place)
    left join billing.invoices as i
        on
            c.company_id = i.company_id and c.facility_id = i.facility_id
            and billing.number_tail(i.invoice_number) = billing.number_tail(r.reference)
            -- A word such as "invoice" says nothing; another prefix means another series of numbers.
            and billing.number_prefix(r.reference) in (
                billing.number_prefix(i.invoice_number), '', 'INV', 'INVOICE', 'INVOICENO', 'INVNO', 'NO', 'NR'
            )
            and billing.number_tail(r.reference) ~ '[0-9]'
    where r.reference is not null
)

select
    company_id,
    check_payment_id,
    facility_id,
    reference,
    place,
    count(invoice_id) filter (where outstanding) as outstanding,
    count(invoice_id) as fitting,
    coalesce(array_agg(invoice_number order by invoice_number) filter (where invoice_id is not null), '{}')
        as candidates,
    case
        when count(invoice_id) filter (where outstanding) = 1
            then (array_agg(invoice_id) filter (where outstanding))[1]
    end as invoice_id,
    string_agg(invoice_number || ' is ' || status, ', ' order by invoice_number) filter (where not outstanding)
        as settled
from candidates
where place_of_fit = 1
group by company_id, check_payment_id, facility_id, reference, place;

comment on view billing.check_reference_matches is
'What each number read on a check means among the invoices of the check''s facility: the whole number must fit, signs, case and
leading zeros aside. An exact number goes before one with the same prefix, that before a bare number. One row a reference.';
comment on column billing.check_reference_matches.company_id is 'Company of the check.';
comment on column billing.check_reference_matches.check_payment_id is 'The check.';
comment on column billing.check_reference_matches.facility_id is 'Its facility.';
comment on column billing.check_reference_matches.reference is 'As it was read.';
comment on column billing.check_reference_matches.place is 'Its place in ocr_invoice_refs.';
comment on column billing.check_reference_matches.outstanding is 'How many outstanding invoices fit best.';
comment on column billing.check_reference_matches.fitting is 'How many invoices fit best, paid and void ones too.';
comment on column billing.check_reference_matches.candidates is 'Their numbers.';
comment on column billing.check_reference_matches.invoice_id is 'The one outstanding invoice that fits; null where none or several do.';
comment on column billing.check_reference_matches.settled is 'Fitting invoices that are not outstanding, with their status.';

create table billing.check_reference_reviews (
    company_id uuid not null references billing.companies (id),
    check_payment_id uuid not null references billing.check_payments (id),
    reference text not null,
    reason text not null,
    candidates text[] not null,
    seen_at timestamptz not null default now(),
    primary key (check_payment_id, reference)
);
comment on table billing.check_reference_reviews is 'Numbers read on checks that paid nothing by themselves, for a person to look at.';
comment on column billing.check_reference_reviews.company_id is 'Company of the check.';
comment on column billing.check_reference_reviews.check_payment_id is 'The check.';
comment on column billing.check_reference_reviews.reference is 'As it was read.';
comment on column billing.check_reference_reviews.reason is 'Why it paid nothing by itself.';
comment on column billing.check_reference_reviews.candidates is 'Invoices of the facility that it may mean.';
comment on column billing.check_reference_reviews.seen_at is 'When the check was allocated.';

do $do$
begin
    perform backfill.track('billing.check_reference_reviews', '{check_payment_id,reference}', null);
end;
$do$;
