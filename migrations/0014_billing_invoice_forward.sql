-- The application's own way: the next number under a lock, and interest on what is overdue.
-- Safe: functions only. Interest never touches an invoice of origin backfill.
-- depends: 0013_backfill_invoices

create function billing.create_facility_invoice(
    p_company uuid, p_facility uuid, p_period_start date, p_period_end date, p_lines jsonb
) returns billing.invoices
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_taken text;
    v_faults text := billing.line_faults(p_company, p_lines);
    v_number text;
    v_invoice billing.invoices;
begin
    if not exists (select from billing.facilities where id = p_facility and company_id = p_company) then
        raise exception 'company % has no facility %', p_company, p_facility using errcode = 'BF009';
    end if;
    if v_faults is not null then
        raise exception 'no invoice can be issued to facility % for % to %: %', p_facility, p_period_start, p_period_end, v_faults
            using errcode = 'BF302';
    end if;
    -- The row stays locked until the end of the transaction: a number that is rolled back is given to the next,
    -- and nobody can backfill the same period meanwhile.
    v_number := billing.invoice_number(backfill.raise_watermark(p_company, 0));
    select string_agg(i.invoice_number || ' (' || i.status || ')', ', ' order by i.invoice_number) into v_taken
    from billing.invoices as i
    where i.company_id = p_company and i.facility_id = p_facility and i.period_start = p_period_start
        and i.period_end = p_period_end and i.status <> 'void' and i.origin = 'backfill';
    if v_taken is not null then
        raise exception 'the facility already has % for % to %', v_taken, p_period_start, p_period_end
            using errcode = 'BF302', hint = 'Void that one first, or correct it: billing.void_invoice, billing.correct_invoice.';
    end if;
    perform backfill.raise_watermark(p_company, billing.invoice_ordinal(v_number));
    insert into billing.invoices
        (company_id, facility_id, invoice_number, period_start, period_end, status, total_cents)
    select p_company, p_facility, v_number, p_period_start, p_period_end, 'draft', coalesce(sum(l.amount_cents), 0)
    from jsonb_to_recordset(p_lines) as l (amount_cents bigint)
    returning * into v_invoice;
    insert into billing.invoice_lines (company_id, invoice_id, line_no, description, contractor_id, assignment_id, week_start,
        hours, rate_cents, amount_cents)
    select p_company, v_invoice.id, l.place, l.description, l.contractor_id,
        billing.assignment_of_week(p_company, l.contractor_id, p_facility, coalesce(l.week_start, p_period_start)),
        l.week_start, l.hours, l.rate_cents, l.amount_cents
    from rows from (jsonb_to_recordset(p_lines) as (description text, contractor_id uuid, week_start date,
        hours numeric(9, 2), rate_cents bigint, amount_cents bigint)) with ordinality
        as l (description, contractor_id, week_start, hours, rate_cents, amount_cents, place);
    return v_invoice;
end;
$$;

comment on function billing.create_facility_invoice(uuid, uuid, date, date, jsonb) is
'A new draft of the application under the company''s next number, lines as for backfill.backfill_invoice.
Sessions take turns, and a rollback leaves no gap.';

create function billing.write_interest(p_as_of date, p_invoice uuid default null)
returns setof billing.interest_accruals
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_locked uuid[];
begin
    -- Two sessions accruing at once would count the same days twice. An invoice that becomes open only now, as by the
    -- undo of its payment, is not locked by this session: it is left to the next time.
    select array_agg(l.id) into v_locked
    from (
        select i.id
        from billing.invoices as i
        where i.origin = 'app' and i.status in ('sent', 'partial') and i.due_date < p_as_of and (p_invoice is null or i.id = p_invoice)
        order by i.id
        for no key update
    ) as l;
    return query
    insert into billing.interest_accruals
        (id, company_id, invoice_id, accrued_from, accrued_through, base_cents, annual_bps, amount_cents)
    select backfill.business_id('interest', o.id::text, p_as_of::text), o.company_id, o.id, o.since, p_as_of, o.open_cents,
        o.interest_annual_bps, round(o.open_cents * o.interest_annual_bps::numeric * (p_as_of - o.since) / 3650000)
    from (
        select i.id, i.company_id, i.total_cents - i.amount_paid_cents as open_cents, s.interest_annual_bps,
            greatest(i.due_date, (select max(a.accrued_through) from billing.interest_accruals as a where a.invoice_id = i.id)) as since
        from billing.invoices as i
        join billing.settings as s on s.company_id = i.company_id
        where i.origin = 'app' and i.status in ('sent', 'partial') and i.due_date < p_as_of
            and i.amount_paid_cents < i.total_cents and i.id = any (v_locked)
    ) as o
    -- Days whose interest rounds to nothing stay for the next time.
    where o.since < p_as_of
        and round(o.open_cents * o.interest_annual_bps::numeric * (p_as_of - o.since) / 3650000) > 0
    returning *;
end;
$$;

comment on function billing.write_interest(date, uuid) is
'Simple interest on the open amount, for the days since the due date or the last accrual; never for origin backfill.';

create function billing.accrue_overdue_interest(p_as_of date) returns setof billing.interest_accruals
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    select * from billing.write_interest(p_as_of);
$$;

comment on function billing.accrue_overdue_interest(date) is
'Interest of every overdue invoice up to a day, at the company''s interest_annual_bps; backfilled invoices are skipped.
Returns the accruals written; the same day again writes none.';

create function billing.accrue_invoice_interest(
    p_invoice uuid, p_as_of date default (now() at time zone 'UTC')::date
) returns setof billing.interest_accruals
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_invoice billing.invoices;
begin
    select * into v_invoice from billing.invoices where id = p_invoice;
    if not found then
        raise exception 'there is no invoice %', p_invoice using errcode = 'BF009';
    end if;
    if v_invoice.origin = 'backfill' then
        raise exception 'invoice % was backfilled: it bears no interest', v_invoice.invoice_number
            using errcode = 'BF302', hint = 'Interest on the past would be retroactive.';
    end if;
    return query select * from billing.write_interest(p_as_of, p_invoice);
end;
$$;

comment on function billing.accrue_invoice_interest(uuid, date) is
'Interest of one invoice up to a day; refuses a backfilled one (BF302).';

create view billing.receivables as
select
    i.company_id,
    i.facility_id,
    i.id as invoice_id,
    i.invoice_number,
    i.origin,
    i.status,
    i.sent_at,
    i.due_date,
    i.total_cents,
    i.amount_paid_cents,
    i.total_cents - i.amount_paid_cents as open_cents,
    greatest((now() at time zone 'UTC')::date - i.due_date, 0) as days_overdue,
    case when i.origin = 'backfill' then 'Historical' end as label
from billing.invoices as i
where i.status in ('sent', 'partial') and i.amount_paid_cents < i.total_cents;

comment on view billing.receivables is 'Outstanding invoices, historical ones like all others. Days overdue count from the due date, by UTC.';
comment on column billing.receivables.amount_paid_cents is 'Paid so far.';
comment on column billing.receivables.company_id is 'The company that is owed.';
comment on column billing.receivables.due_date is 'When it is due.';
comment on column billing.receivables.facility_id is 'The facility that owes it.';
comment on column billing.receivables.invoice_id is 'The invoice.';
comment on column billing.receivables.invoice_number is 'Its number.';
comment on column billing.receivables.sent_at is 'When it was issued.';
comment on column billing.receivables.status is 'sent or partial.';
comment on column billing.receivables.total_cents is 'Its total.';
comment on column billing.receivables.open_cents is 'Total less what was paid.';
comment on column billing.receivables.days_overdue is 'Days past the due date; 0 where it is not yet due or has no due date.';
comment on column billing.receivables.label is 'Historical for a backfilled invoice, else null.';

revoke execute on all functions in schema billing from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on billing.receivables');
    perform backfill.grant_to('backfill_operator', 'execute on function billing.create_facility_invoice(uuid, uuid, date, date, jsonb)');
    perform backfill.grant_to('backfill_operator', 'execute on function billing.accrue_overdue_interest(date)');
    perform backfill.grant_to('backfill_operator', 'execute on function billing.accrue_invoice_interest(uuid, date)');
end;
$do$;
