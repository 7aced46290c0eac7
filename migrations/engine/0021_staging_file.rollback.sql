do $do$
begin
    perform backfill.untrack('staging.file');
end;
$do$;
drop function staging.analyze_tables(regclass[]);
drop function staging.forget_files(text, text[]);
drop function backfill.keep_rejects(jsonb);
drop function staging.land_files(text, jsonb);
drop view staging.file_in_flight;
drop table staging.file;
drop function backfill.require_load(text);
do $do$
begin
    perform backfill.drop_baseline_schema('staging');
end;
$do$;
