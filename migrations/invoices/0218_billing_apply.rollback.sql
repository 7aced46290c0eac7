drop function billing.unapply(uuid, text, date);
drop function billing.withdraw_refusal(uuid, uuid, text);
drop function billing.refuse_application(uuid, uuid, text);
drop function billing.apply(uuid, uuid, bigint, text, date);
drop function billing.lock_invoice(uuid);
drop function billing.require_reason(text, text);
