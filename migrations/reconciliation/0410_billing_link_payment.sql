-- billing.link_payment(): a person's decision on a payment under review.
-- Safe: a function only; it writes as billing.apply() does, as a run.
-- depends: 0409_backfill_payment_links

create function billing.link_payment(p_payment uuid, p_invoice uuid, p_reason text) returns billing.payments
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment billing.payments;
begin
    perform billing.require_reason(format('linking payment %s', p_payment), p_reason);
    perform backfill.take_lock();
    select * into v_payment from billing.payments where id = p_payment;
    if not found then
        raise exception 'there is no payment %', p_payment using errcode = 'BF009', hint = 'select * from billing.payment_review;';
    end if;
    if not exists (
        select from billing.application_rows as r
        where r.source_id = p_payment and r.invoice_id = p_invoice and r.source = 'payment' and r.effective_until is null
    ) then
        perform billing.apply(p_payment, p_invoice, null, p_reason);
        select * into v_payment from billing.payments where id = p_payment;
    end if;
    return v_payment;
end;
$$;

comment on function billing.link_payment(uuid, uuid, text) is
'Applies as much of a payment to an invoice as both allow, by a person''s decision: billing.apply() without an amount. What is left is the customer''s
credit. Again with the same invoice: a no-op. An audited run that can be reversed.';
