-- A rest that is written off by a person, a check that came back, and what a check paid taken back as a whole.
-- Safe: functions only.
-- depends: 0218_billing_apply

create function billing.write_off(p_invoice uuid, p_cents bigint, p_code text, p_reason text, p_on date default null)
returns billing.applications
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_today date := billing.day_of(backfill.run_time());
    v_invoice billing.invoice_balances;
    v_why text;
    v_opened boolean;
    v_made billing.applications;
begin
    perform billing.require_reason('writing off', p_reason);
    perform billing.lock_invoice(p_invoice);
    select * into v_invoice from billing.balances_as_of('infinity', array[p_invoice]);
    if not found then
        raise exception 'there is no invoice %', p_invoice using errcode = 'BF009';
    end if;
    v_why := case
        when v_invoice.status in ('draft', 'void') then format('it is %s', v_invoice.status)
        when btrim(coalesce(p_code, '')) in ('', 'short-pay') then 'a person''s write-off needs a code of its own, such as bad-debt; short-pay is the automatic one'
        when p_cents is null or p_cents <= 0 or p_cents > v_invoice.open_cents
            then format('%s cents were asked for, and %s cents are open', coalesce(p_cents::text, 'no'), v_invoice.open_cents)
        when p_on < v_invoice.issued_on or p_on > v_today then format('%s is before its issue on %s, or still to come', p_on, v_invoice.issued_on)
    end;
    if v_why is not null then
        raise exception 'nothing is written off of invoice %: %', v_invoice.invoice_number, v_why using errcode = 'BF033',
            hint = 'select billing.write_off(invoice, cents, ''bad-debt'', ''why'');';
    end if;
    v_opened := backfill.ensure_run(format('written off of %s: %s', v_invoice.invoice_number, p_reason),
        jsonb_build_object('invoice', p_invoice, 'cents', p_cents, 'code', p_code, 'reason', p_reason));
    perform billing.record_applications('{write-off}', array[p_invoice], array[p_invoice], array[p_cents], p_reason,
        coalesce(p_on, greatest(v_today, v_invoice.issued_on)), p_code);
    if v_opened then
        perform backfill.finish_run();
    end if;
    select a.* into v_made
    from billing.applications as a
    where a.source_id = p_invoice and a.source = 'write-off' and a.effective_until is null
    order by a.effective_from desc, a.id
    limit 1;
    return v_made;
end;
$$;

comment on function billing.write_off(uuid, bigint, text, text, date) is
'Writes so many minor units of an invoice off, under a reason code, from a day (default: today). A row of its own, an audited run; taken back by
billing.unapply(). By itself only what billing.write_off_tolerances allows is written off.';

create function billing.return_check(p_check uuid, p_on date, p_reason text, p_fee_cents bigint default 0)
returns table (what text, invoice_number text, amount_cents bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_check billing.check_payments;
    v_rows jsonb;
    v_fee billing.invoices;
    v_opened boolean;
    v_why text;
begin
    perform billing.require_reason('returning a check', p_reason);
    perform backfill.take_lock();
    perform from billing.facilities where id = (select c.facility_id from billing.check_payments as c where c.id = p_check) for no key update;
    select * into v_check from billing.check_payments where id = p_check for update;
    if not found then
        raise exception 'there is no check %', p_check using errcode = 'BF009';
    end if;
    v_why := case
        when v_check.returned_on is not null then format('it was returned on %s', v_check.returned_on)
        when p_on is null or p_on < v_check.received_on or p_on > billing.day_of(backfill.run_time())
            then format('received on %s, it cannot have come back on %s', v_check.received_on, coalesce(p_on::text, 'no day'))
        when p_fee_cents is null or p_fee_cents < 0 then format('a fee of %s cents is none', coalesce(p_fee_cents::text, 'null'))
        when p_fee_cents > 0 and v_check.facility_id is null then 'a fee is posted to a facility, and it names none'
    end;
    if v_why is not null then
        raise exception 'check % cannot be returned: %', v_check.check_number, v_why using errcode = 'BF033';
    end if;
    v_opened := backfill.ensure_run(format('check %s returned: %s', v_check.check_number, p_reason),
        jsonb_build_object('check', p_check, 'on', p_on, 'reason', p_reason, 'fee_cents', p_fee_cents));
    perform from billing.invoices as i
    where i.id in (select a.invoice_id from billing.check_payment_applications as a where a.check_payment_id = p_check)
    order by i.id
    for no key update;
    select jsonb_agg(jsonb_build_object('id', a.id, 'number', i.invoice_number, 'cents', a.amount_cents) order by i.invoice_number) into v_rows
    from billing.check_payment_applications as a
    join billing.invoices as i on i.id = a.invoice_id
    where a.check_payment_id = p_check;
    perform billing.end_applications(array(select r.id from jsonb_to_recordset(v_rows) as r (id uuid)), p_reason, p_on);
    update billing.check_payments set returned_on = p_on where id = p_check;
    delete from billing.check_reference_reviews where check_payment_id = p_check;
    return query select 'reopened', r.number, r.cents from jsonb_to_recordset(v_rows) as r (number text, cents bigint);
    if p_fee_cents > 0 then
        v_fee := billing.create_facility_invoice(v_check.company_id, v_check.facility_id, p_on, p_on, jsonb_build_array(jsonb_build_object(
            'description', format('Fee for returned check %s', v_check.check_number), 'amount_cents', p_fee_cents)));
        update billing.invoices
        set currency = coalesce(upper(btrim(v_check.currency)), billing.company_currency(v_check.company_id))
        where id = v_fee.id
        returning * into v_fee;
        update billing.invoice_lines set currency = v_fee.currency where invoice_id = v_fee.id;
        return query select 'fee', v_fee.invoice_number, p_fee_cents;
    end if;
    if v_opened then
        perform backfill.finish_run();
    end if;
end;
$$;

comment on function billing.return_check(uuid, date, text, bigint) is
'A check came back on a day: what it paid ends on that day, it is marked and never allocated again, and a fee, where one is asked for, becomes a draft of
the application with one line. An audited run. Returns what is open again, and the fee.';

create function billing.unapply_check(p_check uuid)
returns table (invoice_number text, amount_cents bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_check billing.check_payments;
    v_numbers text[];
    v_paid bigint[];
begin
    select * into v_check from billing.check_payments where id = p_check;
    if not found then
        raise exception 'there is no check %', p_check using errcode = 'BF009';
    end if;
    perform from billing.facilities where id = v_check.facility_id for no key update;
    perform from billing.invoices as i
    where i.id in (select r.invoice_id from billing.application_rows as r where r.source_id = p_check and r.effective_until is null)
    order by i.id
    for update;
    -- For update: an application that applies it meanwhile holds a key share lock.
    perform from billing.check_payments where id = p_check for update;
    -- What is subtracted is what goes, and nothing else.
    with gone as (
        delete from billing.check_payment_applications as a where a.check_payment_id = p_check
        returning a.invoice_id, a.amount_cents::bigint as cents, false as short
    ), short as (
        delete from billing.application_entries as e where e.source_id = p_check and e.source = 'write-off' and e.effective_until is null
        returning e.invoice_id, e.amount_cents as cents, true as short
    ), taken as (
        select t.invoice_id, sum(t.cents)::bigint as cents, coalesce(sum(t.cents) filter (where not t.short), 0)::bigint as paid
        from (select * from gone union all select * from short) as t
        group by t.invoice_id
    ), done as (
        update billing.invoices as i
        set amount_paid_cents = greatest(i.amount_paid_cents - t.cents, 0),
            status = case when i.status in ('draft', 'void') then i.status when i.amount_paid_cents <= t.cents then 'sent' else 'partial' end
        from taken as t
        where i.id = t.invoice_id
        returning i.invoice_number, i.due_date, t.paid
    )
    select array_agg(d.invoice_number order by d.due_date nulls last, d.invoice_number),
        array_agg(d.paid order by d.due_date nulls last, d.invoice_number)
    into v_numbers, v_paid from done as d where d.paid > 0;
    return query select * from unnest(v_numbers, v_paid);
    delete from billing.check_reference_reviews as r where r.check_payment_id = p_check;
end;
$$;

comment on function billing.unapply_check(uuid) is
'Takes back all that a check has paid, with the rests written off because it was short, and returns it; the invoices are as they were before, and nothing
of it is kept: it was an allocation, no decision. For a decision: billing.unapply(); for a check that came back: billing.return_check().';
