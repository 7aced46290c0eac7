-- Row-level security of billing: roles and policies are prepared, and not enabled.
-- Safe: a policy does nothing until row level security is switched on for its table: billing.enable_rls(); until then a tenant,
-- whom nothing would hold, is granted nothing.
-- depends: 0411_billing_foreign_keys

create function billing.current_company() returns uuid
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select nullif(current_setting('billing.company_id', true), '')::uuid;
$$;

comment on function billing.current_company() is
'The company that the session works for: set local billing.company_id = ''...''. Null = none, and no rows.';

do $$
declare
    v_role record;
begin
    for v_role in
        select * from (values
            ('billing_tenant', 'Sees and writes the rows of one company: set local billing.company_id.'),
            ('billing_service', 'The application''s own services: all companies.'),
            ('billing_readonly', 'Reports: reads all companies.')
        ) as r (name, description)
    loop
        begin
            if not exists (select from pg_roles where rolname = v_role.name) then
                execute format('create role %I nologin', v_role.name);
                execute format('comment on role %I is %L', v_role.name, v_role.description);
            end if;
        exception
            when insufficient_privilege then
                raise notice 'role % was not created: %', v_role.name, sqlerrm;
            when duplicate_object or unique_violation then
                raise notice 'role % is being created by another session', v_role.name;
        end;
    end loop;
end;
$$;

create function billing.policy_tables() returns table (table_name text, company_column text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select format('%I.%I', n.nspname, c.relname), case when c.relname = 'companies' then 'id' else 'company_id' end
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace and n.nspname = 'billing'
    where c.relkind = 'r' and (c.relname = 'companies' or exists (
        select from pg_attribute as a where a.attrelid = c.oid and a.attname = 'company_id' and not a.attisdropped))
    order by 1;
$$;

comment on function billing.policy_tables() is 'Tables of billing that belong to a company, and the column that says to which.';

create function billing.prepare_rls() returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table record;
    v_policy record;
begin
    for v_table in
        select t.*, c.relrowsecurity as enabled from billing.policy_tables() as t join pg_class as c on c.oid = t.table_name::regclass
    loop
        for v_policy in
            select p.* from (values
                ('billing_tenant', 'all', format('%I = (select billing.current_company())', v_table.company_column),
                    -- Before a policy holds, he would see and write the rows of everybody.
                    case when v_table.enabled then 'select, insert, update' end),
                ('billing_service', 'all', 'true', 'select, insert, update, delete'),
                ('billing_readonly', 'select', 'true', 'select')
            ) as p (role, command, condition, grants)
            join pg_roles as r on r.rolname = p.role
        loop
            execute format('drop policy if exists %I on %s', v_policy.role, v_table.table_name);
            execute format('create policy %I on %s for %s to %I using (%s)%s', v_policy.role, v_table.table_name,
                v_policy.command, v_policy.role, v_policy.condition,
                case when v_policy.command = 'all' then format(' with check (%s)', v_policy.condition) else '' end);
            if v_policy.grants is not null then
                execute format('grant %s on %s to %I', v_policy.grants, v_table.table_name, v_policy.role);
            end if;
        end loop;
    end loop;
end;
$$;

comment on function billing.prepare_rls() is
'Writes the policies of billing_tenant, billing_service and billing_readonly on every table of billing, and the grants of those that
they do not hold; a tenant''s where row level security is on. Again after a table was added: harmless. Enables nothing.';

create function billing.enable_rls() returns setof text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
    v_table record;
begin
    perform billing.prepare_rls();
    for v_table in select * from billing.policy_tables() loop
        if not exists (select from pg_policy where polrelid = v_table.table_name::regclass) then
            raise exception 'table % has no policy: enabling row level security would hide all of it', v_table.table_name
                using errcode = 'BF035', hint = 'Create the roles billing_tenant, billing_service and billing_readonly first.';
        end if;
        execute format('alter table %s enable row level security', v_table.table_name);
        return next v_table.table_name;
    end loop;
    perform billing.prepare_rls();
    perform backfill.grant_to('billing_tenant', 'usage on schema billing');
    perform backfill.grant_to('billing_tenant', 'execute on function billing.current_company()');
end;
$$;

comment on function billing.enable_rls() is
'Switches row level security on for every table of billing, all or none, and then grants them to billing_tenant; the owner is not
held by it. For the owner of the tables. Returns the tables.';

create function billing.disable_rls() returns setof text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
    v_table record;
begin
    perform backfill.revoke_from('billing_tenant', 'execute on function billing.current_company()');
    perform backfill.revoke_from('billing_tenant', 'usage on schema billing');
    for v_table in select * from billing.policy_tables() loop
        if exists (select from pg_roles where rolname = 'billing_tenant') then  -- whom nothing would hold from here on
            execute format('revoke all on %s from billing_tenant', v_table.table_name);
        end if;
        execute format('alter table %s disable row level security', v_table.table_name);
        return next v_table.table_name;
    end loop;
end;
$$;

comment on function billing.disable_rls() is 'Switches row level security off again, and takes from billing_tenant what enable_rls() granted; the policies stay prepared.';

create function billing.policies_check() returns table (passed boolean, finding text, way_out text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select p.oid is not null, case when p.oid is null then format('table %s has no policy', t.table_name)
        else format('table %s has its policies', t.table_name) end, 'select billing.prepare_rls();'
    from billing.policy_tables() as t
    left join lateral (select oid from pg_policy where polrelid = t.table_name::regclass limit 1) as p on true
    order by t.table_name;
$$;

comment on function billing.policies_check() is 'Promotion check: row-level security is prepared on every table of billing.';

do $do$
begin
    perform billing.prepare_rls();
    perform backfill.register_check('policies', 'reconciliation', 400, 'billing.policies_check');
end;
$do$;
