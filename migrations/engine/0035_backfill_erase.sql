-- Images come back from a file; single values are erased for good; a reversal says which of both is in its way. And the engine is
-- sealed, when all of it is there.
-- Safe: functions, grants, and the first link of the chain.
-- depends: 0034_backfill_export

create function backfill.restore_run(p_sha256 text, p_actor text default null) returns backfill.chain
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
set bytea_output = 'hex'
set lc_monetary = 'C'
set xmloption = 'content'
as $$
declare
    v_run uuid;
    v_link backfill.chain;
    v_export backfill.chain;
    v_part jsonb;
    v_table backfill.tracked;
    v_erasure record;
begin
    perform backfill.begin_evidence('backfill.restore_run()');
    if to_regclass('pg_temp.backfill_export_file') is null then
        raise exception 'no file was given' using errcode = 'BF018', hint = 'runner audit restore FILE';
    end if;
    v_run := (select line -> 'link' ->> 'run_id' from pg_temp.backfill_export_file where number = 1);
    select * into v_link from backfill.chain where run_id = v_run and kind = 'run';
    select * into v_export from backfill.chain where run_id = v_run order by link desc limit 1;
    if v_export.kind is distinct from 'export' then
        raise exception 'run % was not exported from here, or is back already', v_run using errcode = 'BF018', hint = 'Nothing was changed.';
    elsif v_export.detail ->> 'sha256' <> p_sha256 then
        raise exception 'the file is not the one that run % was exported to: its sha256 is %, and that of % was %', v_run, p_sha256,
            v_export.detail ->> 'file', v_export.detail ->> 'sha256' using errcode = 'BF018', hint = 'Nothing was changed.';
    end if;
    perform backfill.check_export(v_link);
    for v_part in select * from jsonb_array_elements(v_link.detail -> 'tables') loop
        select * into v_table from backfill.tracked where pack_name = v_part ->> 'pack';
        if not found then
            raise exception 'the images of % cannot come back: nothing keeps them any more', v_part ->> 'table'
                using errcode = 'BF018', hint = format('Nothing was changed. backfill_audit.%s was dropped by hand.', v_part ->> 'pack');
        end if;
        execute (
            select format('insert into backfill_audit.%I (run_id, statement, pack, operation, row_count, %s) select p.run_id, p.statement, p.pack, p.operation, '
                'p.row_count, %s from %s as p', v_table.pack_name, string_agg(format('a%1$s, b%1$s', x.i), ', ' order by x.i),
                string_agg(format('p.a%1$s::%2$s[], p.b%1$s::%2$s[]', x.i, v_table.stored_types[x.i]), ', ' order by x.i), backfill.file_images(v_part))
            from jsonb_array_elements_text(v_part -> 'types') with ordinality as x (type, i)
        ) using v_run;
    end loop;
    drop table pg_temp.backfill_export_file;
    for v_erasure in
        select c.link, c.detail ->> 'table' as table_name from backfill.chain as c
        where c.kind = 'erase' and c.link > v_export.link
            and c.detail ->> 'pack' in (select x ->> 'pack' from jsonb_array_elements(v_link.detail -> 'tables') as x)
        order by c.link
    loop
        raise warning 'values of % were erased by link % after the export, and the file may have brought them back: erase them again', v_erasure.table_name, v_erasure.link;
    end loop;
    return backfill.add_link('restore', v_run, null, jsonb_build_object('sha256', p_sha256, 'packs_sha256', v_link.packs_sha256),
        concat_ws(' via ', nullif(p_actor, session_user), session_user));
end;
$$;

comment on function backfill.restore_run(text, text) is
'Brings the images of an exported run back from its file, whose lines were given to take_export() in this transaction and whose sha256 is given here;
refuses (BF018) any other file. The run can be undone again. Warns of values that were erased since the export. Owner only.';

create function backfill.find_images(p_table backfill.tracked) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- A key that an UPDATE moved is that of both rows.
    select format('select p.run_id, p.statement, p.pack, array_agg(u.row_no::integer order by u.row_no) as rows from backfill_audit.%I as p '
        'cross join lateral unnest(%s) with ordinality as u (%s, row_no) where %s = $1 or %s = $1 group by p.run_id, p.statement, p.pack',
        p_table.images_name, string_agg(format('p.b%1$s, p.a%1$s', k.i), ', ' order by k.place),
        string_agg(format('b%1$s, a%1$s', k.i), ', ' order by k.place),
        'concat_ws('' / '', ' || string_agg(format('coalesce(u.b%1$s, u.a%1$s)::text', k.i), ', ' order by k.place) || ')',
        'concat_ws('' / '', ' || string_agg(format('coalesce(u.a%1$s, u.b%1$s)::text', k.i), ', ' order by k.place) || ')')
    from (
        select array_position(p_table.columns, c.name) as i, c.place from unnest(p_table.key_columns) with ordinality as c (name, place)
    ) as k;
$$;

comment on function backfill.find_images(backfill.tracked) is 'SQL query: packs with images of the row whose primary key is $1, as change_log shows it, and its places there.';

create function backfill.erase_pack(p_table backfill.tracked, p_places integer[], p_found jsonb) returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set client_encoding = 'UTF8'
as $$
declare
    v_run uuid := p_found ->> 'run_id';
    v_statement bigint := p_found ->> 'statement';
    v_pack integer := p_found ->> 'pack';
    v_rows integer[] := array(select jsonb_array_elements_text(p_found -> 'rows'));
    v_types text[];
    v_look text;
    v_values bigint;
    v_before text;
    v_after text;
begin
    select array(select jsonb_array_elements_text(t.part -> 'types')) into v_types
    from backfill.chain as c cross join lateral jsonb_array_elements(c.detail -> 'tables') as t (part)
    where c.run_id = v_run and c.kind = 'run' and t.part ->> 'pack' = p_table.pack_name;
    if not found then
        raise exception 'run % has no link of the chain yet: it is still running', v_run
            using errcode = 'BF018', hint = format('Finish it first, or: select * from backfill.abandon_run(%L, ''why'');', v_run);
    end if;
    select format('select encode(sha256(%s), ''hex''), %s from backfill_audit.%I as p where p.run_id = $1 and p.statement = $2 and p.pack = $3',
        backfill.pack_bytes(v_types, p_table.stored_types),
        string_agg(format('(select count(v) from unnest(p.%s%s) with ordinality as u (v, n) where u.n = any ($4))', s.side, i), ' + '), p_table.images_name)
    into v_look
    from unnest(p_places) as i cross join (values ('a'), ('b')) as s (side);
    execute v_look into v_before, v_values using v_run, v_statement, v_pack, v_rows;
    if v_values = 0 then
        return null;
    end if;
    execute format('update backfill_audit.%I as p set %s where p.run_id = $1 and p.statement = $2 and p.pack = $3', p_table.pack_name,
        (select string_agg(format('%1$s = case when p.%1$s is not null then array(select case when u.n <> all ($4) then u.v end '
                'from unnest(p.%1$s) with ordinality as u (v, n) order by u.n) end', s.side || i), ', ')
            from unnest(p_places) as i cross join (values ('a'), ('b')) as s (side)))
    using v_run, v_statement, v_pack, v_rows;
    execute format('update backfill_audit.%I as p set %s where p.run_id = $1 and p.statement = $2 and $3 = 0', p_table.rows_name,
        (select string_agg(format('a%1$s = null, b%1$s = case when p.b%1$s is not null then array[null]::%2$s[] end', i, p_table.stored_types[i]), ', ')
            from unnest(p_places) as i))
    using v_run, v_statement, v_pack;
    execute v_look into v_after, v_values using v_run, v_statement, v_pack, v_rows;
    return jsonb_build_object('run', v_run, 'statement', v_statement, 'pack', v_pack, 'rows', v_rows, 'before', v_before, 'after', v_after);
end;
$$;

comment on function backfill.erase_pack(backfill.tracked, integer[], jsonb) is
'Takes values out of the rows of one pack; its sha256 before and after, or null where there was nothing to take. Granted to nobody.';

create function backfill.erase(
    p_table text, p_key text, p_columns text[], p_reason text, p_actor text default null
) returns backfill.chain
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
set bytea_output = 'hex'
set extra_float_digits = 1
set lc_monetary = 'C'
as $$
declare
    v_table backfill.tracked;
    v_places integer[];
    v_found jsonb;
    v_packs jsonb := '[]';
    v_exported bigint;
begin
    perform backfill.begin_evidence('backfill.erase()');
    select * into v_table from backfill.tracked where table_name = p_table or relation = to_regclass(p_table) order by table_name = p_table desc limit 1;
    if not found then
        raise exception 'no images of % are kept', p_table using errcode = 'BF018', hint = 'A table is named with its schema, as here: select table_name from backfill.tracked;';
    elsif btrim(coalesce(p_reason, '')) = '' or coalesce(cardinality(p_columns), 0) = 0 then
        raise exception 'an erasure names its columns and a reason' using errcode = 'BF018',
            hint = format('select * from backfill.erase(%L, ''key'', ''{name}'', ''request of 3 May'');', v_table.table_name);
    elsif v_table.key_columns && p_columns then
        raise exception 'column % is of the primary key of %: without it nobody knows whose images they are',
            (select min(c) from unnest(p_columns) as c where c = any (v_table.key_columns)), v_table.table_name using errcode = 'BF018';
    elsif exists (select 1 from unnest(p_columns) as c where c <> all (v_table.columns)) then
        raise exception 'no image of % has a column %', v_table.table_name, (select min(c) from unnest(p_columns) as c where c <> all (v_table.columns))
            using errcode = 'BF018', hint = 'There are: ' || array_to_string(v_table.columns, ', ');
    end if;
    -- What the column was before it was retyped, too.
    select array_agg(i order by i) into v_places from generate_subscripts(v_table.columns, 1) as i
    where regexp_replace(v_table.columns[i], ' \(was .*\)$', '') = any (p_columns) or v_table.columns[i] = any (p_columns);
    execute format('select jsonb_agg(to_jsonb(f) order by f.statement, f.pack) from (%s) as f', backfill.find_images(v_table)) into v_found using p_key;
    select count(*) into v_exported from backfill.chain as c
    where c.kind = 'run' and backfill.run_state(c.run_id) = 'export'
        and v_table.pack_name in (select x ->> 'pack' from jsonb_array_elements(c.detail -> 'tables') as x);
    if v_exported > 0 then
        raise warning 'images of % of % runs are in files, which nothing here erases: see the exports in backfill.chain', v_table.table_name, v_exported;
    end if;
    if v_found is null then
        raise exception 'no image of % is of key %', v_table.table_name, p_key
            using errcode = 'BF018', hint = 'The key is that of backfill.change_log.primary_key.';
    end if;
    perform backfill.lift_guard(format('backfill_audit.%I', v_table.pack_name)::regclass, true);
    perform backfill.lift_guard(format('backfill_audit.%I', v_table.rows_name)::regclass, true);
    select coalesce(jsonb_agg(e.erased), '[]') into v_packs
    from jsonb_array_elements(v_found) as f (found) cross join lateral backfill.erase_pack(v_table, v_places, f.found) as e (erased)
    where e.erased is not null;
    perform backfill.lift_guard(format('backfill_audit.%I', v_table.pack_name)::regclass, false);
    perform backfill.lift_guard(format('backfill_audit.%I', v_table.rows_name)::regclass, false);
    if v_packs = '[]' then
        raise notice 'nothing is left to erase of those columns';
        return null;
    end if;
    -- The link tells which places of which packs; the key, which may be personal itself, it does not tell.
    return backfill.add_link('erase', null, null, jsonb_build_object('table', v_table.table_name, 'pack', v_table.pack_name, 'columns', p_columns,
        'places', v_places, 'reason', p_reason, 'images', (select sum(jsonb_array_length(x -> 'rows')) from jsonb_array_elements(v_packs) as x), 'packs', v_packs),
        concat_ws(' via ', nullif(p_actor, session_user), session_user));
end;
$$;

comment on function backfill.erase(text, text, text[], text, text) is
'Takes the values of columns out of all images of one row, by its primary key as change_log shows it: they read null. A link of the chain says who, why,
how many, and what each touched pack''s sha256 is from then on. Irrevocable. The application''s own table is not touched. Owner only.';

create function backfill.refuse_without_images(p_run uuid) returns void
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_link backfill.chain;
begin
    select * into v_link from backfill.chain where run_id = p_run order by link desc limit 1;
    if v_link.kind = 'export' then
        raise exception 'run % is exported, not reversible here: its images are in %, sha256 %', p_run, v_link.detail ->> 'file', v_link.detail ->> 'sha256'
            using errcode = 'BF017', hint = format('runner audit restore %s brings them back.', v_link.detail ->> 'file');
    end if;
    -- A stamped column is neither compared nor restored.
    select c.* into v_link
    from backfill.chain as c
    join backfill.tracked as t on t.pack_name = c.detail ->> 'pack'
    where c.kind = 'erase' and c.detail -> 'packs' @> jsonb_build_array(jsonb_build_object('run', p_run))
        and exists (select 1 from jsonb_array_elements_text(c.detail -> 'columns') as x where x <> all (t.stamped))
    order by c.link limit 1;
    if found then
        raise exception 'run % cannot be reversed: values of %.% that it needs were erased (link % of the chain: %)', p_run, v_link.detail ->> 'table',
            (select string_agg(x, ', ') from jsonb_array_elements_text(v_link.detail -> 'columns') as x), v_link.link, v_link.detail ->> 'reason'
            using errcode = 'BF017', hint = 'Correct by hand from backfill.change_log, in a run of its own.';
    end if;
end;
$$;

comment on function backfill.refuse_without_images(uuid) is
'Refuses (BF017) to reverse a run whose images were exported, or lack values that were erased, and says where they are, or why they went.';

revoke execute on all functions in schema backfill from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on backfill.chain');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.chain_head()');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.run_state(uuid)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.verify_chain(text)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.check_chain()');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.exportable_runs(timestamptz)');
    perform backfill.seal_engine('the engine''s migrations');
end;
$do$;
