drop function backfill.defer_constraints();
drop function backfill.retype_images(backfill.tracked, integer, text, text);
drop function backfill.run_totals(uuid);
drop function backfill.undone_rows(uuid);
drop function backfill.undo_at_once(uuid, backfill.tracked);
drop function backfill.may_undo_at_once(uuid, backfill.tracked);
