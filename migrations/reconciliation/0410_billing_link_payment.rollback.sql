drop function billing.link_payment(uuid, uuid, text);
