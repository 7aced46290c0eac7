do $do$
begin
    if (select rolsuper from pg_roles where rolname = current_user) and exists (select from pg_roles where rolname = 'backfill_owner') then
        execute format('reassign owned by backfill_owner to %I', current_user);
        execute format('revoke temporary on database %I from backfill_owner', current_database());
    end if;
    perform backfill.revoke_from('backfill_auditor', 'select on backfill.trusted_owner');
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.engine_owner(), backfill.is_own(xid), '
        'backfill.fires_for_another(), backfill.is_strange(oid, name)');
    delete from backfill.trusted_owner;
end;
$do$;
drop function backfill.hand_over(boolean);
drop function backfill.to_hand_over(boolean);
drop table backfill.trusted_owner;
drop function backfill.welcome_owner();
drop function backfill.is_strange(oid, name);
drop function backfill.fires_for_another();
drop function backfill.engine_owner();
-- The role belongs to the whole cluster: it goes only when no database needs it any more.
do $$
begin
    drop role if exists backfill_owner;
exception
    when dependent_objects_still_exist or insufficient_privilege or object_in_use then
        raise notice 'role backfill_owner stays: %', sqlerrm;
end;
$$;
