do $do$
declare
    v_table record;
    v_role text;
begin
    perform backfill.unregister_check('policies');
    perform count(*) from billing.disable_rls();
    foreach v_role in array array['billing_tenant', 'billing_service', 'billing_readonly'] loop
        for v_table in select * from billing.policy_tables() loop
            execute format('drop policy if exists %I on %s', v_role, v_table.table_name);
            if exists (select from pg_roles where rolname = v_role) then
                execute format('revoke all on %s from %I', v_table.table_name, v_role);
            end if;
        end loop;
    end loop;
end;
$do$;
drop function billing.disable_rls();
drop function billing.enable_rls();
drop function billing.prepare_rls();
drop function billing.policies_check();
drop function billing.policy_tables();
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
