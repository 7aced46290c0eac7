-- The application's own way to an invoice: the next number, under a lock.
-- Safe: a function only.
-- depends: 0208_backfill_invoice

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
        and i.period_end = p_period_end and i.status <> 'void' and i.origin = 'backfill' and i.total_cents > 0;
    if v_taken is not null then
        raise exception 'the facility already has % for % to %', v_taken, p_period_start, p_period_end
            using errcode = 'BF302', hint = 'Void that one first, or correct it: billing.void_invoice, billing.correct_invoice.';
    end if;
    perform backfill.raise_watermark(p_company, billing.invoice_ordinal(v_number));
    insert into billing.invoices
        (company_id, facility_id, invoice_number, period_start, period_end, status, total_cents)
    select p_company, p_facility, v_number, p_period_start, p_period_end, 'draft', coalesce(sum(l.amount_cents), 0)
    from billing.lines_of(p_lines) as l
    returning * into v_invoice;
    insert into billing.invoice_lines (company_id, invoice_id, line_no, description, contractor_id, assignment_id, week_start,
        hours, rate_cents, amount_cents, currency)
    select p_company, v_invoice.id, l.line_no, l.description, l.contractor_id,
        billing.assignment_of_week(p_company, l.contractor_id, p_facility, coalesce(l.week_start, p_period_start)),
        l.week_start, l.hours, l.rate_cents, l.amount_cents, v_invoice.currency
    from billing.lines_of(p_lines) as l;
    return v_invoice;
end;
$$;

comment on function billing.create_facility_invoice(uuid, uuid, date, date, jsonb) is
'A new draft of the application under the company''s next number, lines as for backfill.backfill_invoice.
Sessions take turns, and a rollback leaves no gap.';
