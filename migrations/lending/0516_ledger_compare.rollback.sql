drop function ledger.verify_findings(uuid);
drop function ledger.take_formance_transactions(uuid, jsonb);
drop function ledger.begin_verify();
drop table staging.formance_transaction;
