do $do$
begin
    perform backfill.untrack('staging.file');
end;
$do$;
drop function staging.analyze_tables(regclass[]);
drop function backfill.ensure_run(text, jsonb);
drop table staging.file;
drop schema staging;
