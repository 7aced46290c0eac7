drop function backfill.generate_capture(backfill.tracked);
drop function backfill.capture_body(backfill.tracked, text);
drop function backfill.tables_by_path();
drop function backfill.triggers_of_application(oid);
drop function backfill.use_path();
drop function backfill.next_statement();
drop function backfill.refuse_names();
drop function backfill.refuse_no_run();
drop function backfill.open_run();
