-- Which invoice a number means that stands on a check or in a payment's reference, and what of it is left for a person to look at.
-- Safe: views, functions, two indexes and a table of its own; nothing moves. Writers to invoices wait while the indexes are built.
-- depends: 0213_billing_interest

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

create function billing.reference_tokens(p_text text) returns table (token text, place integer)
language plpgsql immutable parallel safe
rows 4
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_word text;
    v_before text := '';
    v_piece text;
begin
    place := 0;
    foreach v_word in array regexp_split_to_array(upper(left(coalesce(p_text, ''), 2000)), '[\s\u00a0,;:#()&+]+') loop
        v_word := btrim(v_word, './-''"');
        continue when v_word = '';
        place := place + 1;
        token := v_word;
        return next;
        if v_before <> '' and left(v_word, 1) between '0' and '9' then
            token := v_before || v_word;
            return next;
        end if;
        if strpos(v_word, '/') > 0 then
            foreach v_piece in array string_to_array(v_word, '/') loop
                if v_piece ~ '^[A-Z].*[0-9]' then
                    token := v_piece;
                    return next;
                end if;
            end loop;
        end if;
        v_before := case when v_word ~ '^[A-Z.-]+$' then v_word else '' end;
    end loop;
end;
$$;

comment on function billing.reference_tokens(text) is
'What in a free text may be an invoice number: each word, a word of letters with the number after it (INV 0015), and numbers with their letters
between slashes. In capitals; only the first 2,000 letters are read.';

do $do$
begin
    -- A body in SQL's own form: its names are resolved here and now, whatever path its caller has, and it is still put into the query that
    -- calls it. As a text, because yoyo would split it at its semicolon.
    execute $sql$
    create function billing.match_reference(p_company uuid, p_facility uuid, p_reference text)
    returns table (invoice_id uuid, invoice_number text, fit integer, bare boolean, sure boolean)
    language sql stable parallel safe
    rows 1
    begin atomic
        select
            i.id as invoice_id,
            i.invoice_number,
            billing.number_fit(match_reference.p_reference, i.invoice_number) as fit,
            billing.number_prefix(match_reference.p_reference) = ''
            or billing.number_prefix(match_reference.p_reference) <> billing.number_prefix(i.invoice_number) as bare,
            billing.number_prefix(match_reference.p_reference) = billing.number_prefix(i.invoice_number)
            or billing.one_series(i.company_id) as sure
        from billing.invoices as i
        where
            i.company_id = match_reference.p_company
            and (match_reference.p_facility is null or i.facility_id = match_reference.p_facility)
            and billing.number_key(i.invoice_number) = billing.number_key(match_reference.p_reference)
            and billing.number_fit(match_reference.p_reference, i.invoice_number) is not null;
    end
    $sql$;
end;
$do$;

comment on function billing.match_reference(uuid, uuid, text) is
'Which invoices of a company, and of a facility where one is given, a number means. fit: billing.number_fit(). bare: it names no series. sure: it names the series, or the company has only one.';

create view billing.money_references as
select
    'check' as source,
    c.id as source_id,
    c.company_id,
    c.facility_id,
    r.reference,
    r.place::integer as place
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
comment on column billing.money_references.source is 'check, payment or credit; of an application also write-off or opening.';
comment on column billing.money_references.source_id is 'Id of the check, the payment or the credit.';
comment on column billing.money_references.company_id is 'The company.';
comment on column billing.money_references.facility_id is 'The facility, where it has one.';
comment on column billing.money_references.reference is 'What may be the number of an invoice.';
comment on column billing.money_references.place is 'Its place.';

create view billing.reference_matches as
select
    m.source,
    m.source_id,
    m.company_id,
    m.reference,
    m.place,
    r.invoice_id,
    r.invoice_number,
    r.fit,
    r.bare,
    r.sure
from billing.money_references as m
cross join lateral billing.match_reference(m.company_id, m.facility_id, m.reference) as r;

comment on view billing.reference_matches is
'What each number on a check or payment means among the invoices of its company, of a check its facility: see billing.match_reference().';
comment on column billing.reference_matches.source is 'check, payment or credit; of an application also write-off or opening.';
comment on column billing.reference_matches.source_id is 'Id of the check, the payment or the credit.';
comment on column billing.reference_matches.company_id is 'The company.';
comment on column billing.reference_matches.reference is 'What may be the number of an invoice.';
comment on column billing.reference_matches.place is 'Its place.';
comment on column billing.reference_matches.invoice_id is 'The invoice.';
comment on column billing.reference_matches.invoice_number is 'Its number.';
comment on column billing.reference_matches.fit is '1 letter for letter, 2 the same series, 3 a bare number.';
comment on column billing.reference_matches.bare is 'It names no series of numbers.';
comment on column billing.reference_matches.sure is 'It names the series, or the company has only one.';

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
