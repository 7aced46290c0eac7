-- Runs: begin, finish, and one whole backfill by name; totals and digest of what a run wrote.
-- Safe: functions only; they write to the log, the rejects and what the named backfill writes.
-- depends: 0003_backfill_capture

create function backfill.take_lock() returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- At transaction level: it holds through a transaction pooler and dies with the session.
    select pg_advisory_xact_lock(hashtextextended('backfill', 0));
$$;

comment on function backfill.take_lock() is
'One run at a time in a database. Waits as long as lock_timeout says; released at the end of the transaction.';

create function backfill.require_run(p_way text) returns uuid
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if backfill.open_run() is null then
        raise exception 'no run is open in this transaction' using errcode = 'BF001', hint = p_way;
    end if;
    return backfill.open_run();
end;
$$;

comment on function backfill.require_run(text) is 'The run that is open in this transaction; refuses (BF001) where there is none, and names the way to one.';

create function backfill.in_reversal() returns boolean
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from backfill.backfill_log
        where run_id = backfill.open_run() and mode = 'reversal' and status = 'running'
    );
$$;

comment on function backfill.in_reversal() is 'Is the run that is open in this transaction the reversal of another?';

create function backfill.control_totals()
returns table (table_name text, row_count bigint, cents bigint)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
begin
    for v_table in
        select * from backfill.tracked as t where t.active and to_regclass(t.table_name) is not null order by t.table_name
    loop
        table_name := v_table.table_name;
        execute format('select count(*), %s from %s',
            case when v_table.money is null then 'null::bigint' else format('coalesce(sum(%I), 0)::bigint', v_table.money) end,
            v_table.table_name)
        into row_count, cents;
        return next;
    end loop;
end;
$$;

comment on function backfill.control_totals() is 'Count and cents of every tracked table, as the transaction sees it.';

create function backfill.run_totals(p_run uuid)
returns table (table_name text, inserted bigint, updated bigint, deleted bigint, cents bigint)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_money integer;
begin
    for v_table in select * from backfill.tracked as t order by t.table_name loop
        v_money := array_position(v_table.columns, v_table.money);
        table_name := v_table.table_name;
        execute format('select sum(row_count) filter (where operation = ''I''), sum(row_count) filter (where operation = ''U''), '
            'sum(row_count) filter (where operation = ''D''), %s from backfill_audit.%I where run_id = $1',
            case when v_money is null then 'null::bigint' else format(
                -- Where a whole pack left the column alone, b is null and the difference is zero.
                'coalesce(sum(case when operation = ''U'' and b%1$s is null then 0 else '
                'coalesce((select sum(v) from (select unnest(a%1$s) as v) as x), 0) '
                '- coalesce((select sum(v) from (select unnest(b%1$s) as v) as x), 0) end), 0)::bigint',
                v_money) end,
            v_table.pack_name)
        into inserted, updated, deleted, cents using p_run;
        if inserted is not null or updated is not null or deleted is not null then
            inserted := coalesce(inserted, 0);
            updated := coalesce(updated, 0);
            deleted := coalesce(deleted, 0);
            return next;
        end if;
    end loop;
end;
$$;

comment on function backfill.run_totals(uuid) is 'Rows by operation and the change in cents of a run, for each table it touched.';

create function backfill.run_digest(p_run uuid) returns text
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_log backfill.backfill_log;
    v_table backfill.tracked;
    v_operation "char";
    v_unnest text;
    v_had text;
    v_values text;
    v_before boolean[];
    v_after boolean[];
    v_part text;
    v_parts text := '';
begin
    select * into v_log from backfill.backfill_log where run_id = p_run;
    if not found then
        raise exception 'there is no run %', p_run using errcode = 'BF009', hint = 'select run_id, backfill from backfill.backfill_log;';
    end if;
    for v_table in select * from backfill.tracked order by table_name collate "C" loop
        foreach v_operation in array '{D,I,U}'::"char"[] loop
            -- A column that was added after the run is in none of its packs: an old run keeps its digest. Arrays that
            -- no pack holds (what an update left alone) are not even unpacked.
            execute format('select array[%s], array[%s] from backfill_audit.%I where run_id = $1 and operation = $2',
                (select string_agg(format('bool_or(b%s is not null)', i), ', ' order by i) from generate_subscripts(v_table.columns, 1) as i),
                (select string_agg(format('bool_or(a%s is not null)', i), ', ' order by i) from generate_subscripts(v_table.columns, 1) as i),
                v_table.pack_name)
            into v_before, v_after using p_run, v_operation;
            continue when array_position(v_before || v_after, true) is null;
            -- Of an update it is the key and what changed, from what to what: the rest is as it was and would only cost time.
            select string_agg(format('unnest(p.%1$s%2$s) as %1$s%2$s', s.side, s.i), ', ' order by s.side, s.i),
                string_agg(distinct format('p.b%1$s is not null as had%1$s', s.i), ', '),
                -- "Now" differs between a rehearsal and its apply; the moment the run began counts as equal.
                string_agg(case s.stored
                    when 'timestamp with time zone' then format('case when %1$s = $2 then ''-infinity'' else %1$s end', s.value)
                    when 'timestamp without time zone' then format('case when %1$s = $3 then ''-infinity'' else %1$s end', s.value)
                    else s.value end || s.told, ', ' order by s.name collate "C", s.side)
            into v_unnest, v_had, v_values
            from (
                select c.name, c.stored, c.i, d.side,
                    case when v_operation <> 'U' or c.name = any(v_table.key_columns) and d.side = 'a' then format('u.%s%s', d.side, c.i)
                        -- A pack without the array before left the column alone in all its rows.
                        else format('case when u.had%1$s and u.b%1$s is distinct from u.a%1$s then u.%2$s%1$s end', c.i, d.side)
                    end as value,
                    -- A second value tells a change from null, or to null, from none.
                    case when v_operation = 'U' and d.side = 'b'
                        then format(', u.had%1$s and u.b%1$s is distinct from u.a%1$s', c.i) else '' end as told
                from unnest(v_table.columns, v_table.stored_types) with ordinality as c (name, stored, i)
                cross join (values ('a'), ('b')) as d (side)
                where case when v_operation = 'U' then v_before[c.i] or c.name = any(v_table.key_columns) and d.side = 'a'
                    when d.side = 'a' then v_after[c.i] else v_before[c.i] end
            ) as s;
            -- A record's hash is linear in those of its columns: without hashing it once more, two rows that
            -- exchange an amount would add up to the same.
            execute format('select format(''%%s %%s %%s'', $4, count(*), sum(hashint8extended(hash_record_extended(row(%s), 0), 0))) '
                'from (select %s, %s from backfill_audit.%I as p where p.run_id = $1 and p.operation = $4) as u',
                v_values, v_unnest, v_had, v_table.pack_name)
            into v_part using p_run, v_log.started_at, v_log.started_at at time zone v_log.time_zone, v_operation;
            v_parts := v_parts || format('%s: %s;', v_table.table_name, v_part);
        end loop;
    end loop;
    return encode(sha256(convert_to(v_parts, 'UTF8')), 'hex');
end;
$$;

comment on function backfill.run_digest(uuid) is
'Order-independent hash of all changes of a run. Equal for a rehearsal and an apply that write the same rows: the run''s
own start time counts as equal wherever it was written.';

create function backfill.start_run(
    p_backfill text, p_parameters jsonb, p_subject jsonb, p_mode text, p_actor text, p_spans_transactions boolean,
    p_reverses uuid
) returns uuid
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run uuid;
begin
    if backfill.open_run() is not null then
        raise exception 'run % is already open in this transaction', backfill.open_run()
            using errcode = 'BF001', hint = 'Finish it first: select * from backfill.finish_run();';
    end if;
    if coalesce(p_backfill, '') = '' then
        raise exception 'a run needs a name or a title' using errcode = 'BF009', hint = 'select backfill.begin_run(''hotfix: why'');';
    end if;
    perform backfill.take_lock();
    perform backfill.refresh_tracked();
    insert into backfill.backfill_log (backfill, parameters, subject, mode, actor, spans_transactions, reverses)
    values (p_backfill, p_parameters, p_subject, p_mode, concat_ws(' via ', nullif(p_actor, session_user), session_user), p_spans_transactions, p_reverses)
    returning run_id into v_run;
    perform set_config('backfill.run_id', v_run::text, true);
    perform set_config('backfill.statement', '0', true);
    return v_run;
end;
$$;

comment on function backfill.start_run(text, jsonb, jsonb, text, text, boolean, uuid) is
'What begin_run() and reverse_run() share. Granted to nobody: an open reversal may change what is immutable otherwise.';

create function backfill.begin_run(
    p_backfill text, p_parameters jsonb default '{}', p_subject jsonb default '{}', p_mode text default 'manual',
    p_actor text default null, p_spans_transactions boolean default false
) returns uuid
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_mode = 'reversal' then
        raise exception 'a reversal cannot be begun by hand' using errcode = 'BF001',
            hint = 'It writes what its run found before, and nothing else: select * from backfill.reverse_run(run);';
    end if;
    return backfill.start_run(p_backfill, p_parameters, p_subject, p_mode, p_actor, p_spans_transactions, null);
end;
$$;

comment on function backfill.begin_run(text, jsonb, jsonb, text, text, boolean) is
'Opens a run in this transaction: from here on every change of a tracked table is captured, until backfill.finish_run().
A run that spans transactions is committed first, and continued with backfill.resume_run(run) in each.';

create function backfill.resume_run(p_run uuid) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_last integer;
    v_max integer := 0;
begin
    if backfill.open_run() is not null then
        raise exception 'run % is already open in this transaction', backfill.open_run() using errcode = 'BF001';
    end if;
    perform backfill.take_lock();
    perform backfill.refresh_tracked();
    if not exists (select from backfill.backfill_log where run_id = p_run and status = 'running' and spans_transactions) then
        raise exception 'run % is not a running run that spans transactions', p_run using errcode = 'BF001';
    end if;
    for v_table in select * from backfill.tracked loop
        execute format('select max(statement) from backfill_audit.%I where run_id = $1', v_table.pack_name) into v_last using p_run;
        v_max := greatest(v_max, v_last);
    end loop;
    perform set_config('backfill.run_id', p_run::text, true);
    perform set_config('backfill.statement', v_max::text, true);
end;
$$;

comment on function backfill.resume_run(uuid) is 'Goes on with a run that spans transactions, in a new transaction.';

create function backfill.finish_run(
    p_metrics jsonb default '{}', p_errors jsonb default '[]', p_status text default null
) returns backfill.backfill_log
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run uuid := backfill.require_run('select backfill.begin_run(''title'');');
    v_log backfill.backfill_log;
begin
    update backfill.backfill_log
    set metrics = metrics || p_metrics || jsonb_build_object('tables', coalesce((
            select jsonb_object_agg(t.table_name, to_jsonb(t) - 'table_name') from backfill.run_totals(v_run) as t), '{}')),
        errors = errors || p_errors,
        status = coalesce(p_status, case when errors || p_errors = '[]' then 'succeeded' else 'partial' end),
        digest = backfill.run_digest(v_run),
        completed_at = clock_timestamp()
    where run_id = v_run
    returning * into v_log;
    perform set_config('backfill.run_id', '', true);
    perform set_config('backfill.statement', '', true);
    return v_log;
end;
$$;

comment on function backfill.finish_run(jsonb, jsonb, text) is
'Closes the open run: counts its changes, computes its digest, and returns its row of the log.';

create function backfill.register(
    p_backfill text, p_system text, p_description text, p_position integer, p_due_relation text,
    p_function_name text, p_tables text[], p_rejects_relation text default null
) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table text;
begin
    perform backfill.require_columns(p_due_relation, '{"cents": "bigint"}');
    if p_rejects_relation is not null then
        perform backfill.require_columns(p_rejects_relation,
            '{"source": "text", "source_key": "text", "line": "bigint", "reason": "text", "cents": "bigint", "payload": "jsonb"}');
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
    insert into backfill.catalog
    values (p_backfill, p_system, p_description, p_position, p_due_relation, p_rejects_relation, p_function_name, p_tables)
    on conflict (backfill) do update
    set system = excluded.system, description = excluded.description, position = excluded.position,
        due_relation = excluded.due_relation, rejects_relation = excluded.rejects_relation,
        function_name = excluded.function_name, tables = excluded.tables;
end;
$$;

comment on function backfill.register(text, text, text, integer, text, text, text[], text) is
'Puts a backfill into the catalog, and refuses it unless its due view, function and tables are as the engine needs them.';

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
returns table (source text, source_key text, line bigint, reason text, cents bigint, payload jsonb)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_entry backfill.catalog := backfill.entry(p_backfill);
begin
    if v_entry.rejects_relation is not null then
        return query execute format($sql$
            select x.source, x.source_key, x.line, x.reason, x.cents, x.payload
            from %s as x
            where not exists (
                select from backfill.reject as r
                join backfill.backfill_log as l on l.run_id = r.run_id and l.status <> 'reversed'
                where r.backfill = $1 and r.source = x.source and r.source_key = x.source_key and r.reason = x.reason
            )$sql$, v_entry.rejects_relation) using p_backfill;
    end if;
end;
$$;

comment on function backfill.new_rejects(text) is
'Source rows that the backfill cannot take and that no standing run was allowed to leave out before.';

create function backfill.due(p_backfills text[] default null)
returns table (backfill text, system text, due_rows bigint, due_cents bigint, rejects bigint, description text)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_entry backfill.catalog;
begin
    for v_entry in
        select * from backfill.catalog as c where p_backfills is null or c.backfill = any (p_backfills) order by c.position
    loop
        backfill := v_entry.backfill;
        system := v_entry.system;
        description := v_entry.description;
        execute format('select count(*), coalesce(sum(cents), 0)::bigint from %s', v_entry.due_relation) into due_rows, due_cents;
        select count(*) into rejects from backfill.new_rejects(v_entry.backfill);
        return next;
    end loop;
end;
$$;

comment on function backfill.due(text[]) is 'For each backfill (of those named): rows and cents still to write, and source rows that it cannot take.';

create function backfill.run(
    p_backfill text, p_parameters jsonb default '{}', p_allow_rejects integer default 0, p_actor text default null
) returns backfill.backfill_log
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_entry backfill.catalog := backfill.entry(p_backfill);
    v_run uuid;
    v_before jsonb;
    v_after jsonb;
    v_totals jsonb;
    v_wrong text;
    v_rejects bigint;
    v_listed text;
    v_metrics jsonb;
begin
    v_run := backfill.begin_run(p_backfill, p_parameters, p_mode => 'apply', p_actor => p_actor);
    with seen as (
        insert into backfill.reject (run_id, backfill, source, source_key, line, reason, cents, payload)
        select v_run, p_backfill, n.source, n.source_key, n.line, n.reason, n.cents, n.payload
        from backfill.new_rejects(p_backfill) as n
        returning source, source_key, line, reason
    )
    select count(*), string_agg(format('%s %s: %s', s.source, coalesce('line ' || s.line, s.source_key), s.reason),
        e'\n' order by s.source, s.line, s.source_key) filter (where s.place <= 10)
    into v_rejects, v_listed
    from (select *, row_number() over (order by source, line, source_key) as place from seen) as s;
    if v_rejects > p_allow_rejects then
        raise exception 'backfill %: % source rows cannot be taken, % allowed', p_backfill, v_rejects, p_allow_rejects
            using errcode = 'BF004', detail = v_listed,
                hint = 'Mend the rows, or allow them: runner apply --allow-rejects N, backfill.run(name, ''{}'', N).';
    end if;

    select jsonb_object_agg(t.table_name, to_jsonb(t) - 'table_name') into v_before from backfill.control_totals() as t;
    execute format('select %s($1)', v_entry.function_name) into v_metrics using p_parameters;
    select jsonb_object_agg(t.table_name, to_jsonb(t) - 'table_name') into v_after from backfill.control_totals() as t;

    select jsonb_agg(x order by x.table_name),
        string_agg(format('%s: %s rows, %s cents expected, %s rows, %s cents found',
            x.table_name, x.rows_before + x.rows_changed, x.cents_before + x.cents_changed, x.rows_after, x.cents_after), '; ')
        filter (where x.rows_before + x.rows_changed <> x.rows_after or x.cents_before + x.cents_changed <> x.cents_after)
    into v_totals, v_wrong
    from (
        select b.key as table_name,
            (b.value ->> 'row_count')::bigint as rows_before, coalesce(c.inserted - c.deleted, 0) as rows_changed,
            (v_after -> b.key ->> 'row_count')::bigint as rows_after,
            (b.value ->> 'cents')::bigint as cents_before, coalesce(c.cents, 0) as cents_changed,
            (v_after -> b.key ->> 'cents')::bigint as cents_after
        from jsonb_each(v_before) as b
        left join backfill.run_totals(v_run) as c on c.table_name = b.key
    ) as x;
    -- At read committed, others' commits between the two counts would look like changes of our own.
    if v_wrong is not null and current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'backfill %: before + changes do not make after: %', p_backfill, v_wrong using errcode = 'BF011';
    end if;
    return backfill.finish_run(coalesce(v_metrics, '{}')
        || jsonb_build_object('rejects', v_rejects, 'control_totals', coalesce(v_totals, '[]')));
end;
$$;

comment on function backfill.run(text, jsonb, integer, text) is
'One whole backfill as a run: rejects counted and kept (BF004 where there are more than allowed), what is due written,
control totals proved (BF011). Returns the run''s row of the log. In the SQL editor: begin; select * from backfill.run(''charges''); commit;';

revoke execute on all functions in schema backfill from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.control_totals()');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.run_totals(uuid)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.run_digest(uuid)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.due(text[])');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.new_rejects(text)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.entry(text)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.take_lock()');
    perform backfill.grant_to('backfill_operator',
        'execute on function backfill.begin_run(text, jsonb, jsonb, text, text, boolean)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.resume_run(uuid)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.finish_run(jsonb, jsonb, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.run(text, jsonb, integer, text)');
end;
$do$;
