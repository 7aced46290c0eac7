-- Which staged invoices become receivables: those of which none was made yet and that break no rule. The same views
-- judge one invoice and a hundred thousand.
-- Safe: views and a function only.
-- depends: 0205_staging_invoices

create view backfill.invoices_open as
select s.*
from staging.invoices as s
where
    s.withdrawn is null
    and not exists (
        select from billing.invoices as i
        where i.id = s.invoice_id
    )
    and not exists (
        select from staging.file_in_flight as f
        where f.sha256 = s.file_sha256
    );

comment on view backfill.invoices_open is 'Staged invoices of which no invoice was made yet, whether one can be made or not.';

create function backfill.invoice_differences(
    p_form text,
    p_there staging.invoices, p_here staging.invoices,
    p_lines_there jsonb default null, p_lines_here jsonb default null
) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format(p_form, d.field, coalesce(d.there, 'none'), coalesce(d.here, 'none')), ', ' order by d.place)
    from (
        values (1, 'facility', (select name from billing.facilities where id = p_there.facility_id),
            (select name from billing.facilities where id = p_here.facility_id)),
        (2, 'period_start', p_there.period_start::text, p_here.period_start::text),
        (3, 'period_end', p_there.period_end::text, p_here.period_end::text),
        -- A draft of the application has neither yet.
        (4, 'sent_at', coalesce(p_there.sent_at::text, 'missing'), p_here.sent_at::text),
        (5, 'due_date', coalesce(p_there.due_date::text, 'missing'), p_here.due_date::text),
        (6, 'total', billing.amount_text(p_there.total_cents, p_there.currency), billing.amount_text(p_here.total_cents, p_here.currency)),
        -- An invoice of the application from before it had currencies names none.
        (7, 'currency', coalesce(p_there.currency, p_here.currency), p_here.currency),
        (8, 'paid', billing.amount_text(p_there.paid_cents, p_there.currency), billing.amount_text(p_here.paid_cents, p_here.currency)),
        (9, 'lines', p_lines_there::text, p_lines_here::text),
        (10, 'number', p_there.invoice_number, p_here.invoice_number)
    ) as d (place, field, there, here)
    where d.there is distinct from d.here;
$$;

comment on function backfill.invoice_differences(text, staging.invoices, staging.invoices, jsonb, jsonb) is
'Fields in which two invoices differ, each in the form given for field and both values (%s is %s, here %s); null where in none.
Both in the columns of staging.invoices; lines as backfill.line_payload makes them.';

create view backfill.invoice_conflicts as
select
    s.company_id,
    s.invoice_number,
    format(
        '%s is taken by %s%s', s.invoice_number,
        case
            when i.origin = 'backfill' then 'another backfilled invoice (' || i.status || ')'
            when i.status = 'draft'
                then 'a draft of the application, which goes with its owner''s word: billing.delete_invoice'
            else 'an invoice of the application (' || i.status || ')'
        end,
        coalesce(': ' || backfill.invoice_differences(
            '%s is %s, here %s',
            row(
                i.company_id, i.invoice_number, i.id, i.facility_id, i.period_start, i.period_end, i.sent_at,
                i.due_date, i.total_cents, null, null, null, null, i.currency, s.paid_cents
            )::staging.invoices,
            row(s.*)::staging.invoices
        ), '')
    ) as reason
from backfill.invoices_open as s
inner join billing.invoices as i
    on s.company_id = i.company_id and upper(s.invoice_number) = upper(i.invoice_number)
union all
select
    s.company_id,
    s.invoice_number,
    format('its facility already has %s (%s) for %s to %s', i.invoice_number, i.status, s.period_start, s.period_end)
        as reason
from backfill.invoices_open as s
inner join billing.invoices as i
    on
        s.company_id = i.company_id and s.facility_id = i.facility_id
        and s.period_start = i.period_start and s.period_end = i.period_end
where i.status <> 'void' and s.invoice_number <> i.invoice_number and s.total_cents > 0 and i.total_cents > 0
union all
-- Of two staged invoices for one facility and period the lower number stands, whatever the order of the rows.
select
    s.company_id,
    s.invoice_number,
    format('its facility also has %s for %s to %s', o.invoice_number, s.period_start, s.period_end) as reason
from backfill.invoices_open as s
inner join backfill.invoices_open as o
    on
        s.company_id = o.company_id and s.facility_id = o.facility_id
        and s.period_start = o.period_start and s.period_end = o.period_end
where
    o.invoice_number <> s.invoice_number  -- cheap, and true of hardly any
    and o.total_cents > 0 and s.total_cents > 0
    and (billing.invoice_ordinal(o.invoice_number), o.invoice_number)
    < (billing.invoice_ordinal(s.invoice_number), s.invoice_number)
union all
select
    s.company_id,
    s.invoice_number,
    format('facility %s belongs to another company', f.name) as reason
from backfill.invoices_open as s
inner join billing.facilities as f on s.facility_id = f.id
where f.company_id <> s.company_id
union all
select
    s.company_id,
    s.invoice_number,
    format(
        'its total is %s, its lines make %s', billing.amount_text(s.total_cents, s.currency),
        coalesce(billing.amount_text(l.cents, s.currency), 'nothing')
    ) as reason
from backfill.invoices_open as s
-- For each by its key: an aggregate over all lines would be made anew for each where the planner expects few invoices.
cross join
    lateral (
        select sum(x.amount_cents) as cents from staging.invoice_lines as x
        where x.company_id = s.company_id and x.invoice_number = s.invoice_number
    ) as l
where (l.cents is distinct from s.total_cents);

comment on view backfill.invoice_conflicts is
'Every rule that a staged invoice breaks, one row each: number taken, facility and period taken, foreign facility, wrong total.';
comment on column backfill.invoice_conflicts.company_id is 'Company of the staged invoice.';
comment on column backfill.invoice_conflicts.invoice_number is 'Its number.';
comment on column backfill.invoice_conflicts.reason is 'What is wrong, with the values.';

create view backfill.invoices_due as
select
    s.*,
    s.total_cents as cents
from backfill.invoices_open as s
where not exists (
        select from backfill.invoice_conflicts as c
        where c.company_id = s.company_id and c.invoice_number = s.invoice_number
    );

comment on view backfill.invoices_due is 'Staged invoices still to write: no invoice was made of them yet, and no rule is broken.';
comment on column backfill.invoices_due.actor is 'Who the invoice is attributed to.';
comment on column backfill.invoices_due.currency is 'Its currency.';
comment on column backfill.invoices_due.paid_cents is 'What of it is taken as paid: its opening amount.';
comment on column backfill.invoices_due.due_date is 'When it is due.';
comment on column backfill.invoices_due.facility_id is 'Whose invoice it is.';
comment on column backfill.invoices_due.file_sha256 is 'The file that it came from.';
comment on column backfill.invoices_due.invoice_id is 'Id that it will have, computed from company and number.';
comment on column backfill.invoices_due.line is 'Its line in that file.';
comment on column backfill.invoices_due.period_start is 'First day that it bills.';
comment on column backfill.invoices_due.period_end is 'Last day that it bills.';
comment on column backfill.invoices_due.sent_at is 'When it was issued.';
comment on column backfill.invoices_due.total_cents is 'Its total.';
comment on column backfill.invoices_due.withdrawn is 'Always null here: what was withdrawn is not due.';
comment on column backfill.invoices_due.cents is 'Its total.';

create view backfill.invoices_rejects as
with conflicts as (
    select
        company_id,
        invoice_number,
        string_agg(reason, '; ' order by reason) as reason
    from backfill.invoice_conflicts
    group by company_id, invoice_number
)

select
    s.invoice_number as source_key,
    s.line,
    c.reason,
    s.total_cents as cents,
    s.currency,
    coalesce(f.name, 'staging.invoices') as source,
    jsonb_build_object('company', s.company_id, 'facility', s.facility_id, 'due_date', s.due_date) as payload
from conflicts as c
inner join staging.invoices as s on c.company_id = s.company_id and c.invoice_number = s.invoice_number
left join staging.file as f on s.file_sha256 = f.sha256 and f.loader = 'invoices';

comment on view backfill.invoices_rejects is 'Staged invoices that cannot be written, with everything that is wrong with each.';
comment on column backfill.invoices_rejects.source is 'Name of the file that it came from.';
comment on column backfill.invoices_rejects.source_key is 'The invoice''s number.';
comment on column backfill.invoices_rejects.line is 'Line in that file.';
comment on column backfill.invoices_rejects.reason is 'All its conflicts, see backfill.invoice_conflicts.';
comment on column backfill.invoices_rejects.cents is 'Its total.';
comment on column backfill.invoices_rejects.currency is 'Its currency.';
comment on column backfill.invoices_rejects.payload is 'Company, facility and due date.';

create view backfill.invoice_lines_due as
select
    s.invoice_id,
    l.company_id,
    l.invoice_number,
    l.line_no,
    l.description,
    l.contractor_id,
    case
        when l.contractor_id is not null
            then billing.assignment_of_week(
                    l.company_id, l.contractor_id, s.facility_id, coalesce(l.week_start, s.period_start)
                )
    end as assignment_id,
    l.week_start,
    l.hours,
    l.rate_cents,
    l.amount_cents,
    l.currency
from staging.invoices as s
inner join billing.invoices as i on s.invoice_id = i.id
inner join staging.invoice_lines as l on s.company_id = l.company_id and s.invoice_number = l.invoice_number
where not exists (
        select from billing.invoice_lines as x
        where x.invoice_id = s.invoice_id
    );

comment on view backfill.invoice_lines_due is
'Staged lines whose invoice has been written and has no line yet, with the version of the assignment effective in their week.';
comment on column backfill.invoice_lines_due.assignment_id is 'Assignment version that was effective that week; null if there is none.';
