drop view billing.check_balances;
drop view billing.source_balances;
drop view billing.money_sources;
drop view billing.applications;
drop view billing.invoice_balances;
drop function billing.balances_as_of(date, uuid[]);
drop view billing.application_rows;
drop index billing.payments_invoice;
drop function billing.day_of(timestamptz);
