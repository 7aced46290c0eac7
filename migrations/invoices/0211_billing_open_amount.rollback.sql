drop view billing.applications;
drop view billing.invoice_balances;
drop function billing.balances_as_of(date, uuid[]);
