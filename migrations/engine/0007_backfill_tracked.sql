-- The register of tracked tables: which they are, how their columns are kept, and which tables cannot be watched. And what a
-- run looks at to prove that it saw all that happened to them: locks, and rows as they were.
-- Safe: a new table and functions.
-- depends: 0006_backfill_log

create table backfill.tracked (
    table_name text primary key,
    active boolean not null default true,
    pack_name text not null unique,
    rows_name text not null unique,
    images_name text not null unique,
    relation oid not null,
    anchor oid not null,
    captured text,
    search_path text not null default 'pg_temp',
    key_columns text[] not null check (cardinality(key_columns) > 0),
    business_key text[] not null check (cardinality(business_key) > 0),
    money text,
    currency_column text check (money is not null or currency_column is null),
    currency text check (currency is null or money is not null and currency_column is null),
    void text[] check (void is null or cardinality(void) > 1 and money is not null),
    columns text[] not null,
    types text[] not null,
    stored_types text[] not null,
    generated boolean[] not null,
    stamped text[] not null default '{}',
    attnums smallint[] not null,
    shapes jsonb not null default '[]' check (jsonb_typeof(shapes) = 'array'),
    doubt jsonb check (doubt ?& '{why,way,until,columns}'),
    check (cardinality(columns) = cardinality(types)),
    check (cardinality(columns) = cardinality(stored_types)),
    check (cardinality(columns) = cardinality(generated)),
    check (cardinality(columns) = cardinality(attnums))
);

comment on table backfill.tracked is 'Tables whose changes are captured inside a run, kept by backfill.track() and untrack().';
comment on column backfill.tracked.table_name is 'Schema-qualified, quoted name; it follows the table when it is renamed.';
comment on column backfill.tracked.active is 'False: no longer captured, the history stays.';
comment on column backfill.tracked.pack_name is 'Table of the packed images in backfill_audit.';
comment on column backfill.tracked.rows_name is 'Table in backfill_audit of the images of statements that wrote one row.';
comment on column backfill.tracked.images_name is 'View in backfill_audit of all images, shaped as packs: whoever reads images reads it.';
comment on column backfill.tracked.relation is 'Which table it is, whatever it is called: its oid. Found anew after a restore, by its triggers or its name.';
comment on column backfill.tracked.anchor is 'Oid of this register when relation was noted: another one after a restore, where no noted oid holds.';
comment on column backfill.tracked.captured is 'The name for which the capture was written: its functions refuse any other table.';
comment on column backfill.tracked.search_path is 'Where the table''s triggers find what they name without a schema: its own schema first, pg_temp last.';
comment on column backfill.tracked.key_columns is 'Primary key.';
comment on column backfill.tracked.business_key is 'Columns by which a person knows the row.';
comment on column backfill.tracked.money is 'Column of money for control totals: integers are minor units, numeric is units; null = rows only.';
comment on column backfill.tracked.currency_column is 'Column that names the currency of a row; null = all are in one, or none is known.';
comment on column backfill.tracked.currency is 'The currency of all rows (USD, CAD/2); null with no column = amounts without a currency.';
comment on column backfill.tracked.void is 'A column, and the values of it that mean void: such money is counted apart, as "EUR void"; null = none is.';
comment on column backfill.tracked.columns is 'Captured columns; column i is kept in b<i> (before) and a<i> (after).';
comment on column backfill.tracked.types is 'Their types in the table; null where the column was dropped since.';
comment on column backfill.tracked.stored_types is 'Types in which they are kept: typed where PostgreSQL can hash the type, else text.';
comment on column backfill.tracked.generated is 'Generated columns are compared but not restored.';
comment on column backfill.tracked.stamped is 'Columns that the application''s own trigger sets (updated_at): captured and shown, neither compared nor required to come back.';
comment on column backfill.tracked.attnums is 'Their numbers in the table: a column that is renamed keeps its place.';
comment on column backfill.tracked.shapes is 'Which places were captured, for each set of columns that the table has had; rows kept by themselves name theirs, from 1.';
comment on column backfill.tracked.doubt is 'Since a restore it is not certain which table, or which column, it is: why, the call that settles it, the last statement captured
before, and the places of the columns as they were called then. Runs until then are not undone meanwhile.';

create function backfill.untrackable(p_relations oid[]) returns table (relation oid, why text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_distributed oid[] := '{}';
begin
    if to_regclass('pg_catalog.pg_dist_partition') is not null then
        execute 'select coalesce(array_agg(logicalrelid::oid), ''{}'') from pg_catalog.pg_dist_partition' into v_distributed;
    end if;
    return query
    select x.relation, x.why
    from (
        select c.oid as relation, case
            when n.nspname in ('backfill', 'backfill_audit') or n.nspname like 'pg\_%' or n.nspname = 'information_schema'
                then 'it belongs to the audit or to the system'
            when c.relkind in ('v', 'm') then 'it is a view: track the tables below it'
            when c.relkind = 'f' then 'it is a foreign table: its changes are made elsewhere'
            when c.relkind = 'p' then 'it is partitioned: writes to a partition would not be seen'
            when c.relkind <> 'r' then 'it is no table'
            when c.oid = any (v_distributed) then 'Citus has distributed it: its rows are written on other servers, where nothing captures them'
            when c.relispartition then 'it is a partition: writes through its parent would not be seen'
            when exists (select 1 from pg_inherits as i where i.inhrelid = c.oid)
                or exists (select 1 from pg_inherits as i where i.inhparent = c.oid)
                then 'it takes part in inheritance: writes through another table would not be seen'
            when c.relpersistence = 't' then 'it is temporary'
            when c.relpersistence = 'u' then 'it is unlogged: a crash empties it without a trace'
            when c.relhasrules and exists (select 1 from pg_rewrite as w where w.ev_class = c.oid)
                then 'it has a rule: what a rule writes, also once more for an undo, is not what the statement says'
            when not exists (select 1 from pg_index as k where k.indrelid = c.oid and k.indisprimary)
                then 'it has no primary key, so that a changed row could not be found again'
            when c.relnatts > 160 and (
                    select count(*) from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) > 160
                then 'it has more than 160 columns: where an update changes all of them, its pack would not fit a page'
            else coalesce((
                select format('it has a trigger of its own called %s, as the engine''s are', min(g.tgname))
                from pg_trigger as g
                join pg_proc as p on p.oid = g.tgfoid and p.pronamespace not in ('backfill'::regnamespace, 'backfill_audit'::regnamespace)
                where g.tgrelid = c.oid and g.tgname ~ '^backfill_(capture_(insert|update|delete)|refuse_truncate|use_path|mark_cascade|refuse_cascade(_[0-9]+)?)$'
                having count(*) > 0
            ), (
                select format('column %s is of a type with a cast of its own to or from text: what is kept of it would be what that function says',
                    min(a.attname))
                from pg_attribute as a
                where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and backfill.has_own_cast(a.atttypid)
                having count(*) > 0
            ))
        end as why
        from pg_class as c
        join pg_namespace as n on n.oid = c.relnamespace
        where c.oid = any (p_relations)
    ) as x
    where x.why is not null;
end;
$$;

comment on function backfill.untrackable(oid[]) is 'Which of these relations backfill.track() cannot watch completely, and why.';

create function backfill.refuse_untrackable(p_relation regclass) returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_why text := (select why from backfill.untrackable(array[p_relation::oid]));
begin
    if v_why is not null then
        raise exception 'table % cannot be tracked: %', p_relation, v_why using errcode = 'BF002';
    end if;
end;
$$;

comment on function backfill.refuse_untrackable(regclass) is
'Refuses (BF002), naming the table and the reason, what backfill.track() cannot watch completely.';

create function backfill.primary_key(p_relation oid) returns text[]
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select array_agg(a.attname::text order by k.i)
    from pg_index as x
    cross join unnest(x.indkey::int2[]) with ordinality as k (attnum, i)
    join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
    where x.indrelid = p_relation and x.indisprimary and k.i <= x.indnkeyatts;
$$;

comment on function backfill.primary_key(oid) is 'Columns of a table''s primary key, in its order.';

create function backfill.stored_type(p_type oid) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_type oid := p_type;
    v_base oid;
begin
    loop  -- a domain is kept as what it is made of
        select typbasetype into v_base from pg_type where oid = v_type and typtype = 'd';
        exit when not found;
        v_type := v_base;
    end loop;
    if exists (
        select from pg_type as t
        where t.oid = v_type and t.typtype = 'b' and t.typcategory <> 'A' and t.typarray <> 0
            and t.typnamespace = 'pg_catalog'::regnamespace
            and exists (
                select from pg_opclass as o
                join pg_am as m on m.oid = o.opcmethod and m.amname = 'hash'
                where o.opcdefault and (o.opcintype = t.oid or exists (
                    select from pg_cast as c
                    where c.castsource = t.oid and c.casttarget = o.opcintype and c.castmethod = 'b' and c.castcontext = 'i'
                ))
            )
    ) then
        return format_type(v_type, -1);  -- without -1, char(8) and bit(5) would be kept as char(1) and bit(1)
    end if;
    return 'text';
end;
$$;

comment on function backfill.stored_type(oid) is
'Type in which a column is kept in the packs: its own where PostgreSQL can hash it, else text (json, xml, point,
arrays, enums, composites), written and read under pinned settings.';

create function backfill.register_table(p_relation regclass) returns backfill.tracked
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
begin
    select * into v_table from backfill.tracked where relation = p_relation and anchor = 'backfill.tracked'::regclass;
    if found then
        return v_table;
    end if;
    select format('%I.%I', n.nspname, c.relname), n.nspname || '_' || c.relname
    into v_table.table_name, v_table.pack_name
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where c.oid = p_relation;
    -- A name of at most 63 bytes with the longest ending, and none that is taken (a_b.c and a.b_c, or public.x_row).
    if octet_length(v_table.pack_name) > 50 or exists (
        select 1 from unnest(array['', '_row', '_images']) as e (ending)
        where to_regclass(format('backfill_audit.%I', v_table.pack_name || e.ending)) is not null
    ) then
        v_table.pack_name := left(v_table.pack_name, 10) || '_' || substr(md5(v_table.table_name || p_relation::oid), 1, 9);
    end if;
    insert into backfill.tracked (table_name, pack_name, rows_name, images_name, relation, anchor, key_columns, business_key,
        columns, types, stored_types, generated, attnums)
    values (v_table.table_name, v_table.pack_name, v_table.pack_name || '_row', v_table.pack_name || '_images', p_relation,
        'backfill.tracked'::regclass, backfill.primary_key(p_relation), backfill.primary_key(p_relation), '{}', '{}', '{}', '{}', '{}')
    returning * into v_table;
    return v_table;
end;
$$;

comment on function backfill.register_table(regclass) is 'The row of the register for a table, a new one where it has none.';

create function backfill.make_images(p_table backfill.tracked) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regclass(format('backfill_audit.%I', p_table.pack_name)) is null then
        execute format('create table backfill_audit.%I (run_id uuid not null, statement bigint not null, pack integer not null, '
            'operation "char" not null check (operation in (''I'', ''U'', ''D'')), row_count integer not null, '
            'primary key (run_id, statement, pack))', p_table.pack_name);
        execute format('comment on table backfill_audit.%I is %L', p_table.pack_name,
            format('Packed images of %s: b<i> before, a<i> after, see backfill.tracked. Append-only.', p_table.table_name));
        perform backfill.append_only(format('backfill_audit.%I', p_table.pack_name)::regclass);
        perform backfill.grant_to('backfill_auditor', format('select on backfill_audit.%I', p_table.pack_name));
    end if;
end;
$$;

comment on function backfill.make_images(backfill.tracked) is 'The table of a table''s packs, without columns of its own yet.';

create function backfill.own_locks() returns table (catalog oid, object oid, mode text, token text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select x.catalog, x.object, x.mode, concat_ws(' ', x.catalog, x.object, x.mode)
    from (
        select case l.locktype when 'relation' then 'pg_class'::regclass else l.classid end as catalog,
            case l.locktype when 'relation' then l.relation else l.objid end as object, l.mode
        from pg_locks as l
        where l.pid = pg_backend_pid() and l.granted and (
            l.locktype = 'relation' and l.relation >= 16384 and l.mode not in ('AccessShareLock', 'RowShareLock')
            or l.locktype = 'object' and l.mode = 'AccessExclusiveLock' and l.classid in ('pg_constraint'::regclass, 'pg_trigger'::regclass))
    ) as x;
$$;

comment on function backfill.own_locks() is
'Locks of this transaction on tables that are more than a reader''s, and on constraints and triggers that it dropped. Nobody can take one back
unless all that was done under it is taken back: they tell what was written or altered where neither a counter nor the catalog does.';

create function backfill.own_version(p_column text) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- As is_own(), spelled out: asked of every row of a table.
    select format('case when %1$s = %2$L::xid then true when age(%1$s) <= age(%2$L::xid) '
        'then pg_xact_status((%3$s + %1$s::text::bigint)::text::xid8) = ''in progress'' end',
        p_column, pg_current_xact_id()::xid, (pg_current_xact_id()::text::numeric::bigint >> 32) << 32);
$$;

comment on function backfill.own_version(text) is 'SQL condition: this column, xmin or xmax, is of this transaction or of a savepoint of it.';

create function backfill.rows_before(p_turn integer, out genuine boolean, out keys jsonb, out own tid[])
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set bytea_output = 'hex'
set extra_float_digits = 1 set lc_monetary = 'C' set xmloption = 'content'
as $$
declare
    v_table backfill.tracked;
begin
    select * into v_table from backfill.tracked where active and relation = nullif(current_setting('backfill.looked_at', true), '')::oid;
    if found then
        select not ready into genuine from backfill.run_transaction where xid = pg_current_xact_id();
        execute format('select jsonb_agg(jsonb_build_array(t.xmax::text, %s)) filter (where t.xmax <> 0), array_agg(t.ctid) filter (where %s) from %s as t',
            (select string_agg(format('t.%I::text', k.name), ', ' order by k.i) from unnest(v_table.key_columns) with ordinality as k (name, i)),
            backfill.own_version('t.xmin'), v_table.relation::regclass)
        into keys, own;
    end if;
end;
$$;

comment on function backfill.rows_before(integer) is
'Read by the cursor backfill_before, which sees what stood there when the run began: rows of the table in question that somebody has written or
locked since (who, and the key), and where those are that this transaction had written already.';
