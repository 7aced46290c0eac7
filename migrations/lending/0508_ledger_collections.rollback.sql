drop function ledger.record_payment_chargeback(uuid);
drop function ledger.record_payment_collection(uuid, timestamptz);
drop function ledger.transaction_id(text);
drop view ledger.collection_legs;
