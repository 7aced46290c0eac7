drop trigger refuse_second_invoice on backfill.backfill_log;
drop function billing.refuse_second_by_reversal();
drop view billing.invoice_faults;
