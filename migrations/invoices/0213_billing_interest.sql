-- What is outstanding, and interest on what is overdue.
-- Safe: functions and a view only. Interest never touches an invoice of origin backfill.
-- depends: 0212_billing_money_sources

create view billing.receivables as
select
    i.company_id,
    i.facility_id,
    i.customer_id,
    b.invoice_id,
    i.invoice_number,
    i.origin,
    i.status,
    i.sent_at,
    b.issued_on,
    i.due_date,
    i.currency,
    b.total_cents,
    b.applied_cents as amount_paid_cents,
    b.open_cents,
    greatest((now() at time zone 'UTC')::date - i.due_date, 0) as days_overdue,
    case when b.total_cents < 0 then 'Credit' when i.origin = 'backfill' then 'Historical' end as label
from billing.invoice_balances as b
inner join billing.invoices as i on b.invoice_id = i.id
where i.status in ('sent', 'partial') and b.open_cents <> 0;

comment on view billing.receivables is
'Outstanding invoices, historical ones like all others, and credits of which something is left, below zero. Amounts in the minor unit of currency.
Days overdue count from the due date, by UTC.';
comment on column billing.receivables.amount_paid_cents is 'Applied so far: checks, payments, credits, write-offs, opening.';
comment on column billing.receivables.company_id is 'The company that is owed.';
comment on column billing.receivables.currency is 'Currency of its amounts; null: not known.';
comment on column billing.receivables.customer_id is 'The customer who owes it, where known.';
comment on column billing.receivables.due_date is 'When it is due.';
comment on column billing.receivables.facility_id is 'The facility that owes it.';
comment on column billing.receivables.invoice_id is 'The invoice.';
comment on column billing.receivables.invoice_number is 'Its number.';
comment on column billing.receivables.issued_on is 'Day of issue, UTC.';
comment on column billing.receivables.origin is 'app or backfill.';
comment on column billing.receivables.sent_at is 'When it was issued.';
comment on column billing.receivables.status is 'sent or partial.';
comment on column billing.receivables.total_cents is 'Its total; below zero: a credit.';
comment on column billing.receivables.open_cents is 'What is open, see billing.balances_as_of().';
comment on column billing.receivables.days_overdue is 'Days past the due date; 0 where it is not yet due or has no due date.';
comment on column billing.receivables.label is 'Credit, or Historical for a backfilled invoice, else null.';

create function billing.write_interest(p_as_of date, p_invoice uuid default null)
returns setof billing.interest_accruals
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_late uuid[];
    v_locked uuid[];
begin
    -- Two sessions accruing at once would count the same days twice. An invoice that becomes open only now, as by the
    -- undo of its payment, is not locked by this session: it is left to the next time.
    -- Paid late: the days before it was paid bear interest, unless they have borne it.
    v_late := array(
        select r.invoice_id
        from billing.application_rows as r
        join billing.invoices as i on i.id = r.invoice_id
        where i.status = 'paid' and i.origin = 'app' and i.due_date < p_as_of and (p_invoice is null or i.id = p_invoice)
            and greatest(r.effective_from, r.effective_until) > i.due_date
            and not exists (
                select from billing.interest_accruals as a
                where a.invoice_id = i.id and a.accrued_through >= greatest(r.effective_from, r.effective_until)
            )
    );
    select coalesce(array_agg(l.id), '{}') into v_locked
    from (
        select i.id
        from billing.invoices as i
        where i.origin = 'app' and i.due_date < p_as_of and (p_invoice is null or i.id = p_invoice)
            and (i.status in ('sent', 'partial') or i.status = 'paid' and i.id = any (v_late))
        order by i.id
        for no key update
    ) as l;
    return query
    with due as (
        select i.id, i.company_id, i.currency, s.interest_annual_bps as bps,
            greatest(i.due_date, (select max(a.accrued_through) from billing.interest_accruals as a where a.invoice_id = i.id)) as since
        from billing.invoices as i
        join billing.settings as s on s.company_id = i.company_id
        where i.id = any (v_locked)
    ),
    -- A new stretch begins wherever something begins or ends to be paid.
    cuts as (
        select d.id, d.since as day from due as d where d.since < p_as_of
        union
        select d.id, e.day
        from due as d
        join billing.application_rows as r on r.invoice_id = d.id and r.invoice_id = any (v_locked)
        cross join lateral (values (r.effective_from), (r.effective_until)) as e (day)
        where e.day > d.since and e.day < p_as_of
    ),
    stretches as (
        select c.id, c.day, coalesce(lead(c.day) over (partition by c.id order by c.day), p_as_of) - c.day as days
        from cuts as c
    ),
    owed as (
        select s.id, max(b.open_cents) as base, sum(greatest(b.open_cents, 0)::numeric * s.days) as cent_days
        from stretches as s
        cross join lateral billing.balances_as_of(s.day, array[s.id]) as b
        group by s.id
    )
    insert into billing.interest_accruals
        (id, company_id, invoice_id, accrued_from, accrued_through, base_cents, annual_bps, amount_cents, currency)
    select backfill.business_id('interest', d.id::text, p_as_of::text), d.company_id, d.id, d.since, p_as_of, o.base, d.bps,
        round(o.cent_days * d.bps / 3650000), d.currency
    from due as d
    join owed as o on o.id = d.id
    -- Days whose interest rounds to nothing stay for the next time.
    where round(o.cent_days * d.bps / 3650000) > 0
    returning *;
end;
$$;

comment on function billing.write_interest(date, uuid) is
'Simple interest, actual/365, for the days since the due date or the last accrual, each on what was open that day; base_cents is the most that was. Also of
what was paid late since; never for origin backfill.';

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
