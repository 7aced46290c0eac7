-- What was done to this database: versions of the engine, the content of its migrations, and the tables and columns
-- of the application that a baseline had to create. Beside it: where a history ends (as-of), and whether an index is there.
-- Safe: new tables and functions; nothing of an application is touched before a later migration calls them.
-- depends: 0003_backfill_money

create table backfill.version (
    version text primary key check (version ~ '^[0-9]+[.][0-9]+[.][0-9]+$'),
    installed_at timestamptz not null default clock_timestamp()
);

comment on table backfill.version is
'Versions of the engine that this database went through; the latest is the one in force. A runner of another major version refuses.';
comment on column backfill.version.version is 'major.minor.patch, as the project''s releases are numbered.';
comment on column backfill.version.installed_at is 'When its migrations were applied.';

insert into backfill.version (version) values ('0.2.0');

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
'Schemas, tables and columns that a baseline migration had to create; a rollback drops only these, and only while they are empty.';
comment on column backfill.baseline.relation is 'Schema-qualified name of the table, or that and the column, or "schema" and its name.';
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
    else
        perform backfill.refuse_untrusted(array[to_regclass(p_relation)]);
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

create function backfill.create_baseline_column(
    p_relation text, p_column text, p_type text, p_default text default null
) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from pg_attribute where attrelid = p_relation::regclass and attname = p_column and not attisdropped
    ) then
        perform backfill.refuse_untrusted(array[p_relation::regclass]);
        execute format('alter table %s add column %I %s', p_relation::regclass, p_column, p_type);
        if p_default is not null then  -- apart from the column: what is there stays null
            execute format('alter table %s alter column %I set default %s', p_relation::regclass, p_column, p_default);
        end if;
        insert into backfill.baseline (relation) values (format('%s.%s', p_relation, p_column));
    end if;
    perform backfill.require_columns(p_relation, jsonb_build_object(p_column, p_type));
end;
$$;

comment on function backfill.create_baseline_column(text, text, text, text) is
'Adds a nullable column to a table of the application where it is missing; where it exists, only checks its type.';

create function backfill.drop_baseline_column(p_relation text, p_column text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_used boolean;
begin
    if not exists (select from backfill.baseline where relation = format('%s.%s', p_relation, p_column)) then
        raise notice 'column %.% was here before the baseline: it stays', p_relation, p_column;
        return;
    end if;
    if to_regclass(p_relation) is not null then
        execute format('select exists (select from %s where %I is not null)', p_relation, p_column) into v_used;
        if v_used then
            raise notice 'column %.% holds values: it stays', p_relation, p_column;
            return;
        end if;
        execute format('alter table %s drop column %I', p_relation, p_column);
    end if;
    delete from backfill.baseline where relation = format('%s.%s', p_relation, p_column);
end;
$$;

comment on function backfill.drop_baseline_column(text, text) is
'Drops a column that create_baseline_column() added, unless a row holds a value in it.';

create function backfill.create_baseline_schema(p_schema text) returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regnamespace(quote_ident(p_schema)) is not null then
        return false;
    end if;
    execute format('create schema %I', p_schema);
    insert into backfill.baseline (relation) values (format('schema %I', p_schema));
    return true;
end;
$$;

comment on function backfill.create_baseline_schema(text) is
'Creates a schema of the application where it is missing, and says whether it did; one that is there is used as it is.';

create function backfill.drop_baseline_schema(p_schema text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from backfill.baseline where relation = format('schema %I', p_schema);
    if not found then
        raise notice 'schema % was here before the baseline: it stays', p_schema;
        return;
    end if;
    execute format('drop schema %I', p_schema);
exception
    when dependent_objects_still_exist then
        raise notice 'schema % stays: it is not empty', p_schema;
end;
$$;

comment on function backfill.drop_baseline_schema(text) is
'Drops a schema that create_baseline_schema() created, unless something is in it; one that was there before stays.';

create function backfill.as_of() returns timestamptz
language sql stable
security invoker
return coalesce(nullif(current_setting('backfill.as_of', true), ''), 'infinity')::timestamptz;

comment on function backfill.as_of() is
'Only what was settled before this moment is history; infinity where all is. A due view says: where created_at < (select backfill.as_of()).
It filters, and protects nothing; a run keeps in the log which moment it had.';

create function backfill.moment(p_text text) returns timestamptz
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    return p_text::timestamptz;
exception
    when invalid_datetime_format or datetime_field_overflow then
        begin
            return now() + p_text::interval;
        exception
            when invalid_datetime_format or datetime_field_overflow or interval_field_overflow then
                raise exception '% is no moment', quote_literal(p_text)
                    using errcode = 'BF015', hint = 'Say 2026-11-01, 2026-11-01 14:00+01, or 1 hour ago.';
        end;
end;
$$;

comment on function backfill.moment(text) is
'A moment as a person says it: 2026-11-01 (in the session''s time zone), 2026-11-01 14:00+01, 1 hour ago. Anything else is refused (BF015).';

create function backfill.settled(p_table text, p_column text) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format('%s.%I', p_table, a.attname)
    from pg_attribute as a
    where a.attrelid = to_regclass(p_table) and a.attname = p_column and a.attnum > 0 and not a.attisdropped
        and a.atttypid = any ('{date,timestamptz,timestamp}'::regtype[]);
$$;

comment on function backfill.settled(text, text) is
'A column for p_settled of backfill.register(): the table''s quoted name and the column''s; null where there is none, or it holds no moment.';

create function backfill.has_unique_index(p_relation text, p_columns text[]) returns boolean
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from pg_index as x
        where x.indrelid = to_regclass(p_relation) and x.indisunique and x.indisvalid and x.indpred is null
            and x.indnkeyatts = cardinality(p_columns) and p_columns @> (
                select array_agg(coalesce(a.attname::text, '')) from unnest(x.indkey::int2[]) with ordinality as k (attnum, i)
                left join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
                where k.i <= x.indnkeyatts)
    );
$$;

comment on function backfill.has_unique_index(text, text[]) is
'Has the table a valid unique index on just these columns, of all its rows, whatever its name?';

create function backfill.index_is(p_relation text, p_index text, p_unique boolean, p_rest text) returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_index oid := (
        select x.indexrelid from pg_index as x join pg_class as c on c.oid = x.indexrelid
        where x.indrelid = to_regclass(p_relation) and c.relname = p_index and x.indisvalid);
    v_same boolean;
begin
    if v_index is null then
        return false;
    end if;
    -- What CREATE INDEX would make of the words is known once it has made it, of an empty table.
    execute format('create temporary table backfill_probe (like %s)', to_regclass(p_relation));
    begin
        execute format('create %s index backfill_probe_index on pg_temp.backfill_probe %s', case when p_unique then 'unique' else '' end, p_rest);
    exception
        when syntax_error_or_access_rule_violation then  -- a name that is found without a schema elsewhere: not known to be the same
            drop table pg_temp.backfill_probe;
            return false;
    end;
    select count(distinct d.definition) = 1 into v_same
    from (
        select array[x.indisunique::text, x.indnullsnotdistinct::text, c.relam::text, x.indnkeyatts::text, x.indclass::text, x.indcollation::text,
                x.indoption::text, pg_get_expr(x.indpred, x.indrelid)]
            || array(select pg_get_indexdef(x.indexrelid, i, true) from generate_series(1, x.indnatts) as i) as definition
        from pg_index as x join pg_class as c on c.oid = x.indexrelid
        where x.indexrelid in (v_index, 'pg_temp.backfill_probe_index'::regclass)
    ) as d;
    drop table pg_temp.backfill_probe;
    return v_same;
end;
$$;

comment on function backfill.index_is(text, text, boolean, text) is
'Has the table a valid index of this name that is what CREATE INDEX would make: rest is what follows the table''s name in it.';
