drop view ledger.running_balance;
drop function ledger.balances(timestamptz);
