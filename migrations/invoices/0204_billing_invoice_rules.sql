-- What is true of invoices wherever they come from: their numbers, the assignment of a week, what lines must be.
-- Safe: functions, a unique index that concerns backfilled rows only, an index, and the validation of what 0203 added: readers and writers go on.
-- depends: 0203_billing_invoice_origin

alter table billing.invoices
validate constraint invoices_origin_check,
validate constraint invoices_backfilled_is_receivable;

create unique index invoices_one_backfill_per_period
on billing.invoices (company_id, facility_id, period_start, period_end)
where origin = 'backfill' and status <> 'void' and total_cents > 0;
comment on index billing.invoices_one_backfill_per_period is
'At most one backfilled invoice that is not void for a facility and period, also against a concurrent writer; credits stand beside it.';

create index invoices_number_in_any_case on billing.invoices (company_id, upper(invoice_number));

comment on index billing.invoices_number_in_any_case is 'INV-0986 and inv-0986 are one number: finds the other one.';

create function billing.invoice_ordinal(p_number text) returns bigint
language sql immutable parallel safe
return case
    when length(ltrim(substring(p_number from '([0-9]+)[^0-9]*$'), '0')) <= 15
        then substring(p_number from '([0-9]+)[^0-9]*$')::bigint
end;
comment on function billing.invoice_ordinal(text) is
'The numeric part of an invoice number, its last group of digits: 985 of INV-0985 and of INV-2023-0985B. Null where there is none.';

create function billing.invoice_number(p_ordinal bigint) returns text
language sql immutable parallel safe
return 'INV-' || lpad(p_ordinal::text, greatest(4, length(p_ordinal::text)), '0');
comment on function billing.invoice_number(bigint) is 'The number that the application gives to its n-th invoice: INV-0985.';

create function billing.number_tail(p_number text) returns text
language sql immutable parallel safe
return regexp_replace(
    regexp_replace(regexp_replace(upper(p_number), '[^A-Z0-9]+', '', 'g'), '^[A-Z]+', ''),
    '(^|[A-Z])0+([0-9])', '\1\2', 'g'
);
comment on function billing.number_tail(text) is
'An invoice number without signs, leading letters and leading zeros: 814 of INV-0814, inv 814 and #0814; 985B of INV-0985B.';

create function billing.number_prefix(p_number text) returns text
language sql immutable parallel safe
return coalesce(substring(regexp_replace(upper(p_number), '[^A-Z0-9]+', '', 'g') from '^[A-Z]+'), '');
comment on function billing.number_prefix(text) is 'The letters before the first digit of an invoice number: INV of INV-0814.';

create function billing.number_key(p_number text) returns text
language sql immutable parallel safe
return case
    when p_number ~ '[0-9]' then billing.number_tail(p_number)
    else regexp_replace(upper(p_number), '[^A-Z0-9]+', '', 'g')
end;

comment on function billing.number_key(text) is
'What two ways to write one invoice number have in common: its tail, see billing.number_tail, or its letters where it has no digit.';

create function billing.is_bare_number(p_number text) returns boolean
language sql immutable parallel safe
return billing.number_prefix(p_number) in ('', 'INV', 'INVOICE', 'INVOICENO', 'INVNO', 'NO', 'NR');

comment on function billing.is_bare_number(text) is
'Whether a number that somebody wrote names no series: digits alone, or with a word such as "invoice", which says nothing.';

create function billing.number_fit(p_reference text, p_number text) returns integer
language sql immutable parallel safe
return case
    when upper(p_number) = upper(btrim(p_reference)) then 1
    when billing.number_key(p_number) is distinct from billing.number_key(p_reference) then null
    when billing.number_prefix(p_number) = billing.number_prefix(p_reference) then 2
    -- Another prefix means another series of numbers: CN-4 is never INV-4.
    when billing.is_bare_number(p_reference) then 3
end;

comment on function billing.number_fit(text, text) is
'How an invoice number that somebody wrote fits the number of an invoice: 1 letter for letter, 2 the same series, 3 a bare number, which says so only where the
company has one series; null: it is another number. Signs, case, blanks and leading zeros aside. Matching and the comparison with Finance''s ledger use it.';

create function billing.amount_text(p_cents numeric, p_currency text) returns text
language sql immutable parallel safe
return to_char(
    p_cents / backfill.minor_factor(coalesce(p_currency, 'USD')),
    'FM999,999,999,999,990' || case backfill.minor_digits(coalesce(p_currency, 'USD'))
        when 0 then '' else '.' || repeat('0', backfill.minor_digits(coalesce(p_currency, 'USD')))
    end
);

comment on function billing.amount_text(numeric, text) is 'An amount in minor units for a message: 1,234.50, of yen 1,234.';

create function billing.assignment_of_week(p_company uuid, p_contractor uuid, p_facility uuid, p_week_start date)
returns uuid
language sql stable parallel safe
return (
    select a.id
    from billing.assignments as a
    where a.company_id = p_company and a.contractor_id = p_contractor and a.facility_id = p_facility
        and a.effective_from <= p_week_start + 6 and coalesce(a.effective_to, 'infinity') >= p_week_start
    order by
        a.effective_from <= p_week_start desc,
        case when a.effective_from <= p_week_start then a.effective_from end desc,
        a.effective_from asc,
        a.id asc
    limit 1
);
comment on function billing.assignment_of_week(uuid, uuid, uuid, date) is
'The version of an assignment that was effective in the week: the one at its first day, else the first that began in it;
null where there was none.';

create function billing.line_faults(p_company uuid, p_lines jsonb) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case
        when jsonb_typeof(p_lines) <> 'array'
            then format('its lines must be an array of {description, amount_cents, ...}, here they are %s', left(p_lines::text, 100))
        else (
            select string_agg(format('line %s %s', f.place, f.fault), '; ' order by f.place)
            from (
                select e.place, case
                    when jsonb_typeof(e.line) <> 'object' then format('is %s, no object', left(e.line::text, 100))
                    when e.line ->> 'description' is null then 'has no description'
                    when e.line ->> 'amount_cents' is null then 'has no amount_cents'
                    when e.line ->> 'contractor_id' is not null and not exists (
                        select from billing.contractors as c
                        where c.id = (e.line ->> 'contractor_id')::uuid and c.company_id = p_company
                    ) then format('names contractor %s, whom the company does not have', e.line ->> 'contractor_id')
                end as fault
                from jsonb_array_elements(p_lines) with ordinality as e (line, place)
            ) as f
            where f.fault is not null
        )
    end;
$$;
comment on function billing.line_faults(uuid, jsonb) is
'What is wrong with the lines of an invoice as a function is given them: no array, a line without description or amount, a
contractor of another company. Null where nothing is.';

create function billing.lines_of(p_lines jsonb)
returns table (
    line_no integer,
    description text,
    contractor_id uuid,
    week_start date,
    hours numeric,
    rate_cents bigint,
    amount_cents bigint
)
language sql stable
rows 10
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select l.place::integer, l.description, l.contractor_id, l.week_start, l.hours, l.rate_cents, l.amount_cents
    from rows from (jsonb_to_recordset(p_lines) as (description text, contractor_id uuid, week_start date,
        hours numeric(9, 2), rate_cents bigint, amount_cents bigint)) with ordinality
        as l (description, contractor_id, week_start, hours, rate_cents, amount_cents, place);
$$;
comment on function billing.lines_of(jsonb) is
'The lines of an invoice as a function is given them, [{description, contractor_id, week_start, hours, rate_cents, amount_cents}],
in their order and numbered from 1.';
