-- Where an invoice came from, and what the reading of a check found on it.
-- Safe: billing.invoices gets the column origin (constant default: no rewrite), one CHECK that concerns
-- backfilled rows only, and three indexes; billing.check_payments gets ocr_invoice_refs. Refused, listing
-- them, while two invoices of one company carry the same number.
-- depends: 0010_billing_baseline

do $$
declare
    v_listed text;
begin
    if exists (
        select from pg_index as x
        where x.indrelid = 'billing.invoices'::regclass and x.indisunique and x.indpred is null and x.indexprs is null
            and (select array_agg(a.attname::text order by a.attname) from pg_attribute as a
                where a.attrelid = x.indrelid and a.attnum = any (x.indkey::int2[])) = '{company_id,invoice_number}'
    ) then
        return;
    end if;
    select string_agg(d.named, e'\n' order by d.named) into v_listed
    from (
        select format('%s / %s: %s invoices', company_id, invoice_number, count(*)) as named
        from billing.invoices group by company_id, invoice_number having count(*) > 1 limit 10
    ) as d;
    if v_listed is not null then
        raise exception 'billing.invoices has numbers that more than one invoice of a company carries'
            using errcode = 'BF007', detail = v_listed, hint = 'Renumber all but one of each, and apply again.';
    end if;
    create unique index invoices_one_number_per_company on billing.invoices (company_id, invoice_number);
end;
$$;

alter table billing.invoices
add column origin text not null default 'app' check (origin in ('app', 'backfill')),
-- A receivable from before the application: issued, due, owed, and never overpaid.
add constraint invoices_backfilled_is_receivable check (
    origin <> 'backfill' or (
        status <> 'draft' and sent_at is not null and due_date is not null
        and total_cents > 0 and amount_paid_cents between 0 and total_cents
    )
);

comment on column billing.invoices.origin is
'app: issued by the application; backfill: issued by hand before it. A backfilled invoice bears no interest, fee or notification.';

create unique index invoices_one_backfill_per_period
on billing.invoices (company_id, facility_id, period_start, period_end)
where origin = 'backfill' and status <> 'void';
comment on index billing.invoices_one_backfill_per_period is
'At most one backfilled invoice that is not void for a facility and period, also against a concurrent writer.';

create index invoices_facility_period on billing.invoices (company_id, facility_id, period_start, period_end);
comment on index billing.invoices_facility_period is 'Finds a second active invoice of a facility and period.';

create index invoices_outstanding on billing.invoices (company_id, facility_id, due_date)
where status in ('sent', 'partial');
comment on index billing.invoices_outstanding is 'Oldest due first, for the allocation of checks.';

create index check_payment_applications_invoice on billing.check_payment_applications (invoice_id);
comment on index billing.check_payment_applications_invoice is 'What was paid on an invoice.';

alter table billing.check_payments add column ocr_invoice_refs text[] not null default '{}';
comment on column billing.check_payments.ocr_invoice_refs is
'Invoice numbers as they were read on the check; billing.allocate_check pays those that fit first.';

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
            then format('its lines must be an array of {description, amount_cents, …}, here they are %s', left(p_lines::text, 100))
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

do $do$
begin
    perform backfill.track('billing.invoices');
    perform backfill.track('billing.check_payments');
end;
$do$;

revoke execute on all functions in schema billing from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'usage on schema billing');
    perform backfill.grant_to('backfill_auditor', 'select on all tables in schema billing');
    perform backfill.grant_to('backfill_auditor', 'execute on function billing.invoice_ordinal(text)');
    perform backfill.grant_to('backfill_auditor', 'execute on function billing.invoice_number(bigint)');
end;
$do$;
