-- The roles belong to the whole cluster: they go only when no database needs them any more.
drop function backfill.regrant();
drop function backfill.revoke_from(name, text);
drop function backfill.grant_to(name, text);
drop function backfill.single_privileges(text);
drop table backfill.privilege;
drop schema backfill_audit;
drop schema backfill;
do $$
begin
    drop role if exists backfill_operator;
    drop role if exists backfill_auditor;
exception
    when dependent_objects_still_exist or insufficient_privilege or object_in_use then
        raise notice 'roles backfill_operator and backfill_auditor stay: %', sqlerrm;
end;
$$;
