drop function backfill.add_images(backfill.tracked, text);
drop function backfill.make_rows(backfill.tracked);
drop function backfill.reverse_run(uuid, text);
drop function backfill.undo_run(uuid, text);
drop function backfill.undo_by_rows(uuid);
drop function backfill.finish_reversal(backfill.backfill_log, uuid, jsonb);
