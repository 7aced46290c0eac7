drop function backfill.wrong_views();
drop function backfill.is_view_of(text, text);
drop function backfill.wrong_tables();
drop function backfill.wrong_guards();
drop function backfill.wrong_captures();
drop function backfill.seal_engine(text);
drop function backfill.changed_since_seal(boolean);
drop function backfill.sealed();
drop function backfill.definitions();
