-- The catalog: which backfills there are, and what each of them has still to write and cannot take.
-- Safe: a new table and functions.
-- depends: 0004_backfill_baseline

create table backfill.catalog (
    -- A name that is also the tag of its gates; the function has a name of its own (function_name).
    backfill text primary key check (backfill ~ '^[a-z][a-z0-9_]*$'),
    system text not null,
    description text not null,
    position integer not null unique,
    due_relation text not null,
    rejects_relation text,
    function_name text not null,
    tables text[] not null check (cardinality(tables) > 0),
    settled_column text,
    dimensions text[] not null default '{}' check (cardinality(dimensions) <= 2)
);

comment on table backfill.catalog is 'The backfills there are. Runs of all of them go by position.';
comment on column backfill.catalog.backfill is 'Name; gates in dbt carry it as their tag.';
comment on column backfill.catalog.system is 'Which system it belongs to: charges, invoices, rent, reconciliation, lending, or a name of the project''s own.';
comment on column backfill.catalog.description is 'What a person reads before running it.';
comment on column backfill.catalog.position is 'Order in a run of several backfills; that of the systems lies in their bands (charges 100, invoices 200 ...), own ones from 1000.';
comment on column backfill.catalog.due_relation is 'View of the rows still to write, one row each, with cents bigint (minor units) or amount numeric, and currency, where they are money; empty = nothing to do.';
comment on column backfill.catalog.rejects_relation is 'View of the source rows that cannot be taken, with their reason; null = the backfill has none.';
comment on column backfill.catalog.function_name is 'Function (parameters jsonb) returns jsonb that writes what is due.';
comment on column backfill.catalog.tables is 'Tables that it writes; each is tracked.';
comment on column backfill.catalog.settled_column is
'schema.table.column by which its due view leaves out what was not settled before backfill.as_of(); null = it cannot.';
comment on column backfill.catalog.dimensions is
'Columns of the first table by which whoever signs sees the money: that of its month, and that of whom it is about.';

create function backfill.set_as_of(p_as_of timestamptz) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_writer text;
    v_hidden bigint;
begin
    if p_as_of is null or p_as_of >= now() then
        raise exception 'as-of % is not in the past', p_as_of using errcode = 'BF015',
            hint = 'What is still to come is no history; without as-of, all that is there is.';
    end if;
    -- What such a transaction has written, or will, may carry an earlier moment, and be seen only when it commits.
    select format('process %s (%s, %s), open since %s', a.pid, coalesce(a.usename, 'no user'),
            coalesce(nullif(a.application_name, ''), a.backend_type), a.xact_start)
    into v_writer
    from pg_stat_activity as a
    where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_xid is not null and a.xact_start < p_as_of
    order by a.xact_start
    limit 1;
    if v_writer is null then
        select format('prepared transaction %L of %s, since %s', p.gid, p.owner, p.prepared) into v_writer
        from pg_prepared_xacts as p where p.database = current_database() order by p.prepared limit 1;
    end if;
    if v_writer is not null then
        raise exception 'as-of % is younger than a transaction that is still writing: %', p_as_of, v_writer using errcode = 'BF016',
            hint = 'What it writes would be missed or half seen. Wait for its end, or take an earlier moment.';
    end if;
    select count(*) into v_hidden from pg_stat_activity as a
    where a.datname = current_database() and a.pid <> pg_backend_pid() and a.usesysid is not null and a.backend_type is null;
    if v_hidden > 0 then
        raise exception 'whether a transaction older than as-of % is still writing cannot be seen: % sessions of others are hidden', p_as_of, v_hidden
            using errcode = 'BF015', hint = format('grant pg_read_all_stats to %I;', current_user);
    end if;
    perform set_config('backfill.as_of', p_as_of::text, true);
end;
$$;

comment on function backfill.set_as_of(timestamptz) is
'From here to the end of the transaction backfill.as_of() is this moment. Refused where it is not past (BF015), or where a transaction older
than it is still writing (BF016), which is named.';

create function backfill.as_of_for(p_entry backfill.catalog) returns timestamptz
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_as_of timestamptz := nullif(backfill.as_of(), 'infinity');
begin
    if v_as_of is not null and p_entry.settled_column is null then
        raise exception 'backfill % knows no as-of: nothing says what of its source was settled before %', p_entry.backfill, v_as_of
            using errcode = 'BF015', hint = 'Name the column: backfill.register(..., p_settled => ''schema.table.column''), and ask '
                'backfill.as_of() in the due view; or leave as-of out.';
    end if;
    return v_as_of;
end;
$$;

comment on function backfill.as_of_for(backfill.catalog) is 'The as-of in force, null where there is none; refused (BF015) for a backfill that cannot keep it.';

create function backfill.require_settled(p_backfill text, p_due_relation text, p_column text[]) returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if backfill.settled(format('%I.%I', p_column[1], p_column[2]), p_column[3]) is null then
        raise exception 'backfill % cannot be registered: % is no column that holds a moment', p_backfill, array_to_string(p_column, '.')
            using errcode = 'BF009', hint = 'p_settled is schema.table.column, of type date, timestamp or timestamptz.';
    end if;
    if not exists (
        with recursive used (oid) as (
            select to_regclass(p_due_relation)::oid
            union
            select d.refobjid from used as u
            join pg_rewrite as w on w.ev_class = u.oid
            join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_class'::regclass
        )
        select 1 from used as u
        join pg_rewrite as w on w.ev_class = u.oid
        join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
        where d.refclassid = 'pg_proc'::regclass and d.refobjid = 'backfill.as_of()'::regprocedure
    ) then
        raise exception 'backfill % cannot be registered: % does not ask backfill.as_of()', p_backfill, p_due_relation
            using errcode = 'BF009', hint = format('... where %I < (select backfill.as_of()) ..., in the due view and the rejects view.', p_column[3]);
    end if;
end;
$$;

comment on function backfill.require_settled(text, text, text[]) is
'Refuses (BF009) a column that is none or holds no moment, and a due view that does not ask backfill.as_of().';

create function backfill.register(
    p_backfill text, p_system text, p_description text, p_position integer, p_due_relation text,
    p_function_name text, p_tables text[], p_rejects_relation text default null, p_settled text default null,
    p_dimensions text[] default '{}'
) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table text;
    v_other backfill.catalog;
begin
    perform backfill.require_columns(p_due_relation, '{}');
    perform backfill.money_of(p_due_relation);
    if p_rejects_relation is not null then
        perform backfill.require_columns(p_rejects_relation,
            '{"source": "text", "source_key": "text", "line": "bigint", "reason": "text", "payload": "jsonb"}');
        perform backfill.money_of(p_rejects_relation);
    end if;
    if to_regprocedure(p_function_name || '(jsonb)') is null then
        raise exception 'backfill % cannot be registered: there is no function %(jsonb)', p_backfill, p_function_name
            using errcode = 'BF009';
    end if;
    foreach v_table in array p_tables loop
        if not exists (select from backfill.tracked where table_name = v_table and active) then
            raise exception 'backfill % cannot be registered: table % is not tracked', p_backfill, v_table
                using errcode = 'BF009', hint = format('select backfill.track(%L);', v_table);
        end if;
    end loop;
    foreach v_table in array p_dimensions loop
        if not exists (select from backfill.tracked where table_name = p_tables[1] and v_table = any (columns)) then
            raise exception 'backfill % cannot be registered: % has no column % to show its money by', p_backfill, p_tables[1], v_table
                using errcode = 'BF009';
        end if;
    end loop;
    if p_settled is not null then
        perform backfill.require_settled(p_backfill, p_due_relation, parse_ident(p_settled));
    end if;
    select * into v_other from backfill.catalog where position = p_position and backfill <> p_backfill;
    if found then
        raise exception 'backfill % (%) cannot be registered: position % is that of % (%)',
            p_backfill, p_system, p_position, v_other.backfill, v_other.system
            using errcode = 'BF009', hint = 'Take another: backfills run in the order of their positions, and own ones begin at 1000.';
    end if;
    insert into backfill.catalog
    values (p_backfill, p_system, p_description, p_position, p_due_relation, p_rejects_relation, p_function_name, p_tables, p_settled, p_dimensions)
    on conflict (backfill) do update
    set system = excluded.system, description = excluded.description, position = excluded.position,
        due_relation = excluded.due_relation, rejects_relation = excluded.rejects_relation,
        function_name = excluded.function_name, tables = excluded.tables, settled_column = excluded.settled_column,
        dimensions = excluded.dimensions;
end;
$$;

comment on function backfill.register(text, text, text, integer, text, text, text[], text, text, text[]) is
'Puts a backfill of a system into the catalog, and refuses it (BF006, BF009) unless its due view, function and tables are as the
engine needs them and its position is its own.';

create function backfill.unregister(p_backfill text) returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    delete from backfill.catalog where backfill = p_backfill;
$$;

comment on function backfill.unregister(text) is 'Takes a backfill out of the catalog; its runs stay in the log.';

create function backfill.entry(p_backfill text) returns backfill.catalog
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_entry backfill.catalog;
begin
    select * into v_entry from backfill.catalog where backfill = p_backfill;
    if not found then
        raise exception 'there is no backfill %; there are: %', p_backfill,
            (select string_agg(backfill, ', ' order by position) from backfill.catalog)
            using errcode = 'BF009';
    end if;
    return v_entry;
end;
$$;

comment on function backfill.entry(text) is 'The catalog row of a backfill; an unknown name is refused (BF009), naming those there are.';

create function backfill.new_rejects(p_backfill text)
returns table (source text, source_key text, line bigint, reason text, amount numeric, currency text, payload jsonb)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
-- A due view groups and compares whole tables, and the planner guesses 2 of 100,000 groups: it must not loop over them.
set enable_nestloop = off
set jit = off
set work_mem = '64MB'
set hash_mem_multiplier = 4
as $$
declare
    v_entry backfill.catalog := backfill.entry(p_backfill);
    v_money record;
begin
    if v_entry.rejects_relation is not null then
        select * into v_money from backfill.money_of(v_entry.rejects_relation);
        return query execute format($sql$
            select x.source, x.source_key, x.line, x.reason, %s, nullif(%s, 'amounts'), x.payload
            from %s as x
            where not exists (
                select from backfill.reject as r
                join backfill.backfill_log as l on l.run_id = r.run_id and l.status <> 'reversed'
                where r.backfill = $1 and r.source = x.source and r.source_key = x.source_key and r.reason = x.reason
            )$sql$, coalesce(backfill.minor_sql(v_money.amount, v_money.type, v_money.currency), 'null::numeric'), v_money.currency,
            v_entry.rejects_relation) using p_backfill;
    end if;
end;
$$;

comment on function backfill.new_rejects(text) is
'Source rows that the backfill cannot take and that no standing run was allowed to leave out before.';

create function backfill.still_due(p_backfill text)
returns table (due_rows bigint, due_money jsonb)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
-- As above. What an apply writes the planner does not know of at all when it is counted again.
set enable_nestloop = off
set jit = off
set work_mem = '64MB'
set hash_mem_multiplier = 4
as $$
declare
    v_relation text := (backfill.entry(p_backfill)).due_relation;
begin
    -- How many of the amounts are finer than their currency is told of what is written.
    return query execute (
        select 'select s.n, s.money from (' || backfill.sum_of_money(v_relation || ' as x', m.amount, m.type, m.currency) || ') as s (n, money, finer)'
        from backfill.money_of(v_relation) as m);
end;
$$;

comment on function backfill.still_due(text) is 'Rows that a backfill has still to write, and their money by currency; null where they are none.';

create function backfill.due(p_backfills text[] default null)
returns table (
    backfill text, system text, due_rows bigint, due_money jsonb, rejects bigint, description text, due_relation text
)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_entry backfill.catalog;
begin
    perform backfill.require_trusted();
    for v_entry in
        select * from backfill.catalog as c where p_backfills is null or c.backfill = any (p_backfills) order by c.position
    loop
        backfill := v_entry.backfill;
        system := v_entry.system;
        description := v_entry.description;
        due_relation := v_entry.due_relation;
        select d.due_rows, d.due_money into due_rows, due_money from backfill.still_due(v_entry.backfill) as d;
        select count(*) into rejects from backfill.new_rejects(v_entry.backfill);
        return next;
    end loop;
end;
$$;

comment on function backfill.due(text[]) is 'For each backfill (of those named): rows and money by currency still to write, source rows that it cannot take, and the view that decides.';
