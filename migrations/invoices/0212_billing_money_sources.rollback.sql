drop view billing.check_balances;
drop view billing.source_balances;
drop function billing.balances_of_sources(uuid[]);
drop view billing.money_sources;
