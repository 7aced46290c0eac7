-- The roles belong to the whole cluster: they go only when no database needs them any more.
drop function backfill.drop_baseline(text);
drop function backfill.create_baseline(text, text, jsonb, boolean);
drop table backfill.baseline;
drop table backfill.migration_checksum;
drop function backfill.require_columns(text, jsonb, boolean);
drop function backfill.business_id(text[]);
drop function backfill.grant_to(name, text);
drop schema backfill_audit;
drop schema backfill;
do $$
begin
    if to_regclass('_yoyo_migration') is not null and exists (select from pg_roles where rolname = 'backfill_auditor') then
        revoke select on _yoyo_migration from backfill_auditor;
    end if;
    drop role if exists backfill_operator;
    drop role if exists backfill_auditor;
exception
    when dependent_objects_still_exist or insufficient_privilege or object_in_use then
        raise notice 'roles backfill_operator and backfill_auditor stay: %', sqlerrm;
end;
$$;
