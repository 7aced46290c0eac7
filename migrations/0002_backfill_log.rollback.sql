-- That the log holds no runs was seen to by the rollback of 0003.
drop table backfill.tracked;
drop table backfill.reject;
drop table backfill.backfill_log;
drop function backfill.refuse_unfinished();
drop function backfill.guard_log();
drop function backfill.refuse_change();
drop table backfill.catalog;
