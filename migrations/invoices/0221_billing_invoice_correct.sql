-- Corrections of single invoices after the load, each an audited run: what each begins and ends with, and the first.
-- Each does its work and then looks for faults: what breaks an invariant is refused, and nothing of it stays.
-- Safe: functions only.
-- depends: 0220_billing_invoice_faults

create function billing.begin_action(
    p_action text, p_invoice uuid, p_actor text, p_parameters jsonb, out opened boolean, out invoice billing.invoices
) returns record
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(btrim(p_parameters ->> 'reason'), '') = '' then
        raise exception '% of invoice % needs a reason: it is kept in the log', p_action,
            coalesce((select invoice_number from billing.invoices where id = p_invoice), p_invoice::text) using errcode = 'BF302';
    end if;
    select * into invoice from billing.invoices where id = p_invoice;
    if not found then
        raise exception 'there is no invoice %', p_invoice using errcode = 'BF009',
            hint = 'select id from billing.invoices where company_id = ... and invoice_number = ...;';
    end if;
    opened := backfill.open_run() is null;
    if opened then
        perform backfill.begin_run(format('%s %s', p_action, invoice.invoice_number), p_parameters, p_actor => p_actor,
            p_subject => jsonb_build_object('company', invoice.company_id, 'invoice', invoice.invoice_number));
    else
        -- The open run has a title of its own; beside it the log keeps what was done in it, to what, why, and in whose name.
        perform backfill.note_action(jsonb_build_object('action', p_action, 'company', invoice.company_id,
            'invoice', invoice.invoice_number, 'actor', p_actor) || p_parameters);
    end if;
    -- The same order of locks as everywhere: settings, then facility, then invoice.
    perform backfill.raise_watermark(invoice.company_id, 0);
    perform from billing.facilities where id = invoice.facility_id for no key update;
    select * into invoice from billing.invoices where id = p_invoice for update;
    if not found then
        raise exception 'invoice % was deleted meanwhile', p_invoice using errcode = 'BF009';
    end if;
end;
$$;

comment on function billing.begin_action(text, uuid, text, jsonb) is
'Begins a row action: opens a run with its reason, or adds both to the actions among the parameters of the run that is open; locks
the invoice.';

create function billing.end_action(p_opened boolean, p_action text, p_invoice billing.invoices) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_faults text;
begin
    select string_agg(f.fault, '; ' order by f.fault) into v_faults
    from billing.invoice_faults as f
    where f.invoice_id = p_invoice.id;
    if v_faults is not null then
        raise exception '% of invoice % is refused: %', p_action, p_invoice.invoice_number, v_faults
            using errcode = 'BF302', hint = 'Nothing was changed.';
    end if;
    if p_opened then
        perform backfill.finish_run();
    end if;
end;
$$;

comment on function billing.end_action(boolean, text, billing.invoices) is
'Ends a row action: refuses (BF302) what left the invoice with a fault, else finishes the run that it opened.';

create function billing.covered_cents(p_invoice uuid) returns bigint
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select b.applied_cents + b.given_cents from billing.balances_as_of('infinity', array[p_invoice]) as b;
$$;

comment on function billing.covered_cents(uuid) is
'What is applied to an invoice, or of a credit what it paid elsewhere: see billing.balances_as_of().';

create function billing.correct_invoice(
    p_invoice uuid, p_changes jsonb, p_reason text, p_actor text default session_user
) returns billing.invoices
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_action record;
    v_old billing.invoices;
    v_new billing.invoices;
    v_unknown text;
    v_faults text;
begin
    select string_agg(k.key, ', ' order by k.key) into v_unknown
    from jsonb_object_keys(case when jsonb_typeof(p_changes) = 'object' then p_changes else '{}' end) as k (key)
    where k.key <> all ('{invoice_number,period_start,period_end,sent_at,due_date,total_cents,lines}');
    if v_unknown is not null or jsonb_typeof(p_changes) is distinct from 'object' or p_changes = '{}' then
        raise exception 'a correction changes invoice_number, period_start, period_end, sent_at, due_date, total_cents, lines, not %',
            coalesce(v_unknown, case when jsonb_typeof(p_changes) <> 'object' then p_changes::text end, 'nothing')
            using errcode = 'BF302', hint = 'For example {"due_date": "2023-02-28"}.';
    end if;
    -- The session's DateStyle and TimeZone must not decide which day is meant.
    select string_agg(format('%s %s', c.key, c.value), ', ' order by c.key) into v_faults
    from jsonb_each_text(p_changes - 'lines') as c
    where (c.key in ('period_start', 'period_end', 'due_date') and c.value !~ '^\d{4}-\d\d-\d\d$')
        or (c.key = 'sent_at' and c.value !~ '^\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$');
    if v_faults is not null then
        raise exception 'a correction takes dates as 2023-02-28 and sent_at as 2023-02-28T00:00:00Z, with its time zone, not %', v_faults
            using errcode = 'BF302';
    end if;
    v_action := billing.begin_action('correct', p_invoice, p_actor, jsonb_build_object('reason', p_reason, 'changes', p_changes));
    v_old := v_action.invoice;
    if v_old.origin <> 'backfill' or v_old.status = 'void' then
        raise exception 'invoice % is % and of origin %: only backfilled invoices that stand are corrected here',
            v_old.invoice_number, v_old.status, v_old.origin using errcode = 'BF302';
    end if;
    v_faults := billing.line_faults(v_old.company_id, p_changes -> 'lines');
    if v_faults is not null then
        raise exception 'correction of invoice % is refused: %', v_old.invoice_number, v_faults using errcode = 'BF302';
    end if;
    v_new := jsonb_populate_record(v_old, p_changes - 'lines');
    if v_new.invoice_number is distinct from v_old.invoice_number then
        if billing.invoice_ordinal(v_new.invoice_number) is null or v_new.invoice_number <> btrim(v_new.invoice_number) then
            raise exception 'invoice % cannot become %: a number has a numeric part and no blanks around it', v_old.invoice_number,
                quote_nullable(v_new.invoice_number) using errcode = 'BF302';
        end if;
        select format('%s, for %s to %s', i.status, i.period_start, i.period_end) into v_faults
        from billing.invoices as i
        where i.company_id = v_old.company_id and i.invoice_number = v_new.invoice_number;
        if found then
            raise exception 'invoice % cannot become %: that number is taken (%)', v_old.invoice_number, v_new.invoice_number, v_faults
                using errcode = 'BF302', hint = 'Correct or delete that one first.';
        end if;
        perform backfill.raise_watermark(v_old.company_id, billing.invoice_ordinal(v_new.invoice_number));
    end if;
    if p_changes ? 'lines' then
        delete from billing.invoice_lines where invoice_id = p_invoice;
        insert into billing.invoice_lines (id, company_id, invoice_id, line_no, description, contractor_id, assignment_id,
            week_start, hours, rate_cents, amount_cents, currency, variance_flagged)
        select backfill.business_id('invoice line', p_invoice::text, l.line_no::text), v_old.company_id, p_invoice, l.line_no,
            l.description, l.contractor_id, billing.assignment_of_week(
                v_old.company_id, l.contractor_id, v_old.facility_id, coalesce(l.week_start, v_new.period_start)
            ), l.week_start, l.hours, l.rate_cents, l.amount_cents, v_old.currency, false
        from billing.lines_of(p_changes -> 'lines') as l;
    end if;
    if v_new.sent_at is null or v_new.due_date is null or v_new.period_start is null or v_new.period_end is null
        or v_new.total_cents is null or v_new.period_end < v_new.period_start
        or sign(v_new.total_cents) is distinct from sign(v_old.total_cents) then
        raise exception 'invoice % needs an issue date, a due date, a period that ends after it begins, and a total of the same sign',
            v_old.invoice_number using errcode = 'BF302', detail = format('issued %s, due %s, period %s to %s, total %s cents',
                v_new.sent_at, v_new.due_date, v_new.period_start, v_new.period_end, v_new.total_cents);
    end if;
    if abs(v_new.total_cents) < billing.covered_cents(p_invoice) then
        raise exception 'invoice % has % cents paid, more than the new total of %', v_old.invoice_number,
            billing.covered_cents(p_invoice), v_new.total_cents
            using errcode = 'BF302', hint = 'Take it back first: billing.unapply(application, reason), see billing.applications.';
    end if;
    begin
        update billing.invoices
        set invoice_number = v_new.invoice_number, period_start = v_new.period_start, period_end = v_new.period_end,
            sent_at = v_new.sent_at, due_date = v_new.due_date, total_cents = v_new.total_cents,
            status = case when v_new.total_cents < 0 then case billing.covered_cents(p_invoice) when 0 then 'sent'
                    when -v_new.total_cents then 'paid' else 'partial' end
                when amount_paid_cents = 0 then 'sent' when amount_paid_cents = v_new.total_cents then 'paid' else 'partial' end
        where id = p_invoice
        returning * into v_new;
    exception
        when unique_violation then  -- invoices_one_backfill_per_period: nobody can slip in between
            raise exception 'correction of invoice % is refused: its facility also has % for its period', v_old.invoice_number, (
                select string_agg(i.invoice_number, ', ' order by i.invoice_number)
                from billing.invoices as i
                where i.company_id = v_old.company_id and i.facility_id = v_old.facility_id and i.status <> 'void'
                    and i.period_start = v_new.period_start and i.period_end = v_new.period_end and i.total_cents > 0
            ) using errcode = 'BF302', hint = 'Nothing was changed.';
    end;
    perform billing.end_action(v_action.opened, 'correction', v_new);
    return v_new;
end;
$$;

comment on function billing.correct_invoice(uuid, jsonb, text, text) is
'Corrects a backfilled invoice: number, dates, and lines with the total, e.g. {"due_date": "2023-02-28"} or {"total_cents": 100,
"lines": [...]} (all lines anew). A run with its reason. Refuses (BF302) what would break an invariant.';
