-- Which invoice a number means that stands on a check or in a payment's reference, and what of it is left for a person to look at.
-- Safe: views, functions, two indexes and a table of its own; nothing moves. Writers to invoices wait while the indexes are built.
-- depends: 0212_billing_interest

create index invoices_number_key on billing.invoices (company_id, billing.number_key(invoice_number), facility_id);
comment on index billing.invoices_number_key is 'Finds the invoice that a number on a check or payment means.';
create index invoices_number_series on billing.invoices (company_id, billing.number_prefix(invoice_number))
where total_cents > 0;
comment on index billing.invoices_number_series is 'Whether a company numbers its invoices in one series.';

create function billing.one_series(p_company uuid) returns boolean
language sql stable parallel safe
return (
    select min(billing.number_prefix(i.invoice_number)) from billing.invoices as i
    where i.company_id = p_company and i.total_cents > 0
) is not distinct from (
    select max(billing.number_prefix(i.invoice_number)) from billing.invoices as i
    where i.company_id = p_company and i.total_cents > 0
);

comment on function billing.one_series(uuid) is
'Whether the numbers of a company''s invoices all begin with the same letters: only then does 815 mean INV-0815. Credits do not count.';

create function billing.reference_tokens(p_text text) returns table (token text, place bigint)
language sql immutable parallel safe
rows 5
as $$
    with words as (
        select btrim(w.word, './-''"') as word, row_number() over (order by w.place) as place
        from regexp_split_to_table(upper(left(p_text, 2000)), '[\s\u00a0,;:#()&+]+') with ordinality as w (word, place)
        where btrim(w.word, './-''"') <> ''
    ),
    beside as (
        select w.word, w.place, lag(w.word) over (order by w.place) as before
        from words as w
    )
    select b.word, b.place from beside as b
    union
    select b.before || b.word, b.place from beside as b
    where b.before ~ '^[A-Z.-]+$' and b.word ~ '^[0-9]'
    union
    select p.piece, b.place
    from beside as b
    cross join lateral regexp_split_to_table(b.word, '/') as p (piece)
    where b.word ~ '/' and p.piece ~ '^[A-Z].*[0-9]'
$$;

comment on function billing.reference_tokens(text) is
'What in a free text may be an invoice number: each word, a word of letters with the number after it (INV 0015), and numbers with their letters
between slashes. In capitals; only the first 2,000 letters are read.';

create view billing.money_references as
select
    'check' as source,
    c.id as source_id,
    c.company_id,
    c.facility_id,
    r.reference,
    r.place
from billing.check_payments as c
cross join lateral unnest(c.ocr_invoice_refs) with ordinality as r (reference, place)
where r.reference is not null
union all
select
    'payment' as source,
    p.id as source_id,
    p.company_id,
    null::uuid as facility_id,
    t.token as reference,
    t.place
from billing.payments as p
cross join lateral billing.reference_tokens(p.reference) as t;

comment on view billing.money_references is
'What may be an invoice number on each check (as it was read, each a whole number) and in the reference of each payment (its words).';

create view billing.reference_matches as
select
    m.source,
    m.source_id,
    m.company_id,
    m.reference,
    m.place,
    i.id as invoice_id,
    i.invoice_number,
    case
        when upper(i.invoice_number) = upper(btrim(m.reference)) then 1
        when billing.number_prefix(i.invoice_number) = billing.number_prefix(m.reference) then 2
        else 3
    end as fit,
    billing.number_prefix(m.reference) = ''
    or billing.number_prefix(m.reference) <> billing.number_prefix(i.invoice_number) as bare,
    billing.number_prefix(m.reference) = billing.number_prefix(i.invoice_number)
    or billing.one_series(i.company_id) as sure
from billing.money_references as m
inner join billing.invoices as i
    on
        m.company_id = i.company_id and (m.facility_id is null or m.facility_id = i.facility_id)
        and billing.number_key(i.invoice_number) = billing.number_key(m.reference)
        -- A word such as "invoice" says nothing; another prefix means another series of numbers: CN-4 is never INV-4.
        and billing.number_prefix(m.reference) in (
            billing.number_prefix(i.invoice_number), '', 'INV', 'INVOICE', 'INVOICENO', 'INVNO', 'NO', 'NR'
        );

comment on view billing.reference_matches is
'What each number on a check or payment means among the invoices of its company, of a check its facility: signs, case, blanks and leading zeros
aside the whole number must fit. fit: 1 letter for letter, 2 the same series, 3 a bare number. bare: it names no series. sure: it names the series, or the company has only one.';

create view billing.check_reference_matches as
with fitting as (
    select
        r.company_id,
        r.source_id as check_payment_id,
        r.facility_id,
        r.reference,
        r.place,
        m.invoice_id,
        m.invoice_number,
        b.status,
        m.sure,
        b.open_cents > 0 and b.status in ('sent', 'partial') as outstanding,
        dense_rank() over (partition by r.source_id, r.place order by m.fit) as place_of_fit
    from billing.money_references as r
    left join billing.reference_matches as m
        on r.source = m.source and r.source_id = m.source_id and r.place = m.place
    left join lateral billing.balances_as_of('infinity', array[m.invoice_id]) as b on m.invoice_id = b.invoice_id
    where r.source = 'check'
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
            then (array_agg(invoice_id) filter (where outstanding and sure))[1]
    end as invoice_id,
    string_agg(invoice_number || ' is ' || status, ', ' order by invoice_number) filter (where not outstanding)
        as settled
from fitting
where place_of_fit = 1
group by company_id, check_payment_id, facility_id, reference, place;

comment on view billing.check_reference_matches is
'What each number read on a check means among the invoices of the check''s facility, see billing.reference_matches. One row a reference.';
comment on column billing.check_reference_matches.company_id is 'Company of the check.';
comment on column billing.check_reference_matches.check_payment_id is 'The check.';
comment on column billing.check_reference_matches.facility_id is 'Its facility.';
comment on column billing.check_reference_matches.reference is 'As it was read.';
comment on column billing.check_reference_matches.place is 'Its place in ocr_invoice_refs.';
comment on column billing.check_reference_matches.outstanding is 'How many outstanding invoices fit best.';
comment on column billing.check_reference_matches.fitting is 'How many invoices fit best, paid and void ones too.';
comment on column billing.check_reference_matches.candidates is 'Their numbers.';
comment on column billing.check_reference_matches.invoice_id is 'The one outstanding invoice that fits for sure; null where none or several do.';
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
comment on column billing.check_reference_reviews.reference is 'As it was read; empty: it is about the check itself.';
comment on column billing.check_reference_reviews.reason is 'Why it paid nothing by itself.';
comment on column billing.check_reference_reviews.candidates is 'Invoices of the facility that it may mean.';
comment on column billing.check_reference_reviews.seen_at is 'When the check was allocated.';

do $do$
begin
    perform backfill.track('billing.check_reference_reviews', '{check_payment_id,reference}', null);
end;
$do$;
