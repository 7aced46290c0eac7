do $do$
declare
    v_table record;
    v_role text;
begin
    perform count(*) from backfill.disable_rls();
    foreach v_role in array array['billing_tenant', 'billing_service', 'billing_readonly'] loop
        for v_table in select * from backfill.policy_tables() loop
            execute format('drop policy if exists %I on %s', v_role, v_table.table_name);
            if exists (select from pg_roles where rolname = v_role) then
                execute format('revoke all on %s from %I', v_table.table_name, v_role);
            end if;
        end loop;
        if exists (select from pg_roles where rolname = v_role) then
            execute format('revoke usage on schema billing from %I', v_role);
        end if;
    end loop;
end;
$do$;
drop function backfill.disable_rls();
drop function backfill.enable_rls();
drop function backfill.prepare_rls();
drop function backfill.policy_tables();
drop function billing.current_company();
-- The roles belong to the whole cluster: they go only when no database needs them any more.
do $$
begin
    drop role if exists billing_tenant;
    drop role if exists billing_service;
    drop role if exists billing_readonly;
exception
    when dependent_objects_still_exist or insufficient_privilege or object_in_use then
        raise notice 'roles billing_tenant, billing_service and billing_readonly stay: %', sqlerrm;
end;
$$;
