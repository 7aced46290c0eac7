-- The engine's schemas and roles, and the helpers that every later migration calls.
-- Safe: it only creates objects of its own. Where the right to create roles is missing (managed
-- servers) it goes on without them, and every grant below is then left out.

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
            using hint = 'Ask for CREATEROLE, or create both roles by hand and apply the grants of docs/operations.md.';
    when duplicate_object or unique_violation then
        raise notice 'roles backfill_operator and backfill_auditor are being created by another session';
end;
$$;

create function backfill.grant_to(p_role name, p_privileges text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from pg_roles where rolname = p_role) then
        execute format('grant %s to %I', p_privileges, p_role);
    end if;
end;
$$;

comment on function backfill.grant_to(name, text) is
'Grants privileges (the text between GRANT and TO) to a role, or does nothing where the role is missing.';

-- Its body is bound when it is created, so that no search_path matters; STABLE, because only then may the
-- planner put it into the query: called as a function it would cost as much as the insert itself.
create function backfill.business_id(variadic p_parts text[]) returns uuid
language sql stable parallel safe
security invoker
-- Bytes 6 and 8 begin with version 8 and variant 10; setting them whole is quicker than setting half of them.
return encode(set_byte(set_byte(substring(
    sha256(convert_to(array_to_string(p_parts, chr(31), chr(30)), 'UTF8')) from 1 for 16
), 6, 134), 8, 134), 'hex')::uuid;

comment on function backfill.business_id(text[]) is
'UUIDv8 of the sha256 of a business key: the same row has the same id in a rehearsal, the apply and any environment.';

create function backfill.require_columns(
    p_relation text, p_columns jsonb, p_writable boolean default false
) returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_misfits text;
begin
    if to_regclass(p_relation) is null then
        raise exception 'table % does not exist', p_relation
            using errcode = 'BF006', hint = 'Create it, or name the right database.';
    end if;
    select string_agg(x.misfit, '; ' order by x.misfit) into v_misfits
    from (
        select case
            when a.attname is null then format('column %s is missing (wanted: %s)', e.key, e.value)
            else format('column %s is %s (wanted: %s)', e.key, format_type(a.atttypid, null), e.value)
        end as misfit
        from jsonb_each_text(p_columns) as e
        left join pg_attribute as a
            on a.attrelid = to_regclass(p_relation) and a.attname = e.key and not a.attisdropped
        where a.attname is null
            or format_type(a.atttypid, null) <> all (string_to_array(e.value, '|'))
        union all
        select format('column %s is NOT NULL without a default, and no backfill fills it', a.attname)
        from pg_attribute as a
        where p_writable and a.attrelid = to_regclass(p_relation) and a.attnum > 0 and not a.attisdropped
            and a.attnotnull and not a.atthasdef and a.attidentity = ''
            and not p_columns ? a.attname::text
    ) as x;
    if v_misfits is not null then
        raise exception 'table % does not fit: %', p_relation, v_misfits
            using errcode = 'BF006',
                hint = 'Nothing was written. Alter the column to a type that fits, or give it a default.';
    end if;
end;
$$;

comment on function backfill.require_columns(text, jsonb, boolean) is
'Refuses (BF006), naming every misfit, unless the table has these columns: {"column": "type|other type"}.
Writable: no other column may be NOT NULL without a default.';

create table backfill.migration_checksum (
    migration_id text primary key,
    sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    applied_at timestamptz not null default now()
);

comment on table backfill.migration_checksum is
'The content of every applied migration: yoyo itself hashes only the file''s name.';
comment on column backfill.migration_checksum.migration_id is 'The file''s name without its ending, as yoyo keeps it.';
comment on column backfill.migration_checksum.sha256 is 'sha256 of the file as it was applied.';
comment on column backfill.migration_checksum.applied_at is 'When it was applied.';

create table backfill.baseline (
    relation text primary key,
    created_at timestamptz not null default now()
);

comment on table backfill.baseline is
'Tables that a baseline migration had to create; a rollback drops only these, and only while they are empty.';
comment on column backfill.baseline.relation is 'Schema-qualified name of the table.';
comment on column backfill.baseline.created_at is 'When the baseline created it.';

create function backfill.create_baseline(
    p_relation text, p_definition text, p_columns jsonb, p_writable boolean default false
) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regclass(p_relation) is null then
        execute format('create table %s (%s)', p_relation, p_definition);
        insert into backfill.baseline (relation) values (p_relation);
    end if;
    perform backfill.require_columns(p_relation, p_columns, p_writable);
end;
$$;

comment on function backfill.create_baseline(text, text, jsonb, boolean) is
'Creates a table of the application where it is missing; where it exists, only checks that its columns fit.';

create function backfill.drop_baseline(p_relation text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_rows boolean;
begin
    if not exists (select from backfill.baseline where relation = p_relation) then
        raise notice 'table % was here before the baseline: it stays', p_relation;
        return;
    end if;
    if to_regclass(p_relation) is not null then
        execute format('select exists (select from %s)', p_relation) into v_rows;
        if v_rows then
            raise notice 'table % holds rows: it stays', p_relation;
            return;
        end if;
        execute format('drop table %s', p_relation);
    end if;
    delete from backfill.baseline where relation = p_relation;
end;
$$;

comment on function backfill.drop_baseline(text) is
'Drops a table that a baseline created, unless it holds rows; a table that was there before stays.';

revoke execute on all functions in schema backfill from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'usage on schema backfill');
    perform backfill.grant_to('backfill_auditor', 'usage on schema backfill_audit');
    perform backfill.grant_to('backfill_auditor', 'select on backfill.migration_checksum');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.business_id(text[])');
    -- Whoever runs backfills asks first whether a migration is pending.
    perform backfill.grant_to('backfill_auditor', format('select on %I.%I', n.nspname, c.relname))
    from pg_class as c inner join pg_namespace as n on c.relnamespace = n.oid
    where c.oid = to_regclass('_yoyo_migration');
end;
$do$;
