drop function billing.correct_invoice(uuid, jsonb, text, text);
drop function billing.covered_cents(uuid);
drop function billing.end_action(boolean, text, billing.invoices);
drop function billing.begin_action(text, uuid, text, jsonb);
