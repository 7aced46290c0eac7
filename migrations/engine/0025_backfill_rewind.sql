-- Around a reversal: trying it, undoing several runs, closing one that died, what a restored table is, why an apply differed.
-- Safe: functions only; a proof leaves nothing, the others are all or nothing.
-- depends: 0024_backfill_proof

create function backfill.prove_undo(p_run uuid) returns table (proved boolean, row_count bigint, refusal text)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set client_min_messages = warning  -- what the undo would say of itself is said of one that is not done
as $$
declare
    v_left bigint;
    v_message text;
    v_detail text;
    v_hint text;
begin
    proved := false;
    begin  -- a savepoint: the transaction, and what it knows of an open run, are afterwards what they were before
        select count(*) into row_count from backfill.reverse_run(p_run);
        select count(*) into v_left from backfill.reversal_preview(p_run) as r where r.result <> 'already original';
        if v_left > 0 then
            raise exception 'run % cannot be reversed: % of % rows did not come back as they were', p_run, v_left, row_count
                using errcode = 'BF005';
        end if;
        proved := true;
        raise exception using errcode = 'BF005', message = 'proved: to be rolled back';
    exception
        -- Not about the run: others' locks, cancelling, a full disk, and a run that cannot be asked about.
        when transaction_rollback or lock_not_available or operator_intervention or insufficient_resources
            or internal_error or sqlstate 'BF001' or sqlstate 'BF009' then
            raise;
        when others then
            if not proved then
                get stacked diagnostics v_message = message_text, v_detail = pg_exception_detail, v_hint = pg_exception_hint;
                refusal := concat_ws(e'\n', v_message, nullif(v_detail, ''), nullif(v_hint, ''));
            end if;
    end;
    if not proved then
        row_count := 0;
    end if;
    return next;
end;
$$;

comment on function backfill.prove_undo(uuid) is
'Undoes a run below a savepoint, compares every row with what it was before the run, and takes the undo back: true with the
number of rows, or why it would be refused. Leaves nothing. For a rehearsal, after finish_run() in the same transaction.';

create function backfill.abandon_run(p_run uuid, p_reason text) returns backfill.backfill_log
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_log backfill.backfill_log;
begin
    if coalesce(trim(p_reason), '') = '' then
        raise exception 'run % is abandoned for a reason', p_run
            using errcode = 'BF001', hint = format('select * from backfill.abandon_run(%L, ''its worker was killed'');', p_run);
    end if;
    perform backfill.take_lock();  -- waits for whoever is still at it, in a transaction of the run
    select * into v_log from backfill.backfill_log where run_id = p_run;
    if not found then
        raise exception 'there is no run %', p_run using errcode = 'BF009', hint = 'select run_id, backfill from backfill.backfill_log;';
    elsif v_log.status <> 'running' then
        raise exception 'run % (%) is % already', p_run, v_log.backfill, v_log.status
            using errcode = 'BF001', hint = format('To undo it: select * from backfill.reverse_run(%L);', p_run);
    end if;
    perform backfill.resume_run(p_run);
    return backfill.finish_run('{}', jsonb_build_array(jsonb_build_object('abandoned', p_reason, 'by', session_user)), 'partial');
end;
$$;

comment on function backfill.abandon_run(uuid, text) is
'Closes a run that spans transactions and whose worker died: partial, with what it wrote until then, so that it can be looked at
and reversed. The reason is kept among its errors.';

create function backfill.runs_since(p_run uuid) returns setof uuid
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_since timestamptz;
begin
    select coalesce(completed_at, started_at) into v_since from backfill.backfill_log where run_id = p_run;
    if not found then
        raise exception 'there is no run %', p_run using errcode = 'BF009', hint = 'select run_id, backfill from backfill.backfill_log;';
    end if;
    -- A run, its undos, theirs, and so on are one matter, which stands or not: every second generation puts the same in place.
    -- Where it stands otherwise than before the run, undoing its newest member turns it round.
    return query
    with recursive family as (
        select l.run_id, l.run_id as first_run, 0 as generation, coalesce(l.completed_at, 'infinity') as at
        from backfill.backfill_log as l where l.reverses is null
        union all
        select l.run_id, f.first_run, f.generation + 1, coalesce(l.completed_at, 'infinity')
        from family as f join backfill.backfill_log as l on l.reverses = f.run_id
    ),
    newest as (
        select distinct on (first_run) first_run, run_id, generation % 2 = 0 as stands, at from family order by first_run, at desc, generation desc
    ),
    earlier as (
        select distinct on (first_run) first_run, generation % 2 = 0 as stood from family where at < v_since order by first_run, at desc, generation desc
    )
    select n.run_id from newest as n left join earlier as e on e.first_run = n.first_run
    where n.at >= v_since and n.stands <> coalesce(e.stood, false)
    order by n.at desc;
end;
$$;

comment on function backfill.runs_since(uuid) is
'The runs to undo, one after the other, so that all is as it was before this run: it and what came after it, the newest first.';

create function backfill.reverse_since(p_run uuid, p_actor text default null)
returns table (run_id uuid, reversal_id uuid, backfill text, table_name text, business_key text, result text)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.take_lock();
    foreach run_id in array array(select r from backfill.runs_since(p_run) as r) loop
        -- A load that captured nothing has nothing to undo: its files stay landed.
        continue when exists (select from backfill.backfill_log as l where l.run_id = reverse_since.run_id and l.mode = 'load')
            and not exists (select from backfill.run_totals(reverse_since.run_id));
        select l.backfill into reverse_since.backfill from backfill.backfill_log as l where l.run_id = reverse_since.run_id;
        reversal_id := null;
        for table_name, business_key, result in select * from backfill.reverse_run(reverse_since.run_id, p_actor) loop
            if reversal_id is null then
                select l.run_id into reversal_id from backfill.backfill_log as l
                where l.reverses = reverse_since.run_id order by l.completed_at desc limit 1;
            end if;
            return next;
        end loop;
    end loop;
end;
$$;

comment on function backfill.reverse_since(uuid, text) is
'Undoes a run and all that came after it, the newest first, each by a run of its own: all of them or, where one is refused, none.
Returns each row with its run and its result. Twice is a no-op. To look first: begin; select * from backfill.reverse_since(run); rollback;';

create function backfill.rebind(p_relation regclass, p_columns jsonb default '{}', p_was text default null) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_column record;
    v_captured boolean;
    v_trigger record;
begin
    perform backfill.refuse_open_run('backfill.rebind()');
    perform backfill.refuse_untrackable(p_relation);
    lock table backfill.tracked in share row exclusive mode;
    perform backfill.rebind_tracked();
    select * into v_table from backfill.tracked where case when p_was is null then relation = p_relation else table_name = p_was end;
    if not found then
        raise exception 'no table % is in the register', coalesce(p_was, p_relation::text) using errcode = 'BF009', hint = 'select table_name, doubt from backfill.tracked;';
    elsif v_table.doubt is null and exists (select from pg_class where oid = v_table.relation) then
        if v_table.relation <> p_relation or p_columns <> '{}' then
            raise exception 'nothing of % is in doubt: the register follows it by itself', v_table.table_name using errcode = 'BF002', hint = 'select table_name, doubt from backfill.tracked;';
        end if;
        return;
    elsif v_table.relation <> p_relation then
        perform backfill.untrack(p_relation);
        if exists (select from backfill.tracked where relation = p_relation) then
            raise exception '% has a history of its own', p_relation using errcode = 'BF002', hint = 'It cannot be another table, too: correct by hand from backfill.change_log.';
        end if;
    end if;
    execute format('select exists (select from backfill_audit.%I where statement > $1)', v_table.images_name)
    into v_captured using coalesce((v_table.doubt ->> 'until')::bigint, 9223372036854775807);
    if v_captured and (p_columns <> '{}' or v_table.relation <> p_relation) then
        raise exception 'runs captured % as it is called now: what came before cannot be put under other names', v_table.table_name
            using errcode = 'BF002', hint = format('Correct by hand from backfill.change_log; as it is: select backfill.rebind(%L);', v_table.table_name);
    end if;
    for v_column in
        select c.name, c.now, v_table.doubt -> 'columns' ? c.name as had, exists (select from pg_attribute as a
            where a.attrelid = p_relation and a.attname = c.now and a.attnum > 0 and not a.attisdropped) as has
        from jsonb_each_text(p_columns) as c (name, now)
    loop
        if v_column.had is not true or not (v_column.has or v_column.now is null) then
            raise exception '% is no column that % %', case when v_column.had then v_column.now else v_column.name end, v_table.table_name,
                case when v_column.had then 'has' else 'had before it was restored' end
                using errcode = 'BF002', hint = format('It had: %s.', (select string_agg(k, ', ' order by k) from jsonb_object_keys(v_table.doubt -> 'columns') as k));
        end if;
    end loop;

    if v_table.relation <> p_relation then
        for v_trigger in select tgname from pg_trigger where tgrelid = v_table.relation and not tgisinternal
                and tgname ~ '^backfill_(capture_(insert|update|delete)|refuse_truncate|use_path)$' loop
            execute format('drop trigger %I on %s', v_trigger.tgname, v_table.relation::regclass);
        end loop;
    end if;
    if v_table.doubt is null or p_columns <> '{}' or v_table.relation <> p_relation then
        -- Places as they were before the restore; one that was made for a new name since is empty.
        v_table.attnums := array_fill(null::smallint, array[cardinality(v_table.columns)]);
        for v_column in
            select c.place::integer, c.name, coalesce(p_columns ->> c.name, c.name) as now, a.attnum
            from coalesce(v_table.doubt -> 'columns', (select jsonb_object_agg(x.name, x.i)
                from unnest(v_table.columns, v_table.types) with ordinality as x (name, type, i) where x.type is not null)) as d (columns)
            cross join lateral jsonb_each_text(d.columns) as c (name, place)
            left join pg_attribute as a on a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attname = case
                when p_columns ? c.name then p_columns ->> c.name
                when not exists (select from jsonb_each_text(p_columns) as m where m.value = c.name) then c.name end
        loop
            v_table.columns[v_column.place] := v_column.now;
            v_table.attnums[v_column.place] := v_column.attnum;
        end loop;
        v_table.business_key := array(select coalesce(p_columns ->> k.name, k.name) from unnest(v_table.business_key) with ordinality as k (name, i) order by k.i);
        v_table.key_columns := backfill.primary_key(p_relation);
        v_table.stamped := array(select coalesce(p_columns ->> s, s) from unnest(v_table.stamped) as s);
        v_table.money := coalesce(p_columns ->> v_table.money, v_table.money);
        v_table.currency_column := coalesce(p_columns ->> v_table.currency_column, v_table.currency_column);
        v_table.void := case when v_table.void is not null then coalesce(p_columns ->> v_table.void[1], v_table.void[1]) || v_table.void[2:] end;
    end if;
    v_table.relation := p_relation;
    v_table := backfill.follow_columns(v_table);
    update backfill.tracked
    set doubt = null, relation = p_relation, anchor = 'backfill.tracked'::regclass, columns = v_table.columns, attnums = v_table.attnums,
        types = v_table.types, business_key = v_table.business_key, key_columns = v_table.key_columns, stamped = v_table.stamped,
        money = v_table.money, currency_column = v_table.currency_column, void = v_table.void,
        table_name = (select format('%I.%I', n.nspname, c.relname) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = p_relation)
    where pack_name = v_table.pack_name;
    if v_table.active then
        perform backfill.track(p_relation, p_search_path => null);
    else
        perform backfill.rebuild_change_log();
    end if;
end;
$$;

comment on function backfill.rebind(regclass, jsonb, text) is
'Settles what is in doubt since a restore: that this table is it (was: the name under which it is in the register, where that is another),
and which columns were renamed before: {"old": "new"}, null for one that was dropped. Before the next run: afterwards only what needs no renaming.';

create function backfill.column_parts(p_run uuid)
returns table (
    table_name text, operation text, column_name text, row_count bigint, sum text, clock boolean, source text,
    triggers text, call text
)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_log backfill.backfill_log;
    v_table backfill.tracked;
    v_volatile constant text := '\m(random\w*|gen_random_\w+|uuid_?v[0-9]|uuid_generate_\w+|nextval|clock_timestamp|statement_timestamp|timeofday)\s*\(';
begin
    select * into v_log from backfill.backfill_log as l where l.run_id = p_run;
    for v_table in select * from backfill.tracked as t where t.pack_name in (select backfill.written_tables(p_run)) order by t.table_name loop
        return query execute coalesce((
            with g as materialized (select * from backfill.setting_triggers(v_table.relation))
            select string_agg(format('select %1$L, p.operation::text, %2$L, count(*), sum(hash_record_extended(row(%3$s), 0))::text, '
                'coalesce(bool_and(%4$s), false), %5$L, %6$L, %7$L from backfill_audit.%8$I as p '
                'cross join lateral unnest(case when p.operation = ''D'' then p.b%9$s else p.a%9$s end) as u (v) where p.run_id = %10$L group by p.operation',
                v_table.table_name, c.name, case when c.timed then format('case when v <> %L then v end', c.start) else 'v' end,
                case when c.timed then format('v > %L and v <= clock_timestamp()', c.start) else 'false' end,
                coalesce(case when a.attidentity <> '' then 'identity' end, 'default ' || substring(pg_get_expr(d.adbin, d.adrelid) from v_volatile),
                    (select min(format('%s calls %s()', l.function_name, substring(regexp_replace(concat(pg_get_functiondef(to_regproc(l.function_name)),
                        pg_get_viewdef(to_regclass(l.due_relation))), '--[^\n]*', '', 'g') from v_volatile))) from backfill.catalog as l where l.backfill = v_log.backfill)),
                s.triggers, case when s.triggers is not null or c.timed then format('select backfill.track(%L, p_stamped => %L);', v_table.table_name,
                    v_table.stamped || case when s.triggers is not null then s.columns else array[c.name] end) end, v_table.images_name, c.i, p_run), ' union all ')
            from (
                select x.name, x.i, x.attnum, x.stored ~ '^timestamp' as timed, case when x.stored = 'timestamp without time zone'
                    then (v_log.started_at at time zone v_log.time_zone)::text else v_log.started_at::text end as start
                from unnest(v_table.columns, v_table.stored_types, v_table.attnums) with ordinality as x (name, stored, attnum, i)
                where x.attnum is not null and x.name <> all (v_table.stamped)
                    and not exists (select 1 from jsonb_to_recordset(backfill.held_keys(v_log, v_table)) as k (at integer) where k.at = x.i)
            ) as c
            join pg_attribute as a on a.attrelid = v_table.relation and a.attnum = c.attnum
            left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum and a.attgenerated = ''
            left join lateral (
                select string_agg(distinct g.trigger_name, ', ') filter (where c.name = any (g.stamps)) as triggers,
                    array_agg(distinct k order by k) filter (where k <> all (v_table.stamped || v_table.key_columns)) as columns
                from g cross join lateral unnest(g.stamps) as k
            ) as s on true), 'select null::text, null::text, null::text, 0::bigint, null::text, false, null::text, null::text, null::text where false');
    end loop;
end;
$$;

comment on function backfill.column_parts(uuid) is 'What a run wrote, by table, operation and column: a sum of hashes, by which an attempt is told from another; whether all of it is the
clock''s time since the run began; what by its definition gives another value each time (identity, a default, a call in the backfill''s
function); the triggers that set it so, and the call that declares it stamped.';

revoke execute on function backfill.column_parts(uuid), backfill.prove_undo(uuid), backfill.abandon_run(uuid, text),
backfill.runs_since(uuid), backfill.reverse_since(uuid, text), backfill.rebind(regclass, jsonb, text) from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.stamping_triggers()');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.runs_since(uuid)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.column_parts(uuid), backfill.prove_undo(uuid)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.abandon_run(uuid, text), backfill.reverse_since(uuid, text)');
end;
$do$;
