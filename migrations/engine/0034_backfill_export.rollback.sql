drop function backfill.export_run(uuid, text, text, text);
drop function backfill.begin_evidence(text);
drop function backfill.check_export(backfill.chain);
drop function backfill.file_images(jsonb);
drop function backfill.take_export(text[]);
drop function backfill.export_lines(uuid);
drop function backfill.exportable_runs(timestamptz);
drop function backfill.lift_guard(regclass, boolean);
