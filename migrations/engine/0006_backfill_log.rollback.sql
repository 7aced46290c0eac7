drop function backfill.fire_constraints();
drop function backfill.mend_tracked();
drop function backfill.tables_to_mend();
-- That the log holds no runs was seen to by the rollback of 0011.
drop table backfill.reject;
drop function backfill.is_linked(text);
drop table backfill.run_transaction;
drop sequence backfill_audit.statement_no;
drop table backfill.backfill_log;
drop function backfill.guard_commit();
drop function backfill.guard_log();
