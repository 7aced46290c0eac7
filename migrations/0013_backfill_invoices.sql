-- Backfill "invoices": the staged catalogue becomes outstanding receivables under its own numbers.
-- One rule for one invoice and for a hundred thousand: backfill.backfill_invoice stages its invoice and
-- then writes through the same views and the same function as the whole catalogue.
-- Safe: views and functions only.
-- depends: 0012_staging_invoices

create view backfill.invoices_open as
select s.*
from staging.invoices as s
where
    s.withdrawn is null
    and not exists (
        select from billing.invoices as i
        where i.id = s.invoice_id
    );

comment on view backfill.invoices_open is 'Staged invoices of which no invoice was made yet, whether one can be made or not.';

create function backfill.invoice_differences(p_staged backfill.invoices_open, p_invoice billing.invoices) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format('%s is %s, here %s', d.field, d.there, d.here), ', ' order by d.place)
    from (
        values (1, 'facility', (select name from billing.facilities where id = p_invoice.facility_id),
            (select name from billing.facilities where id = p_staged.facility_id)),
        (2, 'period_start', p_invoice.period_start::text, p_staged.period_start::text),
        (3, 'period_end', p_invoice.period_end::text, p_staged.period_end::text),
        (4, 'sent_at', coalesce(p_invoice.sent_at::text, 'missing'), p_staged.sent_at::text),
        (5, 'due_date', coalesce(p_invoice.due_date::text, 'missing'), p_staged.due_date::text),
        (6, 'total', to_char(p_invoice.total_cents / 100.0, 'FM999,999,999,990.00'),
            to_char(p_staged.total_cents / 100.0, 'FM999,999,999,990.00'))
    ) as d (place, field, there, here)
    where d.there is distinct from d.here;
$$;

comment on function backfill.invoice_differences(backfill.invoices_open, billing.invoices) is
'Fields in which an invoice of the application differs from a staged one, with both values; null where in none.';

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
        coalesce(': ' || backfill.invoice_differences(s, i), '')
    ) as reason
from backfill.invoices_open as s
inner join billing.invoices as i on s.company_id = i.company_id and s.invoice_number = i.invoice_number
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
where i.status <> 'void' and s.invoice_number <> i.invoice_number
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
        'its total is %s, its lines make %s', to_char(s.total_cents / 100.0, 'FM999,999,999,990.00'),
        coalesce(to_char(l.cents / 100.0, 'FM999,999,999,990.00'), 'nothing')
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
    l.amount_cents
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

create function backfill.raise_watermark(p_company uuid, p_ordinal bigint) returns bigint
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_next bigint;
begin
    if not exists (select from billing.settings where company_id = p_company) then
        insert into billing.settings (company_id, next_invoice_number)
        select p_company, coalesce(max(billing.invoice_ordinal(i.invoice_number)), 0) + 1
        from billing.invoices as i
        where i.company_id = p_company
        on conflict do nothing;
    end if;
    -- Without a condition, so that the row is locked in any case: who numbers invoices waits here.
    update billing.settings
    set next_invoice_number = greatest(next_invoice_number, p_ordinal + 1)
    where company_id = p_company
    returning next_invoice_number into v_next;
    return v_next;
end;
$$;

comment on function backfill.raise_watermark(uuid, bigint) is
'Moves a company''s next invoice number to max(current, ordinal + 1), never down, and holds the row until the end of the
transaction; returns it. With ordinal 0 it only takes the lock. A company without settings gets them, above its highest number.';

create function backfill.write_invoices(p_company uuid default null, p_number text default null) returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_company record;
    v_mark bigint;
    v_marks jsonb := '{}';
    -- As text, so that each call is planned for what it writes. plan_cache_mode would do that to every foreign key's check too.
    v_only text := case when p_company is null then '' else
        format('where d.company_id = %L and d.invoice_number = %L', p_company, p_number) end;
begin
    -- First the locks, in order: from here on nobody else numbers invoices of these companies.
    for v_company in
        select distinct s.company_id
        from backfill.invoices_open as s
        where p_company is null or (s.company_id = p_company and s.invoice_number = p_number)
        order by s.company_id
    loop
        v_mark := backfill.raise_watermark(v_company.company_id, 0);
        v_marks := v_marks || jsonb_build_object(v_company.company_id, jsonb_build_object('before', v_mark, 'after', v_mark));
    end loop;

    -- Only what is written counts for the watermark: a rejected number moves nothing.
    for v_company in execute 'with written as ('
        'insert into billing.invoices (id, company_id, facility_id, invoice_number, period_start, period_end, status, sent_at, '
        'due_date, total_cents, amount_paid_cents, pdf_storage_path, created_at, origin) '
        'select d.invoice_id, d.company_id, d.facility_id, d.invoice_number, d.period_start, d.period_end, ''sent'', d.sent_at, '
        'd.due_date, d.total_cents, 0, p.stored_path, now(), ''backfill'' '
        'from backfill.invoices_due as d '
        'left join staging.invoice_documents as p on p.company_id = d.company_id and p.invoice_number = d.invoice_number ' || v_only
        || ' returning company_id, invoice_number) '
        'select company_id, max(billing.invoice_ordinal(invoice_number)) as highest from written group by company_id order by company_id'
    loop
        v_marks := jsonb_set(v_marks, array[v_company.company_id::text, 'after'],
            to_jsonb(backfill.raise_watermark(v_company.company_id, v_company.highest)));
    end loop;

    execute 'insert into billing.invoice_lines (id, company_id, invoice_id, line_no, description, contractor_id, assignment_id, '
        'week_start, hours, rate_cents, amount_cents, variance_flagged) '
        'select backfill.business_id(''invoice line'', d.invoice_id::text, d.line_no::text), d.company_id, d.invoice_id, d.line_no, '
        'd.description, d.contractor_id, d.assignment_id, d.week_start, d.hours, d.rate_cents, d.amount_cents, false '
        'from backfill.invoice_lines_due as d ' || v_only;
    return jsonb_build_object('watermarks', v_marks);
end;
$$;

comment on function backfill.write_invoices(uuid, text) is
'Writes the due invoices (or the one named) with their lines, and moves the watermark, whose lock it takes first.';

create function backfill.invoices(p_parameters jsonb default '{}') returns jsonb
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
-- For a whole catalogue: never a loop over the table that grows meanwhile, it would visit its own new rows.
set enable_nestloop = off
set work_mem = '64MB'
as $$
    select backfill.write_invoices();
$$;

comment on function backfill.invoices(jsonb) is
'Writes what backfill.invoices_due shows. Run it as a run: select * from backfill.run(''invoices'');';

create function backfill.staged_differences(p_given staging.invoices, p_lines jsonb) returns text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format('%s was %s, now %s', d.field, coalesce(d.there, 'none'), coalesce(d.here, 'none')), ', ' order by d.place)
    from staging.invoices as s
    cross join lateral (
        values (1, 'facility', (select name from billing.facilities where id = s.facility_id),
            (select name from billing.facilities where id = p_given.facility_id)),
        (2, 'period_start', s.period_start::text, p_given.period_start::text),
        (3, 'period_end', s.period_end::text, p_given.period_end::text),
        (4, 'sent_at', s.sent_at::text, p_given.sent_at::text),
        (5, 'due_date', s.due_date::text, p_given.due_date::text),
        (6, 'total', to_char(s.total_cents / 100.0, 'FM999,999,999,990.00'),
            to_char(p_given.total_cents / 100.0, 'FM999,999,999,990.00')),
        (7, 'lines', (
            select jsonb_agg(jsonb_build_object('description', l.description, 'contractor_id', l.contractor_id,
                'week_start', l.week_start, 'hours', l.hours, 'rate_cents', l.rate_cents, 'amount_cents', l.amount_cents)
                order by l.line_no)::text
            from staging.invoice_lines as l
            where l.company_id = s.company_id and l.invoice_number = s.invoice_number
        ), p_lines::text)
    ) as d (place, field, there, here)
    where s.company_id = p_given.company_id and s.invoice_number = p_given.invoice_number and s.withdrawn is null
        and d.there is distinct from d.here;
$$;

comment on function backfill.staged_differences(staging.invoices, jsonb) is
'Fields in which an invoice given now differs from what was staged under its number, with both values; null where in none
or where none is staged. Lines as backfill.invoice_payload_lines makes them.';

create function backfill.invoice_payload_lines(p_lines jsonb) returns jsonb
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_agg(jsonb_build_object('description', l.description, 'contractor_id', l.contractor_id, 'week_start', l.week_start,
        'hours', l.hours, 'rate_cents', l.rate_cents, 'amount_cents', l.amount_cents) order by l.place)
    from rows from (jsonb_to_recordset(p_lines) as (description text, contractor_id uuid, week_start date,
        hours numeric(9, 2), rate_cents bigint, amount_cents bigint)) with ordinality
        as l (description, contractor_id, week_start, hours, rate_cents, amount_cents, place);
$$;

comment on function backfill.invoice_payload_lines(jsonb) is
'Lines as they are kept and compared: [{description, contractor_id, week_start, hours, rate_cents, amount_cents}], every key there.';

create function backfill.stage_invoice(p_given staging.invoices, p_lines jsonb) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    -- What was withdrawn gives way; capture keeps it.
    delete from staging.invoice_documents where company_id = p_given.company_id and invoice_number = p_given.invoice_number;
    delete from staging.invoice_lines where company_id = p_given.company_id and invoice_number = p_given.invoice_number;
    delete from staging.invoices where company_id = p_given.company_id and invoice_number = p_given.invoice_number;
    insert into staging.invoices (invoice_id, company_id, invoice_number, facility_id, period_start, period_end, sent_at,
        due_date, total_cents, actor)
    values (backfill.business_id('invoice', p_given.company_id::text, p_given.invoice_number), p_given.company_id,
        p_given.invoice_number, p_given.facility_id, p_given.period_start, p_given.period_end, p_given.sent_at,
        p_given.due_date, p_given.total_cents, p_given.actor);
    insert into staging.invoice_lines (company_id, invoice_number, line_no, description, contractor_id, week_start, hours,
        rate_cents, amount_cents)
    select p_given.company_id, p_given.invoice_number, l.place, l.description, l.contractor_id, l.week_start, l.hours,
        l.rate_cents, l.amount_cents
    from rows from (jsonb_to_recordset(p_lines) as (description text, contractor_id uuid, week_start date,
        hours numeric(9, 2), rate_cents bigint, amount_cents bigint)) with ordinality
        as l (description, contractor_id, week_start, hours, rate_cents, amount_cents, place);
end;
$$;

comment on function backfill.stage_invoice(staging.invoices, jsonb) is 'Stages one invoice with its lines, in place of a withdrawn one.';

create function backfill.backfill_invoice(
    p_company uuid,
    p_facility uuid,
    p_invoice_number text,
    p_period_start date,
    p_period_end date,
    p_sent_at timestamptz,
    p_due_date date, p_total_cents bigint, p_lines jsonb, p_actor text default session_user
) returns billing.invoices
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_given staging.invoices;
    v_lines jsonb;
    v_missing text;
    v_refusal text;
    v_opened boolean := false;
    v_marks jsonb;
    v_invoice billing.invoices;
begin
    select string_agg(n.name, ', ' order by n.place) into v_missing
    from (
        values (1, 'company', p_company::text), (2, 'facility', p_facility::text), (3, 'invoice_number', p_invoice_number),
        (4, 'period_start', p_period_start::text), (5, 'period_end', p_period_end::text), (6, 'sent_at', p_sent_at::text),
        (7, 'due_date', p_due_date::text), (8, 'total_cents', p_total_cents::text),
        (9, 'lines', nullif(p_lines, '[]')::text), (10, 'actor', nullif(p_actor, ''))
    ) as n (place, name, value)
    where n.value is null;
    if v_missing is not null then
        raise exception 'invoice % cannot be backfilled without %', coalesce(p_invoice_number, '(no number)'), v_missing
            using errcode = 'BF302',
                hint = 'A receivable of the past needs its own number, issue date, due date, total and lines.';
    end if;
    v_given.company_id := p_company;
    v_given.facility_id := p_facility;
    v_given.invoice_number := p_invoice_number;
    v_given.period_start := p_period_start;
    v_given.period_end := p_period_end;
    v_given.sent_at := p_sent_at;
    v_given.due_date := p_due_date;
    v_given.total_cents := p_total_cents;
    v_given.actor := p_actor;
    v_refusal := coalesce(
        case when not exists (select from billing.companies where id = p_company) then format('there is no company %s', p_company) end,
        case when not exists (select from billing.facilities where id = p_facility) then format('there is no facility %s', p_facility) end,
        billing.line_faults(p_company, p_lines)
    );
    if v_refusal is not null then
        raise exception 'invoice % cannot be backfilled: %', p_invoice_number, v_refusal using errcode = 'BF302';
    end if;
    v_lines := backfill.invoice_payload_lines(p_lines);

    if backfill.open_run() is null then
        -- A replay that changes nothing leaves no run in the log.
        if backfill.staged_differences(v_given, v_lines) is null then
            select i.* into v_invoice
            from staging.invoices as s
            join billing.invoices as i on i.id = s.invoice_id
            where s.company_id = p_company and s.invoice_number = p_invoice_number;
            if found then
                return v_invoice;
            end if;
        end if;
        perform backfill.begin_run(format('backfill_invoice %s', p_invoice_number), p_actor => p_actor,
            p_subject => jsonb_build_object('company', p_company, 'invoice', p_invoice_number));
        v_opened := true;
    end if;
    -- From here on nobody else numbers or backfills invoices of the company.
    perform backfill.raise_watermark(p_company, 0);

    v_refusal := backfill.staged_differences(v_given, v_lines);
    if v_refusal is not null then
        raise exception 'invoice % was backfilled before with another payload: %', p_invoice_number, v_refusal
            using errcode = 'BF301', hint = 'Correct the one that is there: billing.correct_invoice(invoice, changes, reason).';
    end if;
    if not exists (
        select from staging.invoices where company_id = p_company and invoice_number = p_invoice_number and withdrawn is null
    ) then
        begin
            perform backfill.stage_invoice(v_given, v_lines);
        exception
            when check_violation then  -- the rules about one row are constraints, and their names say them
                get stacked diagnostics v_refusal = constraint_name;
                raise exception 'invoice % cannot be backfilled, it breaks the rule: %', quote_literal(p_invoice_number),
                    replace(v_refusal, '_', ' ')
                    using errcode = 'BF302', constraint = v_refusal,
                        detail = format('period %s to %s, issued %s, due %s, total %s cents', p_period_start, p_period_end,
                            p_sent_at, p_due_date, p_total_cents);
        end;
    end if;
    select string_agg(c.reason, '; ' order by c.reason) into v_refusal
    from backfill.invoice_conflicts as c
    where c.company_id = p_company and c.invoice_number = p_invoice_number;
    if v_refusal is not null then
        raise exception 'invoice % cannot be backfilled: %', p_invoice_number, v_refusal using errcode = 'BF302',
            hint = 'Mend the call, or what stands in its way: billing.void_invoice, billing.correct_invoice, billing.delete_invoice.';
    end if;
    v_marks := backfill.write_invoices(p_company, p_invoice_number);
    select i.* into v_invoice
    from staging.invoices as s
    join billing.invoices as i on i.id = s.invoice_id
    where s.company_id = p_company and s.invoice_number = p_invoice_number;
    if v_opened then
        perform backfill.finish_run(v_marks);
    end if;
    return v_invoice;
end;
$$;

comment on function backfill.backfill_invoice(uuid, uuid, text, date, date, timestamptz, date, bigint, jsonb, text) is
'One invoice of the past with its lines [{description, contractor_id, week_start, hours, rate_cents, amount_cents}], as
an outstanding receivable under its own number. Joins the open run or is one. The same payload again is a no-op; another one is
refused naming the fields (BF301), and so is what breaks a constraint of staging.invoices, or what billing.line_faults or
backfill.invoice_conflicts finds (BF302).';

do $do$
begin
    perform backfill.register(
        'invoices', 'invoices', 'Invoices issued by hand before the application, as outstanding receivables', 200,
        'backfill.invoices_due', 'backfill.invoices', '{billing.invoices,billing.invoice_lines}', 'backfill.invoices_rejects'
    );
end;
$do$;

revoke execute on all functions in schema backfill from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on backfill.invoices_open, backfill.invoice_conflicts, '
        'backfill.invoices_due, backfill.invoices_rejects, backfill.invoice_lines_due');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.staged_differences(staging.invoices, jsonb)');
    perform backfill.grant_to('backfill_operator', 'execute on function '
        'backfill.backfill_invoice(uuid, uuid, text, date, date, timestamptz, date, bigint, jsonb, text)');
end;
$do$;
