drop function backfill.prove_transaction();
drop function backfill.uncaptured_rows(backfill.run_transaction, backfill.tracked);
drop function backfill.altered_tables(backfill.run_transaction);
