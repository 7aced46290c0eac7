-- billing.link_payment(): a person's decision on a payment under review.
-- Safe: a function only; it writes invoice_id of a payment that has none, as a run.
-- depends: 0409_backfill_payment_links

create function billing.link_payment(p_payment uuid, p_invoice uuid, p_reason text) returns billing.payments
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment billing.payments;
    v_invoice billing.uncovered_invoices;
    v_why text;
    v_opened boolean;
begin
    if btrim(coalesce(p_reason, '')) = '' then
        raise exception 'linking payment % needs a reason', p_payment using errcode = 'BF033',
            hint = 'select billing.link_payment(payment, invoice, ''why it is this one'');';
    end if;
    perform backfill.take_lock();
    select * into v_payment from billing.payments where id = p_payment for update;
    if not found then
        raise exception 'there is no payment %', p_payment using errcode = 'BF009', hint = 'select * from billing.payment_review;';
    elsif v_payment.invoice_id = p_invoice then
        return v_payment;
    end if;
    perform from billing.invoices where id = p_invoice for update;  -- two payments at once must not exceed it together
    select * into v_invoice from billing.uncovered_invoices where invoice_id = p_invoice;
    v_why := case
        when v_invoice.invoice_id is null then 'there is no such invoice, or it is a draft or void'
        when v_payment.invoice_id is not null then format('it is linked to invoice %s already; reverse that run first', v_payment.invoice_id)
        when v_payment.status not in ('pending', 'succeeded') then format('it is %s', v_payment.status)
        when v_payment.company_id <> v_invoice.company_id then 'they belong to two companies'
        when v_payment.customer_id <> v_invoice.customer_id then 'they belong to two customers'
        when v_payment.currency is distinct from v_invoice.currency
            then format('it is in %s, the invoice in %s', v_payment.currency, coalesce(v_invoice.currency, 'a currency not known'))
        when v_payment.amount_cents > v_invoice.uncovered_cents
            then format('it is of %s cents, and %s cents of the invoice are open', v_payment.amount_cents, v_invoice.uncovered_cents)
    end;
    if v_why is not null then
        raise exception 'payment % cannot be linked to invoice %: %', p_payment, coalesce(v_invoice.invoice_number, p_invoice::text), v_why
            using errcode = 'BF033', hint = 'select * from billing.payment_review where payment_id = ''...'' order by rank;';
    end if;
    v_opened := backfill.ensure_run(format('payment linked to %s: %s', v_invoice.invoice_number, p_reason),
        jsonb_build_object('payment', p_payment, 'invoice', p_invoice, 'reason', p_reason));
    update billing.payments set invoice_id = p_invoice where id = p_payment returning * into v_payment;
    if v_opened then
        perform backfill.finish_run();
    end if;
    return v_payment;
end;
$$;

comment on function billing.link_payment(uuid, uuid, text) is
'Links a payment to an invoice by a person''s decision, as an audited run that can be reversed. Again with the same invoice: a
no-op. Refuses (BF033) another company, customer or currency, a draft or void invoice, and more than is open.';
