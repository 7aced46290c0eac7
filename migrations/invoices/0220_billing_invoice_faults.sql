-- Which invoices break an invariant, and that no reversal brings a second one for a facility and period.
-- Safe: a view, and a trigger on the log of runs that looks when a reversal ends.
-- depends: 0219_billing_write_off

create view billing.invoice_faults as
with line_totals as (
    select
        invoice_id,
        sum(amount_cents) as cents
    from billing.invoice_lines
    group by invoice_id
),

-- A link that the application made itself is not always counted in what the invoice says is paid.
applied as (
    select
        r.invoice_id,
        sum(r.amount_cents) as cents,
        sum(r.amount_cents) filter (where not r.linked) as counted_cents
    from billing.application_rows as r
    where r.effective_until is null
    group by r.invoice_id
)

select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'its total is not the sum of its lines' as fault
from billing.invoices as i
left join line_totals as l on i.id = l.invoice_id
where i.total_cents <> coalesce(l.cents, 0)
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'more is applied to it than it says is paid' as fault
from billing.invoices as i
inner join applied as a on i.id = a.invoice_id
where i.amount_paid_cents < a.counted_cents
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'more is applied to it than its total' as fault
from billing.invoices as i
inner join applied as a on i.id = a.invoice_id
where a.cents > greatest(i.total_cents, 0)
union all
select
    b.company_id,
    b.source_id as invoice_id,
    b.label as invoice_number,
    'more of the credit is applied than it is of' as fault
from billing.source_balances as b
where b.source = 'credit' and b.applied_cents > b.amount_cents
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'more is paid on it than its total' as fault
from billing.invoices as i
where i.amount_paid_cents > greatest(i.total_cents, 0)
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'its status ' || i.status || ' does not fit what is paid on it' as fault
from billing.invoices as i
where
    (i.status in ('draft', 'sent', 'void') and i.amount_paid_cents <> 0)
    or (i.status = 'partial' and i.total_cents >= 0 and i.amount_paid_cents in (0, i.total_cents))
    or (i.status = 'paid' and i.amount_paid_cents <> greatest(i.total_cents, 0))
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'its number is not below the next one of the company' as fault
from billing.invoices as i
left join billing.settings as s on i.company_id = s.company_id
where i.origin = 'backfill' and billing.invoice_ordinal(i.invoice_number) >= coalesce(s.next_invoice_number, 0)
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'its number has no numeric part' as fault
from billing.invoices as i
where i.origin = 'backfill' and billing.invoice_ordinal(i.invoice_number) is null
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'it is due before it was issued' as fault
from billing.invoices as i
where i.origin = 'backfill' and i.due_date < (i.sent_at at time zone 'UTC')::date - 1
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'it bears interest and was backfilled' as fault
from billing.invoices as i
where
    i.origin = 'backfill'
    and exists (
        select from billing.interest_accruals as a
        where a.invoice_id = i.id
    )
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'its facility also has ' || o.invoice_number || ' for its period' as fault
from billing.invoices as i
inner join billing.invoices as o
    on
        i.company_id = o.company_id and i.facility_id = o.facility_id
        and i.period_start = o.period_start and i.period_end = o.period_end
where
    i.id <> o.id and i.status <> 'void' and o.status <> 'void' and 'backfill' in (i.origin, o.origin)
    and i.total_cents > 0 and o.total_cents > 0;

comment on view billing.invoice_faults is
'Invoices that break an invariant, one row each and fault. Empty when all is well; the row actions refuse to leave one behind.';
comment on column billing.invoice_faults.company_id is 'Company of the invoice.';
comment on column billing.invoice_faults.invoice_id is 'The invoice.';
comment on column billing.invoice_faults.invoice_number is 'Its number.';
comment on column billing.invoice_faults.fault is 'What is wrong, in words.';

create function billing.refuse_second_by_reversal() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_came_back uuid[];
    v_listed text;
begin
    select array_agg(c.primary_key::uuid) into v_came_back
    from backfill.change_log as c
    where c.run_id = new.run_id and c.table_name = 'billing.invoices' and case c.operation
        when 'INSERT' then true
        when 'UPDATE' then (c.before ->> 'status' = 'void' and c.after ->> 'status' <> 'void')
            or (c.before -> 'facility_id', c.before -> 'period_start', c.before -> 'period_end')
            <> (c.after -> 'facility_id', c.after -> 'period_start', c.after -> 'period_end')
        else false
    end;
    if v_came_back is null then
        return null;
    end if;
    -- The same lock as everywhere: who issues or backfills an invoice meanwhile waits, or was first and is seen.
    perform backfill.raise_watermark(s.company_id, 0)
    from (select distinct company_id from billing.invoices where id = any (v_came_back) order by company_id) as s;
    select string_agg(d.pair, e'\n' order by d.pair) into v_listed
    from (
        select format('%s beside %s (%s, origin %s) for %s to %s', i.invoice_number, o.invoice_number, o.status, o.origin,
            i.period_start, i.period_end) as pair
        from billing.invoices as i
        join billing.invoices as o on o.company_id = i.company_id and o.facility_id = i.facility_id
            and o.period_start = i.period_start and o.period_end = i.period_end
        where i.id = any (v_came_back) and o.id <> i.id and i.status <> 'void' and o.status <> 'void'
            and 'backfill' in (i.origin, o.origin) and i.total_cents > 0 and o.total_cents > 0
        limit 10
    ) as d;
    if v_listed is not null then
        raise exception 'run % cannot be reversed: a facility would have two invoices for one period', new.reverses
            using errcode = 'BF005', detail = v_listed,
                hint = 'Nothing was changed. Void the one that stands first: billing.void_invoice(invoice, reason).';
    end if;
    return null;
end;
$$;

comment on function billing.refuse_second_by_reversal() is
'Trigger of the log, at the end of a reversal: refuses (BF005) to bring back an invoice whose facility has another one for its period
by now, one of them backfilled. The row actions see to that themselves.';

-- On the log and not on the invoices: there, every writer would pay for it, and a reversal could not go at once.
create trigger refuse_second_invoice after update of status on backfill.backfill_log
for each row when (new.mode = 'reversal' and old.status = 'running' and new.status <> 'running')
execute function billing.refuse_second_by_reversal();
