drop function backfill.drawn_values(uuid[]);
drop function backfill.run_time();
drop function backfill.run_assigned(uuid);
drop function backfill.held_keys(backfill.backfill_log, backfill.tracked);
drop function backfill.assigned_keys(backfill.tracked);
