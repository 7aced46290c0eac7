drop view billing.payment_candidates;
drop view billing.uncovered_invoices;
