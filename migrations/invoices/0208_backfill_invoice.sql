-- One invoice of the past, given to a function: it is staged and then written through the same views and the same
-- function as the whole catalogue, so that there is one rule.
-- Safe: functions only.
-- depends: 0207_backfill_invoices

create function backfill.line_payload(
    p_description text,
    p_contractor uuid,
    p_week_start date,
    p_hours numeric,
    p_rate_cents bigint,
    p_amount_cents bigint
) returns jsonb
language sql stable parallel safe
return jsonb_build_object(
    'description', p_description, 'contractor_id', p_contractor, 'week_start', p_week_start,
    'hours', p_hours, 'rate_cents', p_rate_cents, 'amount_cents', p_amount_cents
);

comment on function backfill.line_payload(text, uuid, date, numeric, bigint, bigint) is
'A line as it is kept and compared: {description, contractor_id, week_start, hours, rate_cents, amount_cents}, every key there.';

create function backfill.invoice_payload_lines(p_lines jsonb) returns jsonb
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_agg(backfill.line_payload(l.description, l.contractor_id, l.week_start, l.hours, l.rate_cents, l.amount_cents)
        order by l.line_no)
    from billing.lines_of(p_lines) as l;
$$;

comment on function backfill.invoice_payload_lines(jsonb) is
'The lines of an invoice as a function is given them, each as backfill.line_payload makes it.';

create function backfill.staged_differences(p_given staging.invoices, p_lines jsonb) returns text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select backfill.invoice_differences('%s was %s, now %s', s, p_given, (
        select jsonb_agg(backfill.line_payload(l.description, l.contractor_id, l.week_start, l.hours, l.rate_cents, l.amount_cents)
            order by l.line_no)
        from staging.invoice_lines as l
        where l.company_id = s.company_id and l.invoice_number = s.invoice_number
    ), p_lines)
    from staging.invoices as s
    where s.company_id = p_given.company_id and upper(s.invoice_number) = upper(p_given.invoice_number) and s.withdrawn is null;
$$;

comment on function backfill.staged_differences(staging.invoices, jsonb) is
'Fields in which an invoice given now differs from what was staged under its number, with both values; null where in none
or where none is staged. Lines as backfill.invoice_payload_lines makes them.';

create function backfill.stage_invoice(p_given staging.invoices, p_lines jsonb) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    -- What was withdrawn gives way; capture keeps it.
    delete from staging.invoice_documents where company_id = p_given.company_id and upper(invoice_number) = upper(p_given.invoice_number);
    delete from staging.invoice_lines where company_id = p_given.company_id and upper(invoice_number) = upper(p_given.invoice_number);
    delete from staging.invoices where company_id = p_given.company_id and upper(invoice_number) = upper(p_given.invoice_number);
    insert into staging.invoices (invoice_id, company_id, invoice_number, facility_id, period_start, period_end, sent_at,
        due_date, total_cents, actor, currency)
    values (backfill.business_id('invoice', p_given.company_id::text, p_given.invoice_number), p_given.company_id,
        p_given.invoice_number, p_given.facility_id, p_given.period_start, p_given.period_end, p_given.sent_at,
        p_given.due_date, p_given.total_cents, p_given.actor, p_given.currency);
    insert into staging.invoice_lines (company_id, invoice_number, line_no, description, contractor_id, week_start, hours,
        rate_cents, amount_cents, currency)
    select p_given.company_id, p_given.invoice_number, l.line_no, l.description, l.contractor_id, l.week_start, l.hours,
        l.rate_cents, l.amount_cents, p_given.currency
    from billing.lines_of(p_lines) as l;
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
    p_due_date date,
    p_total_cents bigint,
    p_lines jsonb,
    p_actor text default session_user,
    p_currency text default null
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
    v_given.paid_cents := 0;
    v_given.currency := coalesce(p_currency, billing.company_currency(p_company), 'USD');
    v_refusal := coalesce(
        case when not exists (select from billing.companies where id = p_company) then format('there is no company %s', p_company) end,
        case when not exists (select from billing.facilities where id = p_facility) then format('there is no facility %s', p_facility) end,
        case when not billing.is_currency(v_given.currency) then format('%s is no currency', quote_literal(v_given.currency)) end,
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

comment on function backfill.backfill_invoice(uuid, uuid, text, date, date, timestamptz, date, bigint, jsonb, text, text) is
'One invoice of the past with its lines [{description, contractor_id, week_start, hours, rate_cents, amount_cents}], as
an outstanding receivable under its own number, or a credit where its total is below zero; in its currency (null: the company''s). Joins the open run or is one. The same payload again is a no-op; another one is
refused naming the fields (BF301), and so is what breaks a constraint of staging.invoices, or what billing.line_faults or
backfill.invoice_conflicts finds (BF302).';
