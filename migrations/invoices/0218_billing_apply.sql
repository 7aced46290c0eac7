-- A person's word on money: apply it, take it back, say no, write off a rest, a check that came back. Each is an audited run with its reason.
-- Safe: functions only.
-- depends: 0217_billing_allocate_checks

create function billing.require_reason(p_what text, p_reason text) returns void
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if btrim(coalesce(p_reason, '')) = '' then
        raise exception '% needs a reason: it is kept in the log', p_what using errcode = 'BF033';
    end if;
end;
$$;

comment on function billing.require_reason(text, text) is 'Refuses (BF033) a person''s decision without a reason.';

create function billing.lock_invoice(p_invoice uuid) returns billing.invoices
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_invoice billing.invoices;
begin
    perform backfill.take_lock();
    -- The same order as in an allocation: facility, then invoice.
    perform from billing.facilities where id = (select i.facility_id from billing.invoices as i where i.id = p_invoice) for no key update;
    select * into v_invoice from billing.invoices where id = p_invoice for update;
    return v_invoice;
end;
$$;

comment on function billing.lock_invoice(uuid) is 'Takes the locks for a decision about one invoice, and returns it; null where there is none.';

create function billing.apply(p_source uuid, p_invoice uuid, p_cents bigint, p_reason text, p_on date default null)
returns billing.applications
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_source billing.source_balances;
    v_invoice billing.invoice_balances;
    v_cents bigint;
    v_room bigint;
    v_no text;
    v_free_from date;
    v_open_from date;
    v_part_from date;
    v_why text;
    v_opened boolean;
    v_made billing.applications;
begin
    perform billing.require_reason('applying money', p_reason);
    perform billing.lock_invoice(p_invoice);
    -- For update: an application that applies a check itself holds a key share lock on it.
    perform from billing.check_payments where id = p_source for update;
    perform from billing.payments where id = p_source for update;
    perform from billing.invoices where id = p_source for no key update;
    select * into v_source from billing.balances_of_sources(array[p_source]);
    if not found then
        raise exception 'there is no check, payment or credit %', p_source using errcode = 'BF009',
            hint = 'select source, source_id, label, unapplied_cents from billing.source_balances where unapplied_cents > 0;';
    end if;
    select * into v_invoice from billing.balances_as_of('infinity', array[p_invoice]);
    -- A payment may explain what the invoice says is paid without a row; other money pays what is open.
    v_room := case when v_source.source = 'payment' then v_invoice.uncovered_cents else v_invoice.open_cents end;
    v_cents := coalesce(p_cents, least(v_source.unapplied_cents, v_room));
    select r.reason into v_no
    from billing.application_refusals as r
    where r.source_id = p_source and r.invoice_id = p_invoice and r.withdrawn is null;
    -- From when the money is free and the invoice open, where either was of something else until a day.
    select max(r.effective_until) filter (where r.source_id = p_source), max(r.effective_until) filter (where r.invoice_id = p_invoice)
    into v_free_from, v_open_from
    from billing.application_rows as r
    where (r.source_id = p_source or r.invoice_id = p_invoice) and r.effective_until > r.effective_from;
    select r.effective_from into v_part_from
    from billing.application_rows as r
    where r.source = 'check' and r.source_id = p_source and r.invoice_id = p_invoice and r.effective_until is null;
    v_why := case
        when v_invoice.invoice_id is null then 'there is no such invoice'
        when v_invoice.status in ('draft', 'void') then format('it is %s', v_invoice.status)
        when v_invoice.total_cents <= 0 then 'it is a credit, no invoice'
        when v_source.company_id <> v_invoice.company_id then 'they belong to two companies'
        when v_source.customer_id <> v_invoice.customer_id then 'they belong to two customers'
        when v_source.facility_id <> v_invoice.facility_id then 'they belong to two facilities'
        when v_source.currency is distinct from v_invoice.currency and not (v_invoice.currency is null and v_source.currency_unsaid)
            then format('it is in %s, the invoice in %s', coalesce(v_source.currency, 'a currency not known'),
                coalesce(v_invoice.currency, 'a currency not known'))
        when not v_source.usable then case v_source.source
            when 'check' then 'it was returned' when 'payment' then 'it failed or was refunded' else 'it is a draft or void' end
        when v_no is not null then format('a person said no: %s', v_no)
        when v_cents > v_source.unapplied_cents then format('%s cents were asked for, and %s cents of it are left', v_cents, v_source.unapplied_cents)
        when v_cents > v_room then format('it is of %s cents, and %s cents of the invoice are open', v_cents, v_room)
        when v_cents <= 0 then case when p_cents is null then 'nothing of it is left, or nothing is open' else format('%s cents are no amount', p_cents) end
        when p_on < greatest(v_source.received_on, v_invoice.issued_on)
            then format('on %s it was not there yet: received %s, issued %s', p_on, v_source.received_on, v_invoice.issued_on)
        when p_on > billing.day_of(backfill.run_time()) then format('%s is still to come', p_on)
        when p_on < v_free_from then format('on %s it paid another invoice: it is free from %s on', p_on, v_free_from)
        when coalesce(p_on, greatest(v_source.received_on, v_invoice.issued_on, v_free_from, v_open_from)) <> v_part_from
            then format('a part of it counts from %s already: take that back, and apply the whole', v_part_from)
    end;
    if v_why is not null then
        raise exception '% % cannot be applied to invoice %: %', v_source.source, v_source.label,
            coalesce(v_invoice.invoice_number, p_invoice::text), v_why using errcode = 'BF033',
            hint = case when v_no is not null then 'select billing.withdraw_refusal(source, invoice, ''why it is so no longer'');'
                else 'select * from billing.source_balances where source_id = ''...''; select * from billing.receivables;' end;
    end if;
    v_opened := backfill.ensure_run(format('%s applied to %s: %s', v_source.source, v_invoice.invoice_number, p_reason),
        jsonb_build_object('source', p_source, 'invoice', p_invoice, 'cents', v_cents, 'reason', p_reason));
    perform billing.record_applications(array[v_source.source], array[p_source], array[p_invoice], array[v_cents], p_reason, p_on);
    delete from billing.check_reference_reviews where check_payment_id = p_source and reference = '';
    if v_opened then
        perform backfill.finish_run();
    end if;
    select a.* into v_made
    from billing.applications as a
    where a.source_id = p_source and a.invoice_id = p_invoice and a.source = v_source.source and a.effective_until is null
    order by a.effective_from desc, a.id
    limit 1;
    return v_made;
end;
$$;

comment on function billing.apply(uuid, uuid, bigint, text, date) is
'Applies so many minor units of a check, payment or credit (an invoice below zero) to an invoice, from the day of the money or of the issue, or on. Null: as
much as both allow. An audited run. Refuses (BF033) another company, customer, facility or currency, more than is left or open, what a person
said no to.';

create function billing.refuse_application(p_source uuid, p_invoice uuid, p_reason text) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_source billing.money_sources;
    v_invoice billing.invoices;
    v_opened boolean;
begin
    perform billing.require_reason('a no', p_reason);
    select * into v_source from billing.money_sources as m where m.source_id = p_source;
    v_invoice := billing.lock_invoice(p_invoice);
    if v_source.source_id is null or v_invoice.id is null then
        raise exception 'there is no check, payment or credit %, or no invoice %', p_source, p_invoice using errcode = 'BF009';
    end if;
    v_opened := backfill.ensure_run(format('%s is not for %s: %s', v_source.source, v_invoice.invoice_number, p_reason),
        jsonb_build_object('source', p_source, 'invoice', p_invoice, 'reason', p_reason));
    insert into billing.application_refusals (company_id, source, source_id, invoice_id, reason)
    values (v_invoice.company_id, v_source.source, p_source, p_invoice, p_reason)
    on conflict (source_id, invoice_id) do update set reason = excluded.reason, withdrawn = null;
    if v_opened then
        perform backfill.finish_run();
    end if;
end;
$$;

comment on function billing.refuse_application(uuid, uuid, text) is
'A person''s no: this check, payment or credit is not for this invoice. It is not due there again, nor allocated, until billing.withdraw_refusal().';

create function billing.withdraw_refusal(p_source uuid, p_invoice uuid, p_reason text) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_opened boolean;
begin
    perform billing.require_reason('withdrawing a no', p_reason);
    perform backfill.take_lock();
    if not exists (
        select from billing.application_refusals where source_id = p_source and invoice_id = p_invoice and withdrawn is null
    ) then
        raise exception 'nobody said no to % for invoice %', p_source, p_invoice using errcode = 'BF009',
            hint = 'select * from billing.application_refusals where withdrawn is null;';
    end if;
    v_opened := backfill.ensure_run(format('a no is withdrawn: %s', p_reason),
        jsonb_build_object('source', p_source, 'invoice', p_invoice, 'reason', p_reason));
    update billing.application_refusals set withdrawn = p_reason where source_id = p_source and invoice_id = p_invoice;
    if v_opened then
        perform backfill.finish_run();
    end if;
end;
$$;

comment on function billing.withdraw_refusal(uuid, uuid, text) is 'Withdraws a no of billing.refuse_application() or billing.unapply().';

create function billing.unapply(p_application uuid, p_reason text, p_on date default null) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_row billing.applications;
    v_number text;
    v_why text;
    v_opened boolean;
begin
    perform billing.require_reason('taking an application back', p_reason);
    select * into v_row from billing.applications as a where a.id = p_application;
    if not found then
        raise exception 'there is no application %', p_application using errcode = 'BF009',
            hint = 'select id, source, invoice_id, amount_cents from billing.applications where effective_until is null;';
    end if;
    v_number := (billing.lock_invoice(v_row.invoice_id)).invoice_number;
    select * into v_row from billing.applications as a where a.id = p_application;
    v_why := case
        when not found then 'it was taken back meanwhile'
        when v_row.source = 'opening' then 'the invoice itself says that it is paid: correct that in the application'
        when v_row.effective_until is not null then format('it ended on %s: %s', v_row.effective_until, v_row.ended_reason)
        when p_on < v_row.effective_from then format('it counts from %s, and cannot end on %s', v_row.effective_from, p_on)
        when p_on > billing.day_of(backfill.run_time()) then format('%s is still to come', p_on)
    end;
    if v_why is not null then
        raise exception 'the application of a % to invoice % cannot be taken back: %', v_row.source, v_number, v_why using errcode = 'BF033';
    end if;
    v_opened := backfill.ensure_run(format('%s taken back from %s: %s', v_row.source, v_number, p_reason),
        jsonb_build_object('application', p_application, 'reason', p_reason, 'on', p_on));
    perform billing.end_applications(array[p_application], p_reason, p_on);
    if v_row.source <> 'write-off' then
        perform billing.refuse_application(v_row.source_id, v_row.invoice_id, p_reason);
    end if;
    if v_opened then
        perform backfill.finish_run();
    end if;
end;
$$;

comment on function billing.unapply(uuid, text, date) is
'Takes one row of billing.applications back: it stays, and ends on a day (default: the day from which it counted, so that it never did). Money that is taken
back is not due to this invoice again until billing.withdraw_refusal(). An audited run. Refuses (BF033) a day before it counted or still to come.';
