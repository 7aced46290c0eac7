drop function backfill.refuse_children(uuid, backfill.tracked, text);
drop function backfill.refuse_conflicts(uuid, backfill.tracked, text);
drop function backfill.stamping_hint(backfill.tracked, text[], boolean);
drop function backfill.refuse_unfit(uuid, backfill.tracked, text);
drop function backfill.later_runs(uuid, backfill.tracked, text);
