-- What is applied to each invoice, and the one place where its open amount is computed.
-- Safe: views and a function that only read; an index: writers to payments wait while it is built.
-- depends: 0210_billing_application_entries

create function billing.day_of(p_moment timestamptz) returns date
language sql immutable parallel safe
return (p_moment at time zone 'UTC')::date;

comment on function billing.day_of(timestamptz) is 'The day of a moment, by UTC.';

create index payments_invoice on billing.payments (invoice_id) where invoice_id is not null;
comment on index billing.payments_invoice is 'What was paid on an invoice.';

create view billing.application_rows as
select
    e.id,
    e.company_id,
    e.source,
    e.source_id,
    e.invoice_id,
    e.amount_cents,
    e.effective_from,
    e.effective_until,
    e.reason_code,
    e.reason,
    e.ended_reason,
    e.run_id
from billing.application_entries as e
union all
select
    a.id,
    a.company_id,
    'check' as source,
    a.check_payment_id as source_id,
    a.invoice_id,
    a.amount_cents::bigint as amount_cents,
    coalesce(
        a.effective_from, greatest(c.received_on, billing.day_of(coalesce(i.sent_at, i.created_at)))
    ) as effective_from,
    null::date as effective_until,
    null as reason_code,
    a.reason,
    null as ended_reason,
    a.run_id
from billing.check_payment_applications as a
left join billing.check_payments as c on a.check_payment_id = c.id
left join billing.invoices as i on a.invoice_id = i.id
union all
-- A link that the application itself made: the whole payment.
select
    p.id,
    p.company_id,
    'payment' as source,
    p.id as source_id,
    p.invoice_id,
    p.amount_cents::bigint as amount_cents,
    greatest(billing.day_of(p.paid_at), billing.day_of(coalesce(i.sent_at, i.created_at))) as effective_from,
    null::date as effective_until,
    null as reason_code,
    'linked by the application' as reason,
    null as ended_reason,
    null::uuid as run_id
from billing.payments as p
left join billing.invoices as i on p.invoice_id = i.id
where
    p.invoice_id is not null and p.status in ('pending', 'succeeded')
    and not exists (
        select from billing.application_entries as e
        where e.source_id = p.id and e.source = 'payment' and e.effective_until is null
    );

comment on view billing.application_rows is
'Every row of money applied to an invoice, wherever it is kept, without what invoices only say to be paid: see billing.applications.';

create function billing.balances_as_of(p_day date, p_invoices uuid[] default null)
returns table (
    invoice_id uuid,
    company_id uuid,
    facility_id uuid,
    customer_id uuid,
    invoice_number text,
    currency text,
    status text,
    origin text,
    issued_on date,
    due_date date,
    total_cents bigint,
    checks_cents bigint,
    payments_cents bigint,
    credits_cents bigint,
    write_offs_cents bigint,
    opening_cents bigint,
    given_cents bigint,
    applied_cents bigint,
    uncovered_cents bigint,
    open_cents bigint
)
language sql stable parallel safe
rows 10000
as $$
    select
        i.id, i.company_id, i.facility_id, i.customer_id, i.invoice_number, i.currency, i.status, i.origin,
        billing.day_of(coalesce(i.sent_at, i.created_at)), i.due_date, i.total_cents::bigint,
        coalesce(a.checks, 0)::bigint, coalesce(a.payments, 0)::bigint, coalesce(a.credits, 0)::bigint, coalesce(a.write_offs, 0)::bigint,
        o.cents::bigint, coalesce(g.cents, 0)::bigint, (coalesce(a.cents, 0) + o.cents)::bigint,
        (i.total_cents - coalesce(a.cents, 0))::bigint,
        -- Void from a day on; one that does not say since when is void as of any day.
        case when i.status = 'draft' or i.status = 'void' and (i.voided_on is null or i.voided_on <= p_day) then 0
            else i.total_cents - coalesce(a.cents, 0) - o.cents + coalesce(g.cents, 0) end::bigint
    from billing.invoices as i
    left join (
        select r.invoice_id,
            sum(r.amount_cents) filter (where r.counts) as cents,
            sum(r.amount_cents) filter (where r.counts and r.source = 'check') as checks,
            sum(r.amount_cents) filter (where r.counts and r.source = 'payment') as payments,
            sum(r.amount_cents) filter (where r.counts and r.source = 'credit') as credits,
            sum(r.amount_cents) filter (where r.counts and r.source = 'write-off') as write_offs,
            sum(r.amount_cents) filter (where r.effective_until is null) as standing
        from (
            -- Of what stands now no day is needed, and so nothing is joined for it.
            select x.invoice_id, x.source, x.amount_cents, x.effective_until,
                (p_day = 'infinity' or x.effective_from <= p_day) and (x.effective_until is null or x.effective_until > p_day) as counts
            from billing.application_rows as x
            where p_invoices is null or x.invoice_id = any (p_invoices)
        ) as r
        group by r.invoice_id
    ) as a on a.invoice_id = i.id
    left join (
        select e.source_id, sum(e.amount_cents) as cents
        from billing.application_entries as e
        where e.source = 'credit' and e.effective_from <= p_day and (e.effective_until is null or e.effective_until > p_day)
            and (p_invoices is null or e.source_id = any (p_invoices))
        group by e.source_id
    ) as g on g.source_id = i.id
    -- What it says is paid, and no row that stands explains.
    cross join lateral (select greatest(i.amount_paid_cents - coalesce(a.standing, 0), 0) as cents) as o
    where p_invoices is null or i.id = any (p_invoices)
$$;

comment on function billing.balances_as_of(date, uuid[]) is
'Each invoice with what is applied to it on a day (from <= day < until), in the minor unit of its currency: checks, payments, credits,
write-offs, opening (what it says is paid and no row explains, counted from its issue), given (of a credit: what it paid elsewhere),
applied (their sum), uncovered (total less the rows) and open = total - applied + given; 0 for drafts and, from their day on, void ones. The only place
where an open amount is computed. As of infinity: as it stands. Invoices: only these, found by their keys.';

create view billing.invoice_balances as
select * from billing.balances_as_of('infinity');

comment on view billing.invoice_balances is
'Each invoice with what is applied to it and what is open, as it stands: billing.balances_as_of(''infinity'').';

create view billing.applications as
select
    r.*,
    i.currency
from billing.application_rows as r
left join billing.invoices as i on r.invoice_id = i.id
union all
select
    b.invoice_id as id,
    b.company_id,
    'opening' as source,
    b.invoice_id as source_id,
    b.invoice_id,
    b.opening_cents as amount_cents,
    b.issued_on as effective_from,
    null::date as effective_until,
    null as reason_code,
    'the invoice says that it is paid, without a row' as reason,
    null as ended_reason,
    null::uuid as run_id,
    b.currency
from billing.invoice_balances as b
where b.opening_cents > 0;

comment on view billing.applications is
'Money applied to invoices, one row each: from a check, payment, credit, write-off or opening (paid, as the invoice says, and without a row) to an
invoice, from a day and until a day. Take one back: billing.unapply(id, reason).';

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
    coalesce(p.reference, p.id::text) as label,
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
as $$
    select m.source, m.source_id, m.company_id, m.facility_id, m.customer_id, m.label, m.currency, m.currency_unsaid, m.amount_cents,
        m.received_on, m.usable, coalesce(a.cents, 0)::bigint,
        case when m.usable then m.amount_cents - coalesce(a.cents, 0) else 0 end::bigint
    from billing.money_sources as m
    left join (
        select r.source, r.source_id, sum(r.amount_cents) as cents
        from billing.application_rows as r
        where r.effective_until is null and (p_sources is null or r.source_id = any (p_sources))
        group by r.source, r.source_id
    ) as a on a.source = m.source and a.source_id = m.source_id
    where p_sources is null or m.source_id = any (p_sources)
$$;

comment on function billing.balances_of_sources(uuid[]) is
'Checks, payments and credits (null: all; else those, found by their keys) with what of each is applied and what is left, in minor units.';

create view billing.source_balances as
select * from billing.balances_of_sources();

comment on view billing.source_balances is
'Each check, payment and credit with what of it is applied and what is left: the customer''s or facility''s money on account.';

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
