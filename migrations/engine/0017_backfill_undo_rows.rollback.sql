drop function backfill.put_triggers(regclass);
drop function backfill.trigger_statements(regclass);
drop function backfill.fire_waiting(regclass, text);
drop function backfill.write_as_application(text[], text, text);
drop function backfill.undo_parts(uuid, backfill.tracked, text, text, text, boolean, boolean);
drop function backfill.may_rewrite(text[]);
drop function backfill.undo_statement(uuid, backfill.tracked, text, text, text, text, boolean);
