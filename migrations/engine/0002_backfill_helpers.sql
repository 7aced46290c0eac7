-- What migrations and backfills of every system call: ids from business keys, periods, the columns that a table must
-- have, a unique index that names the duplicates in its way, and tables that only grow.
-- Safe: functions only.
-- depends: 0001_backfill_schema

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

create function backfill.is_period(p_period text) returns boolean
language sql immutable parallel safe
return p_period is not null and p_period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$';

comment on function backfill.is_period(text) is 'Is it YYYY-MM, with a month from 01 to 12?';

create function backfill.has_own_cast(p_type oid) returns boolean
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with recursive base (type) as (  -- a domain's own casts are never used, those of what it is made of are
        select p_type
        union all
        select t.typbasetype from base as b join pg_type as t on t.oid = b.type and t.typtype = 'd'
    )
    select exists (
        select 1
        from base as b
        join pg_cast as c on (c.castsource = b.type and c.casttarget in ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype))
            or (c.casttarget = b.type and c.castsource in ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype))
        join pg_proc as p on p.oid = c.castfunc
        where c.castmethod = 'f' and p.pronamespace <> 'pg_catalog'::regnamespace
    );
$$;

comment on function backfill.has_own_cast(oid) is
'Has a type, or what a domain is made of, a cast WITH FUNCTION to or from text that somebody made? It would falsify images.';

create function backfill.is_wordless(p_type oid) returns boolean
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- A domain has the category of what it is made of.
    select t.typcategory not in ('S', 'E') from pg_type as t where t.oid = p_type;
$$;

comment on function backfill.is_wordless(oid) is 'Is a type neither text of any kind nor an enum, so that it cannot name a currency?';

create function backfill.needs_settings(p_type text) returns boolean
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- Of what is kept as text: does the text follow DateStyle, TimeZone, IntervalStyle, bytea_output, extra_float_digits ...?
    select not coalesce(t.typtype = 'e' or t.oid in ('json'::regtype, 'jsonpath'::regtype)
        or e.typtype = 'e' or e.oid in ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'name'::regtype, 'boolean'::regtype,
            'smallint'::regtype, 'integer'::regtype, 'bigint'::regtype, 'numeric'::regtype, 'uuid'::regtype, 'json'::regtype,
            'jsonb'::regtype), false)
    from (select to_regtype(p_type) as oid) as x
    left join pg_type as t on t.oid = x.oid
    left join pg_type as e on e.oid = t.typelem and t.typcategory = 'A';
$$;

comment on function backfill.needs_settings(text) is 'Does the text of a value of this type depend on settings of the session?';

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
                hint = 'Nothing was written. Add the missing columns, or change the types; give a NOT NULL column that nobody fills a default.';
    end if;
end;
$$;

comment on function backfill.require_columns(text, jsonb, boolean) is
'Refuses (BF006), naming every misfit, unless the table has these columns: {"column": "type|other type"}.
Writable: no other column may be NOT NULL without a default.';

create function backfill.money_of(p_relation text) returns table (amount text, type text, currency text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_types jsonb := (
        select jsonb_object_agg(a.attname, jsonb_build_object('type', format_type(a.atttypid, -1), 'wordless', backfill.is_wordless(a.atttypid)))
        from pg_attribute as a
        where a.attrelid = to_regclass(p_relation) and a.attname in ('cents', 'amount', 'currency') and a.attnum > 0 and not a.attisdropped);
begin
    if v_types -> 'cents' ->> 'type' not in ('smallint', 'integer', 'bigint') then
        raise exception '%.cents is %, wanted is bigint', p_relation, v_types -> 'cents' ->> 'type'
            using errcode = 'BF006', hint = 'sum() of a bigint is numeric: sum(...)::bigint. Or name it amount, in units: amount numeric.';
    elsif not v_types ? 'cents' and v_types -> 'amount' ->> 'type' <> 'numeric' then
        raise exception '%.amount is %, wanted is numeric', p_relation, v_types -> 'amount' ->> 'type'
            using errcode = 'BF006', hint = 'Minor units of type bigint are called cents.';
    elsif (v_types -> 'currency' ->> 'wordless')::boolean then
        raise exception '%.currency is %, wanted is text', p_relation, v_types -> 'currency' ->> 'type' using errcode = 'BF006';
    end if;
    amount := case when v_types ? 'cents' then 'x.cents' when v_types ? 'amount' then 'x.amount' end;
    type := case when v_types ? 'cents' then 'bigint' else 'numeric' end;
    currency := backfill.currency_sql(case when v_types ? 'currency' then 'x.currency' end, null);
    return next;
end;
$$;

comment on function backfill.money_of(text) is
'The money of a due or rejects view, as expressions over x: cents bigint (minor units), or without it amount numeric (units), or neither; and
currency text or none. Refused (BF006) where they are of other types.';

create function backfill.create_unique_index(
    p_index text, p_relation text, p_columns text[], p_where text default null, p_message text default null,
    p_found text default 'count(*) || '' rows''',
    p_hint text default 'Decide which row stands, remove the others, and apply again.',
    p_unless_there boolean default false
) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns text;
    v_among text;
    v_count bigint;
    v_listed text;
begin
    if p_unless_there and backfill.has_unique_index(p_relation, p_columns) then
        return;
    end if;
    -- Where a column is null the index sees no duplicate either.
    select string_agg(format('%I', c.name), ', ' order by c.i),
        coalesce('(' || p_where || ') and ', '') || string_agg(format('%I is not null', c.name), ' and ' order by c.i)
    into v_columns, v_among
    from unnest(p_columns) with ordinality as c (name, i);
    -- Built before, concurrently, by `runner migrate`: there is no duplicate, and nothing to look for.
    if backfill.index_is(p_relation, p_index, true, format('(%s)', v_columns) || coalesce(' where ' || p_where, '')) then
        return;
    end if;
    execute format($sql$
        select count(*), string_agg(d.named, e'\n' order by d.place) filter (where d.place <= 10)
        from (
            select concat_ws(' / ', %1$s) || ': ' || %2$s as named, row_number() over (order by %1$s) as place
            from %3$s where %4$s group by %1$s having count(*) > 1
        ) as d$sql$, v_columns, p_found, p_relation, v_among)
    into v_count, v_listed;
    if v_count > 0 then
        raise exception using errcode = 'BF007', detail = v_listed, hint = p_hint, message = format(
            coalesce(p_message, p_relation || ' holds %s keys (' || array_to_string(p_columns, ', ') || ') more than once'), v_count);
    end if;
    execute format('create unique index %I on %s (%s)', p_index, p_relation, v_columns) || coalesce(' where ' || p_where, '');
end;
$$;

comment on function backfill.create_unique_index(text, text, text[], text, text, text, text, boolean) is
'Creates a unique index, or refuses (BF007) and lists the first ten keys that are there more than once. Message: %s is the number
of such keys; found: SQL over the rows of one key, what is said of it. Unless there: another unique index on these columns will do. This
very index is no error either: `runner migrate` builds it before, concurrently.';

create function backfill.require_own_temp(variadic p_names text[]) returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
begin
    foreach v_name in array p_names loop
        if not exists (select 1 from pg_class as c
            where c.oid = to_regclass(format('pg_temp.%I', v_name)) and c.relkind = 'r' and c.relowner = current_user::regrole)
        then
            raise exception 'temporary table % is not the one that the load made', v_name
                using errcode = 'BF013', hint = 'Begin anew, in one transaction: the function that begins the load makes it.';
        end if;
    end loop;
end;
$$;

comment on function backfill.require_own_temp(text[]) is
'Refuses (BF013) temporary tables that somebody else put in the place of the engine''s: what hangs on them would run with its rights.';

create function backfill.is_own(p_xid xid) returns boolean
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- A version that one sees, of a transaction in progress, is one's own, savepoints included. The number is made whole
    -- from this transaction's, which is no later.
    select age(p_xid) <= age(pg_current_xact_id()::xid) and pg_xact_status(
        (((pg_current_xact_id()::text::numeric::bigint >> 32) << 32) + p_xid::text::bigint)::text::xid8) = 'in progress';
$$;

comment on function backfill.is_own(xid) is 'Was a row that is visible written by this transaction, or by a savepoint of it?';

create function backfill.refuse_change() returns trigger
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '% of %.% is refused: audit tables are append-only', tg_op, tg_table_schema, tg_table_name
        using errcode = 'BF008', hint = 'Undo a run with backfill.reverse_run(run); it adds to the log.';
end;
$$;

comment on function backfill.refuse_change() is 'Trigger of the audit tables: refuses UPDATE, DELETE and TRUNCATE (BF008).';

create function backfill.refuse_truncate() returns trigger
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'TRUNCATE of %.% is refused inside a run: it cannot be captured', tg_table_schema, tg_table_name
        using errcode = 'BF003', hint = 'Use DELETE, which is captured and can be reversed.';
end;
$$;

comment on function backfill.refuse_truncate() is 'Trigger of tracked tables: TRUNCATE inside a run is refused (BF003).';

create function backfill.append_only(p_relation regclass) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('create or replace trigger refuse_change before update or delete on %s '
        'for each statement execute function backfill.refuse_change()', p_relation);
    execute format('create or replace trigger refuse_truncate before truncate on %s '
        'for each statement execute function backfill.refuse_change()', p_relation);
    -- Not even where session_replication_role is replica.
    execute format('alter table %s enable always trigger refuse_change, enable always trigger refuse_truncate', p_relation);
end;
$$;

comment on function backfill.append_only(regclass) is
'Makes a table of the audit one that only grows: UPDATE, DELETE and TRUNCATE are refused (BF008), whoever asks. Twice is harmless.';

create function backfill.readable_json(p_json text) returns jsonb
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    return p_json::jsonb;
exception
    when data_exception or program_limit_exceeded then
        return to_jsonb(p_json);
end;
$$;

comment on function backfill.readable_json(text) is
'A json value as jsonb, or as its text where jsonb cannot hold it: \u0000, half a surrogate, 1e400000.';
