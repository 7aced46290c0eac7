-- Backfill "invoices": the staged catalogue becomes outstanding receivables under its own numbers.
-- Safe: functions only.
-- depends: 0206_backfill_invoices_due

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
        'due_date, total_cents, amount_paid_cents, currency, pdf_storage_path, created_at, origin) '
        'select d.invoice_id, d.company_id, d.facility_id, d.invoice_number, d.period_start, d.period_end, '
        'case when d.paid_cents = 0 then ''sent'' when d.paid_cents = d.total_cents then ''paid'' else ''partial'' end, d.sent_at, '
        'd.due_date, d.total_cents, d.paid_cents, d.currency, p.stored_path, now(), ''backfill'' '
        'from backfill.invoices_due as d '
        'left join staging.invoice_documents as p on p.company_id = d.company_id and p.invoice_number = d.invoice_number ' || v_only
        || ' returning company_id, invoice_number) '
        'select company_id, max(billing.invoice_ordinal(invoice_number)) as highest from written group by company_id order by company_id'
    loop
        v_marks := jsonb_set(v_marks, array[v_company.company_id::text, 'after'],
            to_jsonb(backfill.raise_watermark(v_company.company_id, v_company.highest)));
    end loop;

    execute 'insert into billing.invoice_lines (id, company_id, invoice_id, line_no, description, contractor_id, assignment_id, '
        'week_start, hours, rate_cents, amount_cents, currency, variance_flagged) '
        'select backfill.business_id(''invoice line'', d.invoice_id::text, d.line_no::text), d.company_id, d.invoice_id, d.line_no, '
        'd.description, d.contractor_id, d.assignment_id, d.week_start, d.hours, d.rate_cents, d.amount_cents, d.currency, false '
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

do $do$
begin
    perform backfill.register(
        'invoices', 'invoices', 'Invoices issued by hand before the application, as outstanding receivables', 200,
        'backfill.invoices_due', 'backfill.invoices', '{billing.invoices,billing.invoice_lines}', 'backfill.invoices_rejects',
        p_settled => 'staging.file.loaded_at', p_dimensions => '{period_start,facility_id}'
    );
end;
$do$;
