-- Linking a schedule to a mortgage, and unlinking it: a person's decision as an audited run.
-- Safe: functions, a view, a role, an index on the log. Only lending.link_schedule() and unlink_schedule(), which
-- lending_admin may call, write.
-- depends: 0510_lending_link_suggestions

do $$
begin
    if not exists (select from pg_roles where rolname = 'lending_admin') then
        create role lending_admin nologin;
        comment on role lending_admin is 'May link schedules to mortgages, and unlink them.';
    end if;
    -- Whoever links also looks at what is there, and undoes.
    if exists (select from pg_roles where rolname = 'backfill_operator') then
        grant backfill_operator to lending_admin;
    end if;
exception
    when insufficient_privilege then
        raise notice 'role lending_admin was not created: %', sqlerrm
            using hint = 'Ask for CREATEROLE, or have it created, as a member of backfill_operator, and then: select backfill.regrant();';
    when duplicate_object or unique_violation then
        raise notice 'role lending_admin is being created by another session';
end;
$$;

create index backfill_log_mortgage on backfill.backfill_log ((subject ->> 'mortgage'), started_at)
where subject ? 'mortgage';

comment on index backfill.backfill_log_mortgage is 'Runs of a mortgage: where subject ->> ''mortgage'' = ''M-17'' and subject ? ''mortgage''.';

create function lending.mortgage(p_mortgage text) returns lending.mortgages
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_mortgage lending.mortgages;
begin
    select * into v_mortgage from lending.mortgages where number = p_mortgage;
    if not found then
        select * into v_mortgage from lending.mortgages where id::text = p_mortgage;
    end if;
    if not found then
        raise exception 'there is no mortgage %', coalesce(quote_literal(p_mortgage), 'null')
            using errcode = 'BF009', hint = 'Name it by its number or id: select * from lending.mortgages_without_schedule;';
    end if;
    return v_mortgage;
end;
$$;

comment on function lending.mortgage(text) is 'A mortgage by its number or its id; an unknown one is refused (BF009).';

create function lending.link_schedule(p_schedule bigint, p_mortgage text, p_override_mismatch text default null)
returns lending.mortgages
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_mortgage lending.mortgages;
    v_schedule staging.rotessa_schedule;
    v_borrower lending.borrowers;
    v_other text;
    v_why text;
    v_override text := nullif(btrim(p_override_mismatch), '');
    v_reason jsonb;
    v_subject jsonb;
    v_opened boolean;
begin
    perform backfill.take_lock();
    v_mortgage := lending.mortgage(p_mortgage);
    select * into v_mortgage from lending.mortgages where id = v_mortgage.id for update;
    select * into v_schedule from staging.rotessa_schedule where id = p_schedule;
    if not found or v_schedule.gone then
        raise exception 'schedule % %', coalesce(p_schedule::text, 'null'),
            case when v_schedule.gone then 'is no longer at the processor' else 'does not exist at the processor' end
            using errcode = 'BF043', hint = 'Fetch first: runner fetch rotessa --from DATE. Then: select * from lending.unlinked_schedules;';
    elsif v_mortgage.rotessa_schedule_id = p_schedule then
        return v_mortgage;
    end if;
    select m.number into v_other from lending.mortgages as m where m.rotessa_schedule_id = p_schedule;
    v_why := case
        when v_other is not null then format('it is linked to mortgage %s', v_other)
        when v_mortgage.rotessa_schedule_id is not null then format('the mortgage has schedule %s', v_mortgage.rotessa_schedule_id)
    end;
    if v_why is not null then
        raise exception 'schedule % cannot be linked to mortgage %: %', p_schedule, v_mortgage.number, v_why
            using errcode = 'BF043', hint = 'Nothing was changed. Unlink that first: select lending.unlink_schedule(schedule, ''why'');';
    end if;
    select * into v_borrower from lending.borrowers where id = v_mortgage.borrower_id;
    if v_borrower.rotessa_customer_id is distinct from v_schedule.customer_id and v_override is null then
        raise exception 'schedule % belongs to customer % (%), and mortgage % to % (%)', p_schedule, v_schedule.customer_id,
            coalesce((select name from staging.rotessa_customer where id = v_schedule.customer_id), 'name not known'),
            v_mortgage.number, coalesce('customer ' || v_borrower.rotessa_customer_id, 'no customer'), v_borrower.name
            using errcode = 'BF044',
                hint = 'Nothing was changed. If it is right all the same, say why: --override-mismatch REASON, or, in SQL, the third argument of lending.link_schedule().';
    end if;
    v_reason := jsonb_strip_nulls(jsonb_build_object('override_mismatch',
        case when v_borrower.rotessa_customer_id is distinct from v_schedule.customer_id then v_override end));
    v_subject := jsonb_build_object('mortgage', v_mortgage.number, 'mortgage_id', v_mortgage.id, 'schedule', p_schedule,
        'triggered_by', session_user);
    v_opened := backfill.open_run() is null;
    if v_opened then
        perform backfill.begin_run('link_schedule', v_reason, v_subject);
    else
        perform backfill.note_action(jsonb_build_object('action', 'link_schedule') || v_subject || v_reason);
    end if;
    update lending.mortgages
    set rotessa_schedule_id = p_schedule, rotessa_schedule_status = lending.schedule_status(p_schedule), rotessa_last_sync_at = now()
    where id = v_mortgage.id
    returning * into v_mortgage;
    if v_opened then
        perform backfill.finish_run();
    end if;
    return v_mortgage;
end;
$$;

comment on function lending.link_schedule(bigint, text, text) is
'Links a schedule to a mortgage (number or id) by a person''s decision, as a run of its own or an action of the
open one. Refuses (BF043) a schedule that the
processor does not have or that is linked, and a mortgage that has one; (BF044) another customer than the borrower, unless
overridden with a reason, which the log keeps. Again: a no-op.';

create function lending.unlink_schedule(p_schedule bigint, p_reason text, p_keep_payments boolean default false)
returns lending.mortgages
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_mortgage lending.mortgages;
    v_run uuid;
    v_left jsonb;
    v_payments bigint;
begin
    perform backfill.take_lock();
    if nullif(btrim(p_reason), '') is null then
        raise exception 'unlinking schedule % needs a reason', p_schedule
            using errcode = 'BF047', hint = 'select lending.unlink_schedule(schedule, ''why'');';
    end if;
    select * into v_mortgage from lending.mortgages where rotessa_schedule_id = p_schedule for update;
    if not found then
        raise exception 'schedule % is linked to no mortgage', coalesce(p_schedule::text, 'null')
            using errcode = 'BF047', hint = 'select * from lending.schedules where mortgage_id is not null;';
    end if;
    select count(*) into v_payments
    from lending.payments as p
    join staging.rotessa_transaction as t on p.source_reference = 'rotessa:tx:' || t.id
    where p.mortgage_id = v_mortgage.id and t.schedule_id = p_schedule;
    if v_payments > 0 and not p_keep_payments then
        raise exception 'schedule % has % % on mortgage %', p_schedule, v_payments,
            case v_payments when 1 then 'payment' else 'payments' end, v_mortgage.number
            using errcode = 'BF047', hint = 'If the link was wrong, undo the run that wrote them first: runner rollback RUN, or backfill.reverse_run(run). '
                'If another schedule takes its place, keep them: --keep-payments, or lending.unlink_schedule(schedule, ''why'', true).';
    end if;
    select l.run_id, c.after into v_run, v_left
    from backfill.backfill_log as l
    join backfill.change_log as c on c.run_id = l.run_id and c.table_name = 'lending.mortgages'
    where l.backfill = 'link_schedule' and l.mode = 'manual' and l.status = 'succeeded' and l.reversed_by is null
        and l.subject @> jsonb_build_object('schedule', p_schedule, 'mortgage_id', v_mortgage.id)
    order by l.started_at desc
    limit 1;
    if v_run is null then
        raise exception 'schedule % was not linked to mortgage % by a run of its own', p_schedule, v_mortgage.number
            using errcode = 'BF047', hint = 'Find the run in backfill.change_log and reverse it: select * from backfill.reverse_run(run);';
    end if;
    -- What syncs wrote since is put back first, as a run, so that the reversal meets the row that the link left.
    perform backfill.begin_run('unlink_schedule', jsonb_build_object('reason', btrim(p_reason), 'link_run', v_run),
        jsonb_build_object('mortgage', v_mortgage.number, 'mortgage_id', v_mortgage.id, 'schedule', p_schedule,
            'triggered_by', session_user));
    update lending.mortgages
    set rotessa_schedule_status = v_left ->> 'rotessa_schedule_status',
        rotessa_last_sync_at = (v_left ->> 'rotessa_last_sync_at')::timestamptz
    where id = v_mortgage.id;
    perform backfill.finish_run();
    perform backfill.reverse_run(v_run);
    select * into v_mortgage from lending.mortgages where id = v_mortgage.id;
    return v_mortgage;
end;
$$;

comment on function lending.unlink_schedule(bigint, text, boolean) is
'Takes a link back by reversing its run; the reason is kept in a run of its own. Refuses (BF047) while payments of the schedule are
on the mortgage, unless they are to be kept because another schedule takes its place.';

create view lending.runs as
select
    l.run_id,
    l.backfill,
    l.subject ->> 'mortgage' as mortgage,
    (l.subject ->> 'schedule')::bigint as schedule_id,
    coalesce(l.subject ->> 'triggered_by', l.actor) as triggered_by,
    l.mode,
    l.status,
    l.metrics,
    l.errors,
    l.parameters,
    l.started_at,
    l.completed_at,
    l.reversed_by
from backfill.backfill_log as l
where l.backfill in ('link_schedule', 'unlink_schedule', 'lending_payments', 'fetch rotessa');

comment on view lending.runs is 'The log''s rows of this system. Grain: one row for each run.';
comment on column lending.runs.mortgage is 'Number of the mortgage; null = a run over all.';
comment on column lending.runs.schedule_id is 'The schedule; null = a run over all.';
comment on column lending.runs.triggered_by is 'Who set it off.';
