-- The engine's schemas and roles, and the one way in which anything is granted.
-- Safe: it only creates objects of its own. Where the right to create roles is missing (managed
-- servers) it goes on without them, and every grant waits in backfill.privilege until they are there.

create schema backfill;

comment on schema backfill is
'Backfills: catalog, log, changes, rejects, due views and functions. Start with: select * from backfill.due();';

create schema backfill_audit;

comment on schema backfill_audit is
'Packed change images, one table for each tracked table. Read them through backfill.change_log.';

do $$
begin
    if not exists (select from pg_roles where rolname = 'backfill_auditor') then
        create role backfill_auditor nologin;
        comment on role backfill_auditor is 'May read the log, the changes and the due views of backfills.';
    end if;
    if not exists (select from pg_roles where rolname = 'backfill_operator') then
        create role backfill_operator nologin in role backfill_auditor;
        comment on role backfill_operator is 'May run and reverse backfills through their functions.';
    end if;
exception
    when insufficient_privilege then
        raise notice 'roles backfill_operator and backfill_auditor were not created: %', sqlerrm
            using hint = 'Ask for CREATEROLE, or have both roles created, the operator in the auditor, and then: select backfill.regrant();';
    when duplicate_object or unique_violation then
        raise notice 'roles backfill_operator and backfill_auditor are being created by another session';
end;
$$;

create table backfill.privilege (
    role name not null,
    privileges text not null,
    granted_at timestamptz,
    primary key (role, privileges)
);

comment on table backfill.privilege is
'What grant_to() granted, one object a row, kept so that backfill.regrant() can grant it to a role that came later.';
comment on column backfill.privilege.role is 'To whom; the role need not be there.';
comment on column backfill.privilege.privileges is 'What and on which object: the text between GRANT and TO.';
comment on column backfill.privilege.granted_at is 'When it was last granted; null = not yet, because the role was missing.';

create function backfill.single_privileges(p_privileges text) returns setof text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_what text := substr(p_privileges, 1, strpos(p_privileges, ' on ') + 3);
    v_of text[] := regexp_match(substr(p_privileges, length(v_what) + 1), '^((?:function|schema|table) )?(.+)$');
    v_all text[] := regexp_match(p_privileges, '^([a-z, ]+) on all (tables|functions) in schema (.+)$');
    v_schemas regnamespace[] := regexp_split_to_array(v_all[3], ', *')::regnamespace[];
begin
    if p_privileges !~ ' on ' then  -- a role
        return next p_privileges;
    elsif v_all is null then  -- a comma between parentheses parts arguments or columns; one between quotes is of a name
        return query select v_what || coalesce(v_of[1], '') || x[1]
            from regexp_matches(v_of[2], '((?:"(?:[^"]|"")*"|[(](?:"(?:[^"]|"")*"|[^)"])*[)]|[^,"(])+)(?:, *|$)', 'g') as x;
    elsif v_all[2] = 'tables' then
        return query select format('%s on %s', v_all[1], c.oid::regclass)
            from pg_class as c where c.relnamespace = any (v_schemas) and c.relkind in ('r', 'p', 'v', 'm', 'f');
    else
        return query select format('%s on function %s', v_all[1], f.oid::regprocedure)
            from pg_proc as f where f.pronamespace = any (v_schemas) and f.prokind <> 'p';
    end if;
end;
$$;

comment on function backfill.single_privileges(text) is
'Takes the text between GRANT and TO apart, one object each; "all ... in schema" is what is there now, and not what comes later.';

create function backfill.grant_to(p_role name, p_privileges text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_there boolean := exists (select from pg_roles where rolname = p_role);
    v_one text;
begin
    for v_one in select x from backfill.single_privileges(p_privileges) as x loop
        if v_there then
            execute format('grant %s to %I', v_one, p_role);
        end if;
        insert into backfill.privilege (role, privileges, granted_at)
        values (p_role, v_one, case when v_there then now() end)
        on conflict (role, privileges) do update
        set granted_at = coalesce(excluded.granted_at, privilege.granted_at);
    end loop;
end;
$$;

comment on function backfill.grant_to(name, text) is
'Grants privileges (the text between GRANT and TO) to a role and keeps them in backfill.privilege; where the role is missing it
only keeps them, for regrant().';

create function backfill.revoke_from(p_role name, p_privileges text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_one text;
begin
    for v_one in select x from backfill.single_privileges(p_privileges) as x loop
        if exists (select from pg_roles where rolname = p_role) then
            begin
                execute format('revoke %s from %I', v_one, p_role);
            exception
                when undefined_table or undefined_function or undefined_column or undefined_object or invalid_schema_name then
                    null;  -- gone, and its privileges with it
            end;
        end if;
        delete from backfill.privilege where role = p_role and privileges = v_one;
    end loop;
end;
$$;

comment on function backfill.revoke_from(name, text) is
'Takes back what grant_to() granted, and keeps it no longer: for rollbacks. Does nothing where role or object are missing.';

create function backfill.regrant() returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_privilege backfill.privilege;
    v_waiting record;
    v_granted integer := 0;
begin
    for v_privilege in
        select p.* from backfill.privilege as p inner join pg_roles as r on r.rolname = p.role order by p.role, p.privileges
    loop
        begin
            execute format('grant %s to %I', v_privilege.privileges, v_privilege.role);
            update backfill.privilege set granted_at = now() where role = v_privilege.role and privileges = v_privilege.privileges;
            v_granted := v_granted + 1;
        exception
            when undefined_table or undefined_function or undefined_column or undefined_object or invalid_schema_name then
                raise notice '% to %: kept no longer, %', v_privilege.privileges, v_privilege.role, sqlerrm;
                delete from backfill.privilege where role = v_privilege.role and privileges = v_privilege.privileges;
        end;
    end loop;
    for v_waiting in
        select p.role, count(*) as n from backfill.privilege as p
        where not exists (select from pg_roles where rolname = p.role) group by p.role order by p.role
    loop
        raise notice 'role % is not there: % privileges wait for it', v_waiting.role, v_waiting.n;
    end loop;
    return v_granted;
end;
$$;

comment on function backfill.regrant() is
'Grants anew all that is kept in backfill.privilege, for roles that were created after the migrations, and says how many. For
the owner alone. What is kept of an object that is gone is forgotten, with a notice.';
