-- A fetch from Rotessa: it begins, goes on in steps that are committed one by one and can be resumed, and ends.
-- Safe: functions only. Of the application only finish_rotessa_fetch() writes, the schedule status and last sync of linked
-- mortgages, inside the fetch's run.
-- depends: 0502_staging_rotessa

create function staging.begin_rotessa_fetch(
    p_from date, p_to date default null, p_look_back_days integer default 45
) returns table (fetch_id uuid, resumed boolean, customers_done bigint[], next_page integer, scan_from date)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_fetch record;
begin
    if p_from is null or p_to < p_from or coalesce(p_look_back_days, -1) < 0 then
        raise exception 'a fetch from % to % with % days of look-back is none', coalesce(p_from::text, 'null'),
            coalesce(p_to::text, 'open'), coalesce(p_look_back_days::text, 'null')
            using errcode = 'BF041', hint = 'From is needed, and not after to.';
    end if;
    perform backfill.take_lock();
    resumed := false;
    for v_fetch in
        select f.*, l.started_at from staging.rotessa_fetch as f
        join backfill.backfill_log as l on l.run_id = f.fetch_id and l.status = 'running'
        order by l.started_at desc
    loop
        -- Pages move on as rows arrive: after a day they are no longer the same pages.
        if not resumed and v_fetch.date_from = p_from and v_fetch.date_to is not distinct from p_to
            and v_fetch.look_back_days = p_look_back_days and v_fetch.started_at > now() - interval '1 day' then
            resumed := true;
            fetch_id := v_fetch.fetch_id;
            customers_done := v_fetch.customers_done;
            next_page := v_fetch.next_page;
            scan_from := v_fetch.scan_from;
        elsif v_fetch.started_at <= now() - interval '1 day' then
            perform backfill.resume_run(v_fetch.fetch_id);
            perform backfill.finish_run('{}', jsonb_build_array('left unfinished for a day, and not resumed'), 'failed');
        end if;
    end loop;
    if not resumed then
        fetch_id := backfill.begin_run('fetch rotessa',
            jsonb_strip_nulls(jsonb_build_object('from', p_from, 'to', p_to, 'look_back_days', p_look_back_days)),
            jsonb_build_object('triggered_by', session_user), 'load', p_spans_transactions => true);
        perform backfill.leave_run();
        customers_done := '{}';
        next_page := 1;
        scan_from := p_from - p_look_back_days;
        insert into staging.rotessa_fetch (fetch_id, date_from, date_to, look_back_days, scan_from)
        values (begin_rotessa_fetch.fetch_id, p_from, p_to, p_look_back_days, begin_rotessa_fetch.scan_from);
    end if;
    return next;
end;
$$;

comment on function staging.begin_rotessa_fetch(date, date, integer) is
'Begins a fetch, or goes on with one of the same dates that was broken off within the last day: commit before the first request.
Scan_from: what to ask the processor for, the look-back included.';

create function staging.step_rotessa(p_fetch uuid, p_rows jsonb) returns staging.rotessa_fetch
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_fetch staging.rotessa_fetch;
begin
    perform backfill.take_lock();
    select f.* into v_fetch
    from staging.rotessa_fetch as f
    join backfill.backfill_log as l on l.run_id = f.fetch_id and l.status = 'running'
    where f.fetch_id = p_fetch;
    if not found then
        raise exception 'fetch % is not running', coalesce(p_fetch::text, 'null')
            using errcode = 'BF041', hint = 'select * from staging.begin_rotessa_fetch(from, to);';
    elsif jsonb_typeof(p_rows) is distinct from 'array' then
        raise exception 'the processor''s answer is no array but %', coalesce(jsonb_typeof(p_rows), 'null')
            using errcode = 'BF041', hint = 'Nothing was taken. Customers, schedules and reports are bare arrays.';
    end if;
    perform backfill.resume_run(p_fetch);  -- staging is written in a run; the commit leaves it
    return v_fetch;
end;
$$;

comment on function staging.step_rotessa(uuid, jsonb) is
'Goes on with the run of a fetch; refuses (BF041) a step of one that does not run, or an answer that is no array.';

create function staging.count_rotessa(
    p_fetch uuid, p_kind text, p_created bigint, p_changed bigint, p_unchanged bigint, p_rejected bigint
) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update backfill.backfill_log as l
    set metrics = l.metrics || jsonb_build_object(p_kind, (
        select jsonb_object_agg(c.name, c.count + coalesce((l.metrics -> p_kind ->> c.name)::bigint, 0))
        from (values ('created', p_created), ('changed', p_changed), ('unchanged', p_unchanged), ('rejected', p_rejected))
            as c (name, count)))
    where l.run_id = p_fetch;
end;
$$;

comment on function staging.count_rotessa(uuid, text, bigint, bigint, bigint, bigint) is
'Adds a step''s counts to the fetch''s row of the log, so that they can be watched.';

create function staging.finish_rotessa_fetch(p_fetch uuid) returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_synced bigint;
    v_log backfill.backfill_log;
begin
    perform staging.step_rotessa(p_fetch, '[]');
    update lending.mortgages as m
    set rotessa_schedule_status = lending.schedule_status(m.rotessa_schedule_id), rotessa_last_sync_at = now()
    where m.rotessa_schedule_id is not null
        -- A fetch of schedules that did not ask for this customer says nothing of it.
        and not exists (
            select from staging.rotessa_schedule as s
            join staging.rotessa_fetch as f on f.fetch_id = p_fetch
            where s.id = m.rotessa_schedule_id and not s.customer_id = any (f.customers_done)
        );
    get diagnostics v_synced = row_count;
    v_log := backfill.finish_run(jsonb_build_object('mortgages_synced', v_synced));
    return v_log.metrics;
end;
$$;

comment on function staging.finish_rotessa_fetch(uuid) is
'Ends a fetch: linked mortgages get their schedule''s status and the time of the sync. Returns the counts, as the log has them.';

create function staging.take_rotessa_history(p_schedule bigint, p_rows jsonb) returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_customer bigint;
    v_fetch uuid;
    v_rows jsonb;
begin
    select s.customer_id into v_customer from staging.rotessa_schedule as s where s.id = p_schedule;
    if not found then
        raise exception 'schedule % is not in staging', coalesce(p_schedule::text, 'null')
            using errcode = 'BF041', hint = 'Fetch first: runner fetch rotessa --from DATE.';
    elsif jsonb_typeof(p_rows) is distinct from 'array' then
        raise exception 'the history of schedule % is no array but %', p_schedule, coalesce(jsonb_typeof(p_rows), 'null')
            using errcode = 'BF041', hint = 'Pass financial_transactions of GET /transaction_schedules/{id}.';
    end if;
    perform backfill.take_lock();
    v_fetch := backfill.begin_run('fetch rotessa', jsonb_build_object('schedule', p_schedule),
        jsonb_build_object('schedule', p_schedule, 'triggered_by', session_user), 'load', p_spans_transactions => true);
    perform backfill.leave_run();
    insert into staging.rotessa_fetch (fetch_id, date_from, date_to, look_back_days, scan_from)
    values (v_fetch, current_date, current_date, 0, current_date);
    -- A schedule does not say whose it is, and its rows may not either.
    select coalesce(jsonb_agg(
        jsonb_build_object('customer_id', v_customer) || jsonb_strip_nulls(r.value) || jsonb_build_object('transaction_schedule_id', p_schedule)
        order by r.place), '[]') into v_rows
    from jsonb_array_elements(p_rows) with ordinality as r (value, place);
    perform staging.take_rotessa_transactions(v_fetch, 1, v_rows);
    return staging.finish_rotessa_fetch(v_fetch);
end;
$$;

comment on function staging.take_rotessa_history(bigint, jsonb) is
'The history of one schedule, as its financial_transactions have it, as a fetch of its own in one transaction. Returns the counts.';
