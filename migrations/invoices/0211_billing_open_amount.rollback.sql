drop view billing.source_balances;
drop function billing.balances_of_sources(uuid[]);
drop view billing.money_sources;
drop view billing.applications;
drop view billing.invoice_balances;
drop function billing.balances_as_of(date, uuid[]);
