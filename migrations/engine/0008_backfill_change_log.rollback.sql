drop view backfill.change_log;
drop function backfill.written_tables(uuid);
drop function backfill.rebind_tracked();
drop function backfill.found_again(backfill.tracked, oid);
drop function backfill.rebuild_change_log(boolean);
drop function backfill.change_log_query(boolean);
drop function backfill.written_tables_body();
drop function backfill.rebuild_images(backfill.tracked);
drop function backfill.images_query(backfill.tracked);
