-- Opening and resuming a run, by a backfill, by a person, or by a function that a person calls.
-- Safe: functions only; they write to the log. A run is closed by what comes with 0013.
-- depends: 0011_backfill_refresh

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

create function backfill.fire_pending(p_path text) returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
    v_names text;
    v_later text;
    v_strange boolean := backfill.fires_for_another();
begin
    if backfill.open_run() is not null then
        return true;
    end if;
    -- What was queued before a run belongs to what came before it. Nothing shows what is queued, so that it cannot be refused:
    -- it is fired now, as finish_run() does, with the rights of whoever calls. Only triggers: a key that is checked writes
    -- nothing, and somebody may have deferred it for what the run is going to do.
    select string_agg(distinct format('%I.%I', n.nspname, c.conname), ', '),
        string_agg(distinct format('%I.%I', n.nspname, c.conname), ', ') filter (where c.condeferred and not exists (
            select 1 from pg_constraint as o where o.connamespace = c.connamespace and o.conname = c.conname and not o.condeferrable))
    into v_names, v_later
    from pg_constraint as c
    join pg_namespace as n on n.oid = c.connamespace
    where c.contype = 't' and c.condeferrable and n.nspname not in ('backfill', 'backfill_audit') and has_schema_privilege(n.oid, 'usage')
        and (not v_strange or not backfill.is_strange(n.oid, c.conname));
    if v_names is not null then
        if p_path ~ 'pg_temp$' then
            p_path := backfill.application_path();
        end if;
        perform set_config('search_path', p_path, true);
        execute 'set constraints ' operator(pg_catalog.||) v_names operator(pg_catalog.||) ' immediate';
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        if v_later is not null then
            execute 'set constraints ' || v_later || ' deferred';
        end if;
    end if;
    return true;
end;
$$;

comment on function backfill.fire_pending(text) is
'Before a run: fires the deferred triggers that wait for the commit, so that what they write is none of the run, and lets them wait again.';

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

create function backfill.open_transaction(p_run uuid) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_before refcursor := 'backfill_before';
begin
    perform backfill.refuse_names();
    -- A setting may be set by anybody; a table of the engine's owner is nobody else's to drop unseen.
    create temporary table backfill_open_run () on commit drop;
    insert into backfill.run_transaction (run_id, switch, first_statement)
    values (p_run, 'pg_temp.backfill_open_run'::regclass, nextval('backfill_audit.statement_no'));
    -- It goes on seeing what is there now, deleted rows too, and is read at the end only where something is in doubt.
    open v_before no scroll for
        select r.* from (select generate_series(1, 1000000) as i) as x cross join lateral backfill.rows_before(x.i) as r;
    update backfill.run_transaction
    set ready = true, marks = (select coalesce(jsonb_agg(m), '[]') from backfill.table_marks() as m),
        version = (select concat_ws(' ', xmin, ctid) from pg_class where oid = switch),
        locks = array(select token from backfill.own_locks()),
        foreign_keys = array(select c.oid from pg_constraint as c
            where c.contype = 'f' and c.confrelid in (select t.relation from backfill.tracked as t where t.active))
    where xid = pg_current_xact_id();
end;
$$;

comment on function backfill.open_transaction(uuid) is
'Makes a run that of this transaction: switches the capture on, and notes what the tracked tables are.';

create function backfill.pause_capture(p_paused boolean) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_intact boolean := (select version = (select concat_ws(' ', xmin, ctid) from pg_class where oid = switch)
        from backfill.run_transaction where xid = pg_current_xact_id());
begin
    if p_paused then
        if to_regclass('pg_temp.backfill_paused_run') is not null then
            raise exception 'pg_temp.backfill_paused_run is in the way' using errcode = 'BF001', hint = 'Drop it, and reverse the run again.';
        end if;
        alter table pg_temp.backfill_open_run rename to backfill_paused_run;
    else
        alter table pg_temp.backfill_paused_run rename to backfill_open_run;
    end if;
    -- What somebody else did to it stays seen.
    update backfill.run_transaction set version = (select concat_ws(' ', xmin, ctid) from pg_class where oid = switch)
    where xid = pg_current_xact_id() and v_intact;
end;
$$;

comment on function backfill.pause_capture(boolean) is
'For a reversal that writes the images itself: the capture stands still until it is called again with false. Granted to nobody.';

create function backfill.named_actor(p_claimed text) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select concat_ws(' via ', nullif(p_claimed, session_user) || ' (claimed)', session_user);
$$;

comment on function backfill.named_actor(text) is 'Who did something: the login, and before it whom he claims to be, marked as claimed.';

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
    if p_mode = 'apply' then
        perform backfill.require_seals(p_backfill);
    end if;
    insert into backfill.backfill_log (backfill, parameters, subject, mode, actor, spans_transactions, reverses)
    values (p_backfill, p_parameters, p_subject, p_mode, backfill.named_actor(p_actor), p_spans_transactions, p_reverses)
    returning run_id into v_run;
    perform backfill.open_transaction(v_run);
    return v_run;
end;
$$;

comment on function backfill.start_run(text, jsonb, jsonb, text, text, boolean, uuid) is
'What begin_run() and reverse_run() share. Granted to nobody: an open reversal may change what is immutable otherwise.';

create function backfill.open_new_run(
    p_backfill text, p_parameters jsonb, p_subject jsonb, p_mode text, p_actor text, p_spans_transactions boolean,
    p_fired boolean
) returns uuid
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_mode = 'reversal' then
        raise exception 'a reversal cannot be begun by hand' using errcode = 'BF001',
            hint = 'It writes what its run found before, and nothing else: select * from backfill.reverse_run(run);';
    elsif p_mode = 'apply' then
        raise exception 'an apply cannot be begun by hand' using errcode = 'BF001',
            hint = format('What it wrote is what the catalog''s function writes, and nothing else: select * from backfill.run(%L);', p_backfill);
    elsif p_parameters ? 'actions' then
        raise exception 'what was done in a run is not claimed beforehand: actions is no parameter' using errcode = 'BF001',
            hint = 'The engine''s functions note their actions themselves.';
    end if;
    return backfill.start_run(p_backfill, p_parameters, p_subject, p_mode, p_actor, p_spans_transactions, null);
end;
$$;

comment on function backfill.open_new_run(text, jsonb, jsonb, text, text, boolean, boolean) is
'The part of begin_run() that needs the engine''s rights.';

create function backfill.begin_run(
    p_backfill text, p_parameters jsonb default '{}', p_subject jsonb default '{}', p_mode text default 'manual',
    p_actor text default null, p_spans_transactions boolean default false
) returns uuid
language sql volatile
security invoker
return backfill.open_new_run(
    p_backfill, p_parameters, p_subject, p_mode, p_actor, p_spans_transactions,
    backfill.mend_tracked() and backfill.fire_pending(current_setting('search_path'))
);

comment on function backfill.begin_run(text, jsonb, jsonb, text, text, boolean) is
'Opens a run in this transaction: from here on every change of a tracked table is captured, until backfill.finish_run(). Deferred
triggers that wait already are fired before it. A run that spans transactions is committed first, and continued with
backfill.resume_run(run) in each.';

create function backfill.continue_run(p_run uuid, p_with_others boolean, p_fired boolean) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if backfill.open_run() = p_run then
        return;
    elsif backfill.open_run() is not null then
        raise exception 'run % is already open in this transaction', backfill.open_run() using errcode = 'BF001';
    end if;
    if p_with_others then
        perform pg_advisory_xact_lock_shared(hashtextextended('backfill', 0));
    else
        perform backfill.take_lock();
    end if;
    perform backfill.refresh_tracked();
    if not exists (select 1 from backfill.backfill_log where run_id = p_run and status = 'running' and spans_transactions) then
        raise exception 'run % is not a running run that spans transactions', p_run using errcode = 'BF001';
    end if;
    perform backfill.open_transaction(p_run);
end;
$$;

comment on function backfill.continue_run(uuid, boolean, boolean) is 'The part of resume_run() that needs the engine''s rights.';

create function backfill.resume_run(p_run uuid, p_with_others boolean default false) returns void
language sql volatile
security invoker
return backfill.continue_run(p_run, p_with_others, backfill.fire_pending(current_setting('search_path')));

comment on function backfill.resume_run(uuid, boolean) is
'Goes on with a run that spans transactions, in a new transaction. With others: sessions that do so too work at the same time,
where each of them has rows of its own.';

create function backfill.note_action(p_action jsonb) returns void
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    update backfill.backfill_log
    set parameters = parameters || jsonb_build_object('actions', coalesce(parameters -> 'actions', '[]') || jsonb_build_array(p_action))
    where run_id = backfill.open_run();
$$;

comment on function backfill.note_action(jsonb) is
'Adds what is done in the open run, to what, and why, to the actions among its parameters: its title does not say it.';

create function backfill.ensure_run(p_title text, p_subject jsonb default '{}') returns boolean
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if backfill.open_run() is not null then
        -- A backfill that calls the function for each of its rows has no reasons to keep.
        if exists (select from backfill.backfill_log where run_id = backfill.open_run() and mode = 'manual') then
            perform backfill.note_action(jsonb_build_object('action', p_title) || p_subject);
        end if;
        return false;
    end if;
    perform backfill.begin_run(p_title, p_subject => p_subject);
    return true;
end;
$$;

comment on function backfill.ensure_run(text, jsonb) is
'For functions that a person calls: opens a manual run where none is open (true: the caller finishes it), else joins the open one, whose log keeps title
and subject where a person opened it.';
