do $do$
begin
    perform backfill.untrack('staging.file');
    if exists (select from pg_roles where rolname = 'backfill_operator') then
        revoke insert on backfill.reject from backfill_operator;
    end if;
end;
$do$;
drop function staging.forget_files(text, text[]);
drop function staging.analyze_tables(regclass[]);
drop function backfill.ensure_run(text, jsonb);
drop function backfill.note_action(jsonb);
drop table staging.file;
drop schema staging;
