-- What is applied to each invoice, and the one place where its open amount is computed.
-- Safe: views and functions that only read.
-- depends: 0210_billing_application_entries

do $do$
begin
    -- A body in SQL's own form: its names are resolved here and now, whatever path its caller has, and it is still put into the query that
    -- calls it. As a text, because yoyo would split it at its semicolon.
    execute $sql$
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
    begin atomic
        with a as (
            select
                r.invoice_id,
                sum(r.amount_cents) filter (where r.counts) as cents,
                sum(r.amount_cents) filter (where r.counts and r.source = 'check') as checks,
                sum(r.amount_cents) filter (where r.counts and r.source = 'payment') as payments,
                sum(r.amount_cents) filter (where r.counts and r.source = 'credit') as credits,
                sum(r.amount_cents) filter (where r.counts and r.source = 'write-off') as write_offs,
                sum(r.amount_cents) filter (where r.effective_until is null) as standing,
                sum(r.said_paid_cents) filter (where r.counts and r.effective_until is not null) as said_then
            from (
            -- Of what stands now no day is needed, and so nothing is joined for it.
                select
                    x.invoice_id,
                    x.source,
                    x.amount_cents,
                    x.said_paid_cents,
                    x.effective_until,
                    (balances_as_of.p_day = 'infinity' or x.effective_from <= balances_as_of.p_day)
                    and (x.effective_until is null or x.effective_until > balances_as_of.p_day) as counts
                from billing.application_rows as x
                where balances_as_of.p_invoices is null or x.invoice_id = any(balances_as_of.p_invoices)
            ) as r
            group by r.invoice_id
        ),

    g as (
            select
                e.source_id,
                sum(e.amount_cents) as cents
            from billing.application_entries as e
            where
                e.source = 'credit' and e.effective_from <= balances_as_of.p_day
                and (e.effective_until is null or e.effective_until > balances_as_of.p_day)
                and (balances_as_of.p_invoices is null or e.source_id = any(balances_as_of.p_invoices))
            group by e.source_id
        )

        select
            i.id as invoice_id,
            i.company_id,
            i.facility_id,
            i.customer_id,
            i.invoice_number,
            i.currency,
            i.status,
            i.origin,
            billing.day_of(coalesce(i.sent_at, i.created_at)) as issued_on,
            i.due_date,
            i.total_cents::bigint as total_cents,
            coalesce(a.checks, 0)::bigint as checks_cents,
            coalesce(a.payments, 0)::bigint as payments_cents,
            coalesce(a.credits, 0)::bigint as credits_cents,
            coalesce(a.write_offs, 0)::bigint as write_offs_cents,
            o.cents::bigint as opening_cents,
            coalesce(g.cents, 0)::bigint as given_cents,
            (coalesce(a.cents, 0) + o.cents)::bigint as applied_cents,
            (i.total_cents - coalesce(a.cents, 0))::bigint as uncovered_cents,
            -- Void from a day on; one that does not say since when is void as of any day.
            case
                when i.status = 'draft'
                    or i.status = 'void' and (i.voided_on is null or i.voided_on <= balances_as_of.p_day)
                    then 0
                else i.total_cents - coalesce(a.cents, 0) - o.cents + coalesce(g.cents, 0)
            end::bigint as open_cents
        from billing.invoices as i
        left join a on i.id = a.invoice_id
        left join g on i.id = g.source_id
        -- What it says is paid, and no row explains that stands, or on that day still explained it.
        cross join lateral (
            select greatest(greatest(i.amount_paid_cents - coalesce(a.standing, 0), 0) - coalesce(a.said_then, 0), 0) as cents
        ) as o
        where balances_as_of.p_invoices is null or i.id = any(balances_as_of.p_invoices);
    end
    $sql$;
end;
$do$;

comment on function billing.balances_as_of(date, uuid[]) is
'Each invoice with what is applied to it on a day (from <= day < until), in the minor unit of its currency: checks, payments, credits,
write-offs, opening (what it says is paid and no row explains, counted from its issue), given (of a credit: what it paid elsewhere),
applied (their sum), uncovered (total less the rows) and open = total - applied + given; 0 for drafts and, from their day on, void ones. The only place
where an open amount is computed. As of infinity: as it stands. Invoices: only these, found by their keys.';

create view billing.invoice_balances as
select * from billing.balances_as_of('infinity');

comment on view billing.invoice_balances is
'Each invoice with what is applied to it and what is open, as it stands: billing.balances_as_of(''infinity'').';
comment on column billing.invoice_balances.invoice_id is 'The invoice.';
comment on column billing.invoice_balances.company_id is 'The company.';
comment on column billing.invoice_balances.facility_id is 'The facility, where it has one.';
comment on column billing.invoice_balances.customer_id is 'The customer, where known.';
comment on column billing.invoice_balances.invoice_number is 'Its number.';
comment on column billing.invoice_balances.currency is 'Its currency; null: not known.';
comment on column billing.invoice_balances.status is 'draft, sent, partial, paid or void.';
comment on column billing.invoice_balances.origin is 'app or backfill.';
comment on column billing.invoice_balances.issued_on is 'Day of issue, UTC.';
comment on column billing.invoice_balances.due_date is 'When it is due.';
comment on column billing.invoice_balances.total_cents is 'Its total, in the minor unit of its currency, as all amounts; below zero: a credit.';
comment on column billing.invoice_balances.checks_cents is 'Applied from checks.';
comment on column billing.invoice_balances.payments_cents is 'Applied from payments.';
comment on column billing.invoice_balances.credits_cents is 'Applied from credits.';
comment on column billing.invoice_balances.write_offs_cents is 'Written off.';
comment on column billing.invoice_balances.opening_cents is 'What it says is paid, and no row explains.';
comment on column billing.invoice_balances.given_cents is 'Of a credit: what it paid on invoices.';
comment on column billing.invoice_balances.applied_cents is 'What is applied, all together.';
comment on column billing.invoice_balances.uncovered_cents is 'Its total less the rows, without the opening amount.';
comment on column billing.invoice_balances.open_cents is 'What is open.';

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
    false as linked,
    0::bigint as said_paid_cents,
    b.currency
from billing.invoice_balances as b
where b.opening_cents > 0;

comment on view billing.applications is
'Money applied to invoices, one row each: from a check, payment, credit, write-off or opening (paid, as the invoice says, and without a row) to an
invoice, from a day and until a day. Take one back: billing.unapply(id, reason).';
comment on column billing.applications.id is 'Names the row: for billing.unapply(). Of a link it is the payments id, of an opening the invoices.';
comment on column billing.applications.company_id is 'The company.';
comment on column billing.applications.source is 'check, payment or credit; of an application also write-off or opening.';
comment on column billing.applications.source_id is 'Id of the check, the payment or the credit.';
comment on column billing.applications.invoice_id is 'The invoice.';
comment on column billing.applications.amount_cents is 'The amount, in the minor unit of its currency.';
comment on column billing.applications.effective_from is 'From which day it counts.';
comment on column billing.applications.effective_until is 'From which day it counts no longer; null: it stands.';
comment on column billing.applications.reason_code is 'Of a write-off: short-pay, or a persons.';
comment on column billing.applications.reason is 'Why it was applied.';
comment on column billing.applications.ended_reason is 'Why it was ended.';
comment on column billing.applications.run_id is 'The run that applied it; null: outside a run, or not by us.';
comment on column billing.applications.linked is 'The application itself linked the payment.';
comment on column billing.applications.said_paid_cents is 'How much of it the invoice said was paid already.';
comment on column billing.applications.currency is 'Its currency; null: not known.';
