drop view billing.payment_candidates;
drop function billing.uncovered_now();
drop function billing.unlinked_payments(timestamptz);
drop view billing.uncovered_invoices;
