-- Tracking a table and leaving off: its images, its columns as they change, its triggers.
-- Safe: functions only. Triggers come onto a table only through backfill.track(), which a later migration states.
-- depends: 0009_backfill_capture

create function backfill.refuse_open_run(p_what text) returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if backfill.open_run() is not null then
        raise exception '% is refused: run % is open in this transaction, and its capture would have a gap', p_what, backfill.open_run()
            using errcode = 'BF001', hint = 'Before backfill.begin_run(), or after backfill.finish_run().';
    end if;
end;
$$;

comment on function backfill.refuse_open_run(text) is 'Refuses (BF001) what would change the capture in the middle of a run.';

create function backfill.forget_images(p_table backfill.tracked) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_operation text;
    v_history boolean;
    v_relation record;
begin
    foreach v_operation in array array['insert', 'update', 'delete'] loop
        execute format('drop function if exists backfill_audit.%I()', p_table.pack_name || '_' || v_operation);
    end loop;
    execute format('select exists (select 1 from backfill_audit.%I)', p_table.images_name) into v_history;
    if v_history or backfill.is_linked(p_table.pack_name) then  -- exported images may come back
        update backfill.tracked set active = false where pack_name = p_table.pack_name;
        return;
    end if;
    delete from backfill.tracked where pack_name = p_table.pack_name;
    perform backfill.rebuild_change_log();
    for v_relation in
        select * from (values ('view', p_table.images_name), ('table', p_table.pack_name), ('table', p_table.rows_name)) as x (kind, name)
    loop
        perform backfill.revoke_from('backfill_auditor', format('select on backfill_audit.%I', v_relation.name));
        execute format('drop %s backfill_audit.%I', v_relation.kind, v_relation.name);
    end loop;
end;
$$;

comment on function backfill.forget_images(backfill.tracked) is
'Drops what captured a table, and where it holds nothing also what kept the images.';

create function backfill.capture_table(
    p_relation regclass, p_business_key text[], p_money text, p_currency text, p_stamped text[], p_search_path name[],
    p_void text[]
) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
set bytea_output = 'hex'
set extra_float_digits = 1
set lc_monetary = 'C'
set xmloption = 'content'
as $$
declare
    v_table backfill.tracked;
    v_column record;
    v_at integer;
    v_known jsonb;
    v_why text;
begin
    perform backfill.refuse_open_run('backfill.track()');
    perform backfill.refuse_untrackable(p_relation);
    if to_regprocedure('backfill.refuse_untrusted(oid[])') is not null then  -- before it there is nothing but our own
        perform backfill.refuse_untrusted(array[p_relation::oid]);
    end if;
    -- Two sessions tracking tables would both rewrite the change_log view.
    lock table backfill.tracked in share row exclusive mode;
    perform backfill.rebind_tracked();
    v_table := backfill.follow_columns(backfill.register_table(p_relation));
    v_table.active := true;
    v_table.business_key := coalesce(p_business_key, case when v_table.business_key = v_table.key_columns
        then backfill.primary_key(p_relation) else v_table.business_key end);
    v_table.key_columns := backfill.primary_key(p_relation);
    v_table.money := nullif(coalesce(p_money, v_table.money), '');
    if p_currency is not null or v_table.money is null then
        v_table.currency_column := (select a.attname from pg_attribute as a
            where a.attrelid = p_relation and a.attname = p_currency and a.attnum > 0 and not a.attisdropped);
        v_table.currency := case when v_table.currency_column is null then nullif(p_currency, '') end;
    end if;
    v_table.void := case when p_void is not null or v_table.money is not null then nullif(coalesce(p_void, v_table.void), '{}') end;
    v_table.stamped := coalesce(p_stamped, v_table.stamped);
    if p_search_path is not null then
        select string_agg(quote_ident(s.name), ', ' order by s.place) || ', pg_temp' into v_table.search_path
        from (
            select x.name, min(x.place) as place
            from (
                select n.nspname as name, 0 as place from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = p_relation
                union all
                select p.name, p.i from unnest(p_search_path) with ordinality as p (name, i) where p.name not like 'pg\_%'
            ) as x
            group by x.name
        ) as s;
    end if;

    for v_column in
        select k.name, 'business key column' as kind from unnest(v_table.business_key) as k (name)
        union all
        select v_table.money, 'money column' where v_table.money is not null
        union all
        select s.name, 'stamped column' from unnest(p_stamped) as s (name)
    loop
        if not exists (select 1 from pg_attribute where attrelid = p_relation and attname = v_column.name and not attisdropped) then
            raise exception 'table % cannot be tracked: it has no %', v_table.table_name, v_column.kind || ' ' || v_column.name
                using errcode = 'BF002', hint = coalesce(v_table.doubt ->> 'way' || ' Or ', '') || format(case v_column.kind
                    when 'money column' then 'Name another, or none: select backfill.track(%L, p_money => '''');'
                    else 'Name the columns: select backfill.track(%L, ''{...}'', ''...'');' end, v_table.table_name);
        elsif v_column.kind = 'stamped column' and v_column.name = any (v_table.key_columns) then
            raise exception 'table % cannot be tracked: its stamped column % is of the primary key', v_table.table_name, v_column.name using errcode = 'BF002';
        end if;
    end loop;

    v_why := case when v_table.money is not null then backfill.money_column(p_relation, v_table.money, coalesce(v_table.currency_column, v_table.currency), v_table.void)
        when v_table.currency is not null or v_table.currency_column is not null or v_table.void is not null
            then 'it has a currency, or something void, and no money column: name it with p_money' end;
    if v_why is not null then
        raise exception 'table % cannot be tracked: %', v_table.table_name, v_why using errcode = 'BF002',
            hint = format('select backfill.track(%L, p_money => ''...'', p_currency => ''...''); an empty text takes either back.', v_table.table_name);
    end if;

    perform backfill.make_images(v_table);
    for v_column in
        select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type, a.attnum,
            backfill.stored_type(a.atttypid) as stored, a.attgenerated <> '' as generated
        from pg_attribute as a
        where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
        order by a.attnum
    loop
        v_at := coalesce(array_position(v_table.attnums, v_column.attnum), array_position(v_table.columns, v_column.name));
        if v_at is null then
            v_at := backfill.add_images(v_table, v_column.stored);
        elsif v_table.types[v_at] is distinct from v_column.type then
            begin
                if v_column.name = v_table.money and (v_column.stored = 'numeric') <> (v_table.stored_types[v_at] = 'numeric') then
                    raise data_exception;  -- what were minor units would be read as units, or the other way round
                end if;
                perform backfill.retype_images(v_table, v_at, v_column.type, v_column.stored);
            exception
                when data_exception or cannot_coerce or undefined_function or check_violation then
                    -- The history does not fit the new type: it stays as what it was, under a name of its own.
                    v_table.columns[v_at] := format('%s (was %s)', v_column.name,
                        coalesce(v_table.types[v_at], v_table.stored_types[v_at]));
                    v_table.types[v_at] := null;
                    v_table.attnums[v_at] := null;
                    v_at := backfill.add_images(v_table, v_column.stored);
            end;
        end if;
        v_table.columns[v_at] := v_column.name;
        v_table.types[v_at] := v_column.type;
        v_table.stored_types[v_at] := v_column.stored;
        v_table.generated[v_at] := v_column.generated;
        v_table.attnums[v_at] := v_column.attnum;
    end loop;
    perform backfill.make_rows(v_table);
    -- Rows kept by themselves name the set of columns that was captured; the generated capture writes the last one.
    select jsonb_agg(i order by i) into v_known from generate_subscripts(v_table.columns, 1) as i where v_table.types[i] is not null;
    if v_table.shapes -> -1 is distinct from v_known then
        -- While none was ever kept, there is nothing to tell apart.
        v_table.shapes := case when pg_relation_size(format('backfill_audit.%I', v_table.rows_name)::regclass) > 0
            then v_table.shapes else '[]' end || jsonb_build_array(v_known);
    end if;
    update backfill.tracked
    set active = true, captured = table_name, key_columns = v_table.key_columns, business_key = v_table.business_key, money = v_table.money,
        currency_column = v_table.currency_column, currency = v_table.currency, void = v_table.void, stamped = v_table.stamped, search_path = v_table.search_path, columns = v_table.columns, types = v_table.types, stored_types = v_table.stored_types,
        generated = v_table.generated, attnums = v_table.attnums, shapes = v_table.shapes
    where pack_name = v_table.pack_name;
    perform backfill.rebuild_images(v_table);
    perform backfill.generate_capture(v_table);
    perform backfill.rebuild_change_log();
end;
$$;

comment on function backfill.capture_table(regclass, text[], text, text, text[], name[], text[]) is
'The part of track() that is the engine''s own: the register, the images and the functions that capture. Granted to nobody.';

create function backfill.refuse_stranger(p_relation regclass) returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    -- By the login: within the engine's functions everybody is its owner.
    if not exists (select 1 from pg_class as c where c.oid = p_relation and pg_has_role(session_user, c.relowner, 'member')) then
        raise exception '% does not own table %: only its owner or a superuser says whether it is tracked', session_user, p_relation
            using errcode = 'BF014', hint = 'Have its owner, or a superuser, do it.';
    end if;
end;
$$;

comment on function backfill.refuse_stranger(regclass) is 'Refuses (BF014) to change the capture of a table for a login that is no member of its owner.';

create function backfill.capture_own_table(
    p_relation regclass, p_business_key text[], p_money text, p_currency text, p_stamped text[], p_search_path name[],
    p_void text[]
) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.refuse_stranger(p_relation);
    perform backfill.capture_table(p_relation, p_business_key, p_money, p_currency, p_stamped, p_search_path, p_void);
end;
$$;

comment on function backfill.capture_own_table(regclass, text[], text, text, text[], name[], text[]) is 'capture_table() for the owner of the table, and for superusers.';

create function backfill.track(
    p_relation regclass, p_business_key text[] default null, p_money text default null, p_currency text default null,
    p_stamped text[] default null,
    p_search_path name[] default current_schemas(false),  -- evaluated before the function's own path is in force
    p_void text[] default null
) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.capture_own_table(p_relation, p_business_key, p_money, p_currency, p_stamped, p_search_path, p_void);
    perform backfill.put_triggers(p_relation);
    perform backfill.guard_children();
end;
$$;

comment on function backfill.track(regclass, text[], text, text, text[], name[], text[]) is
'Captures every INSERT, UPDATE and DELETE of a table that is made inside a run. Business key: the columns by which a person knows a
row (default: primary key); money: its column of money (smallint, integer, bigint: minor units; numeric: units) and currency: a column, a
constant (USD, CAD/2) or none, '''' takes either back; void: a column and its values that
mean void, such as {status,void}, whose money is counted apart; stamped: columns that a trigger of the application sets (updated_at) and an undo
need not bring back; search_path: where its triggers find names without a schema (default: its own, the session''s). Again: takes over
changed columns. For the owner of the table, or a superuser. Refuses (BF002) what it cannot watch completely, and says why.';

create function backfill.release_table(p_relation regclass, p_dropped boolean) returns boolean
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
begin
    perform backfill.rebind_tracked();
    select t.* into v_table from backfill.tracked as t where t.relation = p_relation and t.active;
    if not found then
        return false;
    end if;
    perform backfill.refuse_stranger(p_relation);
    perform backfill.refuse_open_run('backfill.untrack()');
    if p_dropped then
        perform backfill.forget_images(v_table);
    end if;
    return true;
end;
$$;

comment on function backfill.release_table(regclass, boolean) is
'The part of untrack() that is the engine''s own: whether a table is tracked and may be released; and when its triggers are dropped, the rest.';

create function backfill.untrack(p_relation regclass) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_trigger name;
begin
    if not backfill.release_table(p_relation, false) then
        return;
    end if;
    for v_trigger in
        select tgname from pg_trigger where tgrelid = p_relation and not tgisinternal
            and tgname ~ '^backfill_(capture_(insert|update|delete)|refuse_truncate|use_path)$'
    loop
        execute format('drop trigger %I on %s', v_trigger, p_relation);
    end loop;
    perform backfill.release_table(p_relation, true);
    perform backfill.guard_children();
end;
$$;

comment on function backfill.untrack(regclass) is
'Stops capturing a table. Its history stays readable; a table without history leaves nothing behind. Twice is harmless. Refused
(BF001) while a run is open in the transaction.';
