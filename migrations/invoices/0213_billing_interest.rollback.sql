drop function billing.accrue_invoice_interest(uuid, date);
drop function billing.accrue_overdue_interest(date);
drop function billing.write_interest(date, uuid);
drop view billing.receivables;
