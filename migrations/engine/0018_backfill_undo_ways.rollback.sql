drop function backfill.stamped_anew(uuid, text[]);
drop function backfill.refuse_strangers(uuid, text[]);
drop function backfill.refuse_different(uuid, backfill.tracked, text[]);
drop function backfill.acting_triggers(text[]);
drop function backfill.undo_rows_of(uuid, backfill.tracked[], text);
drop function backfill.undo_together(uuid, backfill.tracked[], boolean);
drop function backfill.undo_apart(uuid, backfill.tracked[]);
drop function backfill.different_rows(uuid, backfill.tracked);
