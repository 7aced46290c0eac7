-- Closing a run, its totals, and one whole backfill by its name.
-- Safe: functions only; they write to the log, the rejects and what the backfill writes. The proof comes with 0024, the digest with 0014.
-- depends: 0012_backfill_session

create function backfill.control_totals(p_tables text[] default null)
returns table (table_name text, row_count bigint, money jsonb, finer bigint)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set row_security = off  -- a hidden row is an error, not one row less
as $$
declare
    v_table backfill.tracked;
begin
    for v_table in
        select t.* from backfill.tracked as t join pg_class as c on c.oid = t.relation
        where t.active and (p_tables is null or t.table_name = any (p_tables)) order by t.table_name
    loop
        table_name := v_table.table_name;
        execute backfill.sum_of_money(v_table.relation::regclass::text || ' as x', 'x.' || quote_ident(v_table.money),
            v_table.stored_types[array_position(v_table.columns, v_table.money)],
            backfill.currency_sql('x.' || quote_ident(v_table.currency_column), v_table.currency, 'x.' || quote_ident(v_table.void[1]), v_table.void[2:]))
        into row_count, money, finer;
        return next;
    end loop;
end;
$$;

comment on function backfill.control_totals(text[]) is
'Rows and money by currency of tracked tables, as the transaction sees them, and how many amounts are finer than their currency: of all, or of
these, and no other is read.';

create function backfill.run_stamped(p_run uuid) returns jsonb
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    -- By what does not change when a table or a column is renamed; the names are for people.
    select case when count(*) = 0 then '{}'::jsonb else jsonb_build_object('stamped', jsonb_object_agg(t.pack_name, jsonb_build_object(
        'table', t.table_name, 'columns', t.stamped, 'places', array(select array_position(t.columns, s) from unnest(t.stamped) as s)))) end
    from backfill.tracked as t where t.stamped <> '{}' and t.pack_name in (select backfill.written_tables(p_run));
$$;

comment on function backfill.run_stamped(uuid) is
'Stamped columns of the tables that a run wrote, for its log: its digest is without them, also when others are declared later.';

create function backfill.application_path() returns text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    -- Of all tracked tables, since which of them a deferred trigger belongs to is not known.
    select coalesce(string_agg(x.name || ', ', '' order by x.place), '') || 'pg_temp'
    from (
        select p.name[1] as name, min(t.table_name || ' ' || lpad(p.i::text, 3, '0')) as place
        from backfill.tracked as t
        -- A quoted name may hold a comma.
        cross join lateral regexp_matches(t.search_path, '"(?:[^"]|"")+"|[^ ,]+', 'g') with ordinality as p (name, i)
        where t.active and p.name <> '{pg_temp}'
        group by p.name
    ) as x;
$$;

comment on function backfill.application_path() is 'The search_path in which triggers of tracked tables find what they name without a schema.';

create function backfill.fire_deferred(p_path text) returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    -- As at the commit: with the rights of whoever calls, and the path that the application's triggers know.
    if p_path ~ 'pg_temp$' then
        p_path := backfill.application_path();
    end if;
    perform set_config('search_path', p_path, true);
    perform backfill.fire_constraints();
    return true;
end;
$$;

comment on function backfill.fire_deferred(text) is 'Fires what is deferred, and returns true. Whatever it writes belongs to the open run.';

create function backfill.close_transaction() returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_before refcursor := 'backfill_before';
begin
    perform backfill.fire_constraints();  -- fired already, unless somebody calls this by hand
    perform backfill.prove_transaction();
    if exists (select 1 from pg_cursors where name = 'backfill_before') then
        close v_before;
    end if;
    delete from backfill.run_transaction where xid = pg_current_xact_id();
    drop table pg_temp.backfill_open_run;
end;
$$;

comment on function backfill.close_transaction() is
'Proves (BF012) that what was captured in this transaction is all that happened to tracked tables, and ends the capture.';

create function backfill.leave_transaction(p_fired boolean) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select 1 from backfill.backfill_log
        where run_id = backfill.require_run('select backfill.resume_run(run);') and spans_transactions
    ) then
        raise exception 'run % does not span transactions', backfill.open_run()
            using errcode = 'BF001', hint = 'Finish it: select * from backfill.finish_run();';
    end if;
    perform backfill.weigh_run(backfill.open_run(), false), backfill.close_transaction();
    perform backfill.defer_constraints();
end;
$$;

comment on function backfill.leave_transaction(boolean) is 'The part of leave_run() that needs the engine''s rights.';

create function backfill.leave_run() returns void
language sql volatile
security invoker
return backfill.leave_transaction(backfill.fire_deferred(current_setting('search_path')));

comment on function backfill.leave_run() is
'A run that spans transactions goes on in another one: what this transaction writes from here on is not captured. The commit does it
by itself.';

create function backfill.close_run(p_metrics jsonb, p_errors jsonb, p_status text, p_fired boolean)
returns backfill.backfill_log
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run uuid := backfill.require_run('select backfill.begin_run(''title'');');
    v_parts jsonb;
    v_log backfill.backfill_log;
begin
    perform backfill.close_transaction();
    v_parts := backfill.digest_parts(v_run);
    update backfill.backfill_log
    set metrics = metrics || p_metrics || coalesce(backfill.weigh_run(v_run, true), '{}') || jsonb_build_object('tables', coalesce((
            select jsonb_object_agg(t.table_name, to_jsonb(t) - 'table_name') from backfill.run_totals(v_run) as t), '{}')) || backfill.run_stamped(v_run)
            || backfill.run_assigned(v_run),
        errors = errors || p_errors,
        status = coalesce(p_status, case when errors || p_errors = '[]' then 'succeeded' else 'partial' end),
        digest = backfill.digest_of(v_parts),
        parts = v_parts,
        completed_at = clock_timestamp()
    where run_id = v_run
    returning * into v_log;
    perform backfill.defer_constraints();
    perform backfill.link_run(v_log);  -- last: from here on until the commit, others who finish a run wait
    return v_log;
end;
$$;

comment on function backfill.close_run(jsonb, jsonb, text, boolean) is 'The part of finish_run() that needs the engine''s rights.';

create function backfill.close_own_run(
    p_metrics jsonb, p_errors jsonb, p_status text, p_fired boolean
) returns backfill.backfill_log
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_claimed text := (select string_agg(k, ', ' order by k) from jsonb_object_keys(p_metrics) as k
        where k in ('tables', 'control_totals', 'stamped', 'stamped_anew', 'assigned', 'abandoned', 'undo', 'due') or k ~* '^(approv|digest)');
begin
    if v_claimed is not null then
        raise exception 'metrics % are the engine''s own to write', v_claimed
            using errcode = 'BF001', hint = 'Give yours another name; the engine counts the tables itself.';
    end if;
    -- Rejects are those that are kept, whatever the caller says.
    return backfill.close_run(p_metrics || case when not p_metrics ? 'rejects' then '{}'::jsonb else jsonb_build_object('rejects', (
        select count(*) from backfill.reject as r where r.run_id = backfill.open_run())) end, p_errors, p_status, p_fired);
end;
$$;

comment on function backfill.close_own_run(jsonb, jsonb, text, boolean) is
'close_run() for everybody: refuses (BF001) metrics that only the engine writes (control totals, tables, approvals).';

create function backfill.finish_run(
    p_metrics jsonb default '{}', p_errors jsonb default '[]', p_status text default null
) returns backfill.backfill_log
language sql volatile
security invoker
return backfill.close_own_run(p_metrics, p_errors, p_status, backfill.fire_deferred(current_setting('search_path')));

comment on function backfill.finish_run(jsonb, jsonb, text) is
'Closes the open run: fires what is deferred, proves that nothing was written past the capture (BF012), counts the changes, computes
their digest, and returns the run''s row of the log.';

create function backfill.run_in_catalog(
    p_backfill text, p_parameters jsonb, p_allow_rejects integer, p_actor text
) returns backfill.backfill_log
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_entry backfill.catalog := backfill.entry(p_backfill);
    v_as_of timestamptz;
    v_run uuid;
    v_due jsonb;
    v_before jsonb;
    v_after jsonb;
    v_totals jsonb;
    v_wrong text;
    v_rejects bigint;
    v_listed text;
    v_metrics jsonb;
begin
    v_as_of := backfill.as_of_for(v_entry);
    v_run := backfill.start_run(p_backfill, p_parameters, '{}', 'apply', p_actor, false, null);
    update backfill.backfill_log set as_of = v_as_of where run_id = v_run and v_as_of is not null;
    with seen as (
        insert into backfill.reject (run_id, backfill, source, source_key, line, reason, amount, currency, payload)
        select v_run, p_backfill, n.source, n.source_key, n.line, n.reason, n.amount, n.currency, n.payload
        from backfill.new_rejects(p_backfill) as n
        returning source, source_key, line, reason
    )
    select count(*), string_agg(format('%s %s: %s', s.source, coalesce('line ' || s.line, s.source_key), s.reason),
        e'\n' order by s.source, s.line, s.source_key) filter (where s.place <= 10)
    into v_rejects, v_listed
    from (select *, row_number() over (order by source, line, source_key) as place from seen) as s;
    if v_rejects > p_allow_rejects then
        raise exception 'backfill %: % source % cannot be taken, % allowed', p_backfill, v_rejects,
            case v_rejects when 1 then 'row' else 'rows' end, p_allow_rejects
            using errcode = 'BF004', detail = v_listed,
                hint = 'Mend the rows, or allow them: runner apply --allow-rejects N, backfill.run(name, ''{}'', N).';
    end if;

    select jsonb_build_object('rows', d.due_rows, 'money', d.due_money) into v_due from backfill.still_due(p_backfill) as d;
    -- No table outside the plan is read: that it did not change is known from the capture, which finish_run() proves to be whole.
    select jsonb_object_agg(t.table_name, to_jsonb(t) - 'table_name') into v_before from backfill.control_totals((backfill.entry(p_backfill)).tables) as t;
    v_metrics := backfill.call_backfill(v_entry.function_name, p_parameters);
    perform backfill.fire_deferred(current_setting('search_path'));
    select jsonb_object_agg(t.table_name, to_jsonb(t) - 'table_name') into v_after from backfill.control_totals((backfill.entry(p_backfill)).tables) as t;

    select jsonb_agg(x order by x.table_name),
        string_agg(format('%s: %s rows, %s expected, %s rows, %s found', x.table_name, x.rows_before + x.rows_changed,
            backfill.money_text(backfill.add_money(x.money_before, x.money_changed)), x.rows_after, backfill.money_text(x.money_after)), '; ')
        filter (where x.rows_before + x.rows_changed <> x.rows_after
            or x.money_before is not null and not backfill.same_money(backfill.add_money(x.money_before, x.money_changed), x.money_after))
    into v_totals, v_wrong
    from (
        select t.table_name,
            (v_before -> t.table_name ->> 'row_count')::bigint as rows_before, coalesce(c.inserted - c.deleted, 0) as rows_changed,
            coalesce(c.updated, 0) as rows_updated, (v_after -> t.table_name ->> 'row_count')::bigint as rows_after,
            nullif(v_before -> t.table_name -> 'money', 'null') as money_before, case when t.money is not null then coalesce(c.money, '{}') end as money_changed,
            nullif(v_after -> t.table_name -> 'money', 'null') as money_after, (v_after -> t.table_name ->> 'finer')::bigint as finer
        from backfill.tracked as t
        left join backfill.run_totals(v_run) as c on c.table_name = t.table_name
        where t.active
    ) as x;
    -- At read committed, others' commits between the two counts would look like changes of our own.
    if v_wrong is not null and current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'backfill %: before + changes do not make after: %', p_backfill, v_wrong using errcode = 'BF011';
    end if;
    return backfill.close_run(coalesce(v_metrics, '{}')
        || jsonb_build_object('rejects', v_rejects, 'due', v_due, 'control_totals', coalesce(v_totals, '[]')), '[]', null, true);
end;
$$;

comment on function backfill.run_in_catalog(text, jsonb, integer, text) is 'The part of run() that needs the engine''s rights.';

create function backfill.run(
    p_backfill text, p_parameters jsonb default '{}', p_allow_rejects integer default 0, p_actor text default null,
    p_as_of text default null
) returns backfill.backfill_log
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_done backfill.backfill_log;
begin
    if p_as_of is not null then
        perform backfill.set_as_of(backfill.moment(p_as_of));
    end if;
    perform backfill.mend_tracked(), backfill.fire_pending(current_setting('search_path'));
    v_done := backfill.run_in_catalog(p_backfill, p_parameters, p_allow_rejects, p_actor);
    -- What reads them next, a backfill or a gate, would be planned by what was there before. A few rows change no plan.
    perform backfill.analyze_tables(array(
        select t.table_name from backfill.run_totals(v_done.run_id) as t where t.inserted + t.updated + t.deleted >= 10000));
    return v_done;
end;
$$;

comment on function backfill.run(text, jsonb, integer, text, text) is
'One whole backfill as a run, of what was settled before p_as_of where one is given (BF015, BF016): rejects counted and kept (BF004 where there are more than allowed), what is due written,
control totals proved (BF011). Returns the run''s row of the log. In the SQL editor: begin; select * from backfill.run(''charges''); commit;';
