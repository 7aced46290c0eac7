-- Backfill "lending_payments": as one run of the engine, or in steps that are committed one by one.
-- Safe: functions only.
-- depends: 0513_lending_payments

create function lending.payments_subject(p_schedule bigint) returns jsonb
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_mortgage lending.mortgages;
begin
    if p_schedule is null then
        return jsonb_build_object('triggered_by', session_user);
    end if;
    select * into v_mortgage from lending.mortgages where rotessa_schedule_id = p_schedule;
    if not found then
        raise exception 'schedule % is linked to no mortgage', p_schedule
            using errcode = 'BF043', hint = 'Link it first: runner schedules link SCHEDULE MORTGAGE, or lending.link_schedule().';
    end if;
    return jsonb_build_object('mortgage', v_mortgage.number, 'mortgage_id', v_mortgage.id, 'schedule', p_schedule,
        'triggered_by', session_user);
end;
$$;

comment on function lending.payments_subject(bigint) is 'What the log says a backfill of payments is about: mortgage, schedule, triggered_by.';

create function backfill.lending_payments(p_parameters jsonb default '{}') returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_schedule bigint := (p_parameters ->> 'schedule')::bigint;
begin
    update backfill.backfill_log set subject = subject || lending.payments_subject(v_schedule) where run_id = backfill.open_run();
    return lending.write_due(v_schedule);
end;
$$;

comment on function backfill.lending_payments(jsonb) is
'Writes what backfill.lending_payments_due shows, of one schedule where the parameters name it. As a run:
select * from backfill.run(''lending_payments'', ''{"schedule": 123}'');';

create function lending.begin_payment_backfill(p_schedule bigint default null, p_actor text default null)
returns table (run_id uuid, resumed boolean, due_items bigint, due_cents bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_subject jsonb := lending.payments_subject(p_schedule);
begin
    perform backfill.take_lock();
    select l.run_id into begin_payment_backfill.run_id
    from backfill.backfill_log as l
    where l.backfill = 'lending_payments' and l.status = 'running' and l.spans_transactions
        and l.subject ->> 'schedule' is not distinct from v_subject ->> 'schedule'
    order by l.started_at desc
    limit 1;
    resumed := begin_payment_backfill.run_id is not null;
    if not resumed then
        perform backfill.fire_pending(current_setting('search_path'));
        begin_payment_backfill.run_id := backfill.start_run('lending_payments',
            jsonb_strip_nulls(jsonb_build_object('schedule', p_schedule)), v_subject, 'apply', p_actor, true, null);
        perform backfill.leave_run();
    end if;
    select count(*), coalesce(sum(d.cents), 0)::bigint into due_items, due_cents
    from lending.payments_due as d where p_schedule is null or d.schedule_id = p_schedule;
    return next;
end;
$$;

comment on function lending.begin_payment_backfill(bigint, text) is
'Begins a backfill of payments in steps, of one linked schedule or of all, or goes on with one that was broken off. Commit at once, so
that its row of the log is there before the first payment.';

create function lending.step_payment_backfill(p_run uuid, p_limit integer default 1000)
returns table (
    done boolean, items bigint, payments bigint, postings bigint, chargebacks bigint, failed bigint, cents bigint
)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_schedule bigint;
    v_step jsonb;
begin
    perform backfill.resume_run(p_run);
    select (l.parameters ->> 'schedule')::bigint into v_schedule
    from backfill.backfill_log as l where l.run_id = p_run and l.backfill = 'lending_payments';
    if not found then
        raise exception 'run % is no backfill of payments', p_run using errcode = 'BF009', hint = 'select * from lending.runs;';
    end if;
    v_step := lending.write_due(v_schedule, p_limit);
    update backfill.backfill_log as l
    set metrics = l.metrics || (
        select jsonb_object_agg(s.key, s.value::bigint + coalesce((l.metrics ->> s.key)::bigint, 0)) from jsonb_each_text(v_step) as s)
    where l.run_id = p_run;
    select (v_step ->> 'items')::bigint < p_limit, x.* into done, items, payments, postings, chargebacks, failed, cents
    from jsonb_to_record(v_step) as x (items bigint, payments bigint, postings bigint, chargebacks bigint, failed bigint, cents bigint);
    perform backfill.leave_run();
    return next;
end;
$$;

comment on function lending.step_payment_backfill(uuid, integer) is
'One step of a backfill of payments: up to so many items. Commit after it: the log shows how far it is. Done: there is no more.';

create function lending.finish_payment_backfill(p_run uuid) returns backfill.backfill_log
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.resume_run(p_run);
    return backfill.finish_run();
end;
$$;

comment on function lending.finish_payment_backfill(uuid) is
'Ends a backfill of payments: succeeded, or partial where items failed. Returns its row of the log.';

do $do$
begin
    perform backfill.register(
        'lending_payments', 'lending', 'Payments of linked schedules, with their postings at the settlement date', 510,
        'backfill.lending_payments_due', 'backfill.lending_payments',
        '{lending.payments,ledger.transactions,ledger.postings}', p_settled => 'staging.rotessa_transaction.settlement_date', p_dimensions => '{settlement_date,mortgage_id}'
    );
end;
$do$;
