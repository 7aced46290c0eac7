-- Retention: the images of a run go to a file, its rows here are removed, and the chain says so; the file brings them back.
-- Safe: functions only. Nothing is removed before the file, read again, has been shown to hold what the chain says.
-- depends: 0033_backfill_verify

create function backfill.lift_guard(p_relation regclass, p_lifted boolean) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_lifted then
        execute format('alter table %s disable trigger refuse_change', p_relation);
    else
        execute format('alter table %s enable always trigger refuse_change', p_relation);
    end if;
end;
$$;

comment on function backfill.lift_guard(regclass, boolean) is
'For an export or an erasure, within its transaction: lets rows of a table of images be changed, and no longer. Granted to nobody.';

create function backfill.exportable_runs(p_before timestamptz)
returns table (run_id uuid, backfill text, completed_at timestamptz, packs bigint, row_count bigint, packs_sha256 text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select l.run_id, l.backfill, l.completed_at, t.packs, t.row_count, c.packs_sha256
    from backfill.chain as c
    join backfill.backfill_log as l on l.run_id = c.run_id
    cross join lateral (
        select sum((x ->> 'packs')::bigint)::bigint as packs, sum((x ->> 'rows')::bigint)::bigint as row_count
        from jsonb_array_elements(c.detail -> 'tables') as x
    ) as t
    where c.kind = 'run' and c.packs_sha256 is not null and l.completed_at < p_before and backfill.run_state(c.run_id) <> 'export'
    order by c.link;
$$;

comment on function backfill.exportable_runs(timestamptz) is 'Runs that ended before a moment and whose images are here, the oldest first.';

create function backfill.export_lines(p_run uuid) returns setof text
language plpgsql stable
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
    v_link backfill.chain;
    v_part jsonb;
    v_table backfill.tracked;
begin
    select * into v_link from backfill.chain where run_id = p_run and kind = 'run';
    if not found or v_link.packs_sha256 is null or backfill.run_state(p_run) = 'export' then
        raise exception 'run % has no images here that could be exported', p_run
            using errcode = 'BF018', hint = 'select * from backfill.exportable_runs(now());';
    end if;
    return query select jsonb_build_object('format', 1, 'link', to_jsonb(v_link), 'log', to_jsonb(l))::text from backfill.backfill_log as l where l.run_id = p_run;
    for v_part in select * from jsonb_array_elements(v_link.detail -> 'tables') loop
        select * into v_table from backfill.tracked where pack_name = v_part ->> 'pack';
        -- Arrays as the server writes them are read by it again, exactly, in any version.
        return query execute format('select jsonb_build_object(''table'', %L, ''statement'', p.statement, ''pack'', p.pack, ''operation'', p.operation, '
            '''rows'', p.row_count, ''a'', jsonb_build_array(%s), ''b'', jsonb_build_array(%s))::text from backfill_audit.%I as p '
            'where p.run_id = $1 order by p.statement, p.pack', v_table.pack_name,
            (select string_agg(format('p.a%s::%s[]::text', x.i, format_type(to_regtype(x.type), -1)), ', ' order by x.i)
                from jsonb_array_elements_text(v_part -> 'types') with ordinality as x (type, i)),
            (select string_agg(format('p.b%s::%s[]::text', x.i, format_type(to_regtype(x.type), -1)), ', ' order by x.i)
                from jsonb_array_elements_text(v_part -> 'types') with ordinality as x (type, i)),
            v_table.images_name) using p_run;
    end loop;
end;
$$;

comment on function backfill.export_lines(uuid) is
'The images of a run as lines of JSON: first its link and its row of the log, then each pack, its arrays as the server writes them.';

create function backfill.take_export(p_lines text[]) returns bigint
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_file regclass := to_regclass('pg_temp.backfill_export_file');
begin
    if v_file is null then
        create temporary table backfill_export_file (number bigint generated always as identity, line jsonb not null) on commit drop;
    elsif (select relowner from pg_class where oid = v_file) <> (select oid from pg_roles where rolname = current_user) then
        raise exception 'a temporary table backfill_export_file of somebody else is in the way' using errcode = 'BF018', hint = 'drop table pg_temp.backfill_export_file;';
    end if;
    insert into pg_temp.backfill_export_file (line) select x.line::jsonb from unnest(p_lines) with ordinality as x (line, i) order by x.i;
    return (select max(number) from pg_temp.backfill_export_file);
end;
$$;

comment on function backfill.take_export(text[]) is
'Takes lines of a file of exported images, in its order, for export_run() and restore_run() in the same transaction. How many it has.';

create function backfill.file_images(p_part jsonb) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format('(select $1 as run_id, (line ->> ''statement'')::bigint as statement, (line ->> ''pack'')::integer as pack, '
        '(line ->> ''operation'')::"char" as operation, (line ->> ''rows'')::integer as row_count, %s from pg_temp.backfill_export_file '
        'where number > 1 and line ->> ''table'' = %L)',
        string_agg(format('(line -> ''a'' ->> %2$s)::%3$s[] as a%1$s, (line -> ''b'' ->> %2$s)::%3$s[] as b%1$s', x.i, x.i - 1, format_type(to_regtype(x.type), -1)),
            ', ' order by x.i),
        p_part ->> 'pack')
    from jsonb_array_elements_text(p_part -> 'types') with ordinality as x (type, i);
$$;

comment on function backfill.file_images(jsonb) is 'SQL, what stands after FROM: the packs of a table in the file that was taken, shaped as its images.';

create function backfill.check_export(p_link backfill.chain) returns void
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
    v_part jsonb;
    v_wrong text;
    v_lines bigint := 1;
begin
    if (select line -> 'link' ->> 'hash' from pg_temp.backfill_export_file where number = 1) is distinct from p_link.hash then
        raise exception 'the file is not of run %', p_link.run_id using errcode = 'BF018', hint = 'Nothing was changed.';
    end if;
    for v_part in select * from jsonb_array_elements(p_link.detail -> 'tables') loop
        v_lines := v_lines + (v_part ->> 'packs')::bigint;
        v_wrong := concat_ws('; ', v_wrong, backfill.wrong_images(p_link.run_id, v_part, backfill.file_images(v_part),
            array(select jsonb_array_elements_text(v_part -> 'types'))));
    end loop;
    if v_wrong = '' and v_lines <> (select count(*) from pg_temp.backfill_export_file) then
        v_wrong := 'it has lines that are of none of its tables';
    end if;
    if v_wrong <> '' then
        raise exception 'the file does not hold the images of run %: %', p_link.run_id, v_wrong using errcode = 'BF018', hint = 'Nothing was changed.';
    end if;
end;
$$;

comment on function backfill.check_export(backfill.chain) is 'Refuses (BF018) a file that does not hold, to the byte, what the link of its run says.';

create function backfill.begin_evidence(p_what text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.refuse_open_run(p_what);
    perform backfill.take_lock();  -- no run, and no reversal, is at it
    perform backfill.rebind_tracked();
end;
$$;

comment on function backfill.begin_evidence(text) is 'What export, restore and erasure begin with: alone, outside a run, with the tables as they are called now.';

create function backfill.export_run(
    p_run uuid, p_file text, p_sha256 text, p_actor text default null
) returns backfill.chain
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_link backfill.chain;
    v_relation regclass;
begin
    perform backfill.begin_evidence('backfill.export_run()');
    select * into v_link from backfill.chain where run_id = p_run and kind = 'run';
    if not found or v_link.packs_sha256 is null or backfill.run_state(p_run) = 'export' then
        raise exception 'run % has no images here that could be exported', p_run
            using errcode = 'BF018', hint = 'select * from backfill.exportable_runs(now());';
    elsif p_sha256 !~ '^[0-9a-f]{64}$' or btrim(coalesce(p_file, '')) = '' then
        raise exception 'an export names its file and the sha256 of it' using errcode = 'BF018';
    elsif to_regclass('pg_temp.backfill_export_file') is null then
        raise exception 'the file of run % was not read again: its images stay', p_run
            using errcode = 'BF018', hint = 'select backfill.take_export(array of its lines);, in the same transaction. runner audit export does it.';
    end if;
    perform backfill.check_export(v_link);
    for v_relation in
        select to_regclass(format('backfill_audit.%I', r.name))
        from backfill.tracked as t cross join lateral unnest(array[t.pack_name, t.rows_name]) as r (name)
        where t.pack_name in (select x ->> 'pack' from jsonb_array_elements(v_link.detail -> 'tables') as x)
        order by r.name
    loop
        perform backfill.lift_guard(v_relation, true);
        execute format('delete from %s where run_id = $1', v_relation) using p_run;
        perform backfill.lift_guard(v_relation, false);
    end loop;
    drop table pg_temp.backfill_export_file;
    return backfill.add_link('export', p_run, null, jsonb_build_object('file', p_file, 'sha256', p_sha256, 'packs_sha256', v_link.packs_sha256),
        concat_ws(' via ', nullif(p_actor, session_user), session_user));
end;
$$;

comment on function backfill.export_run(uuid, text, text, text) is
'Removes the images of a run that a file holds: the file''s lines, read again from it, were given to take_export() in this transaction, and are to the
byte what the chain says. A link keeps the file''s name and sha256. The run stays in the log; it can be undone once its images are back. Owner only.';

revoke execute on all functions in schema backfill from public;
