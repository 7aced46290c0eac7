-- Backfill "lending_payments": payments and their postings for what the processor shows as Approved and settled, and
-- reversals for what became a Chargeback. As one run of the engine, or in steps that are committed one by one.
-- Safe: views and functions; they write payments, ledger transactions and postings that are missing, inside a run.
-- depends: 0043_lending_links

create view lending.payments_due as
select
    case
        when p.id is null then 'payment'
        when t.status = 'Chargeback' then 'chargeback'
        else 'posting'
    end as kind,
    t.id as transaction_id,
    'rotessa:tx:' || t.id as reference,
    t.schedule_id,
    m.id as mortgage_id,
    m.number as mortgage_number,
    t.customer_id,
    p.id as payment_id,
    t.amount_cents as cents,
    t.process_date,
    t.settlement_date,
    t.settlement_date::timestamp at time zone 'UTC' as effective_at,
    case
        when p.mortgage_id <> m.id then format('the payment is on another mortgage, %s', p.mortgage_id)
        when p.amount_cents <> t.amount_cents
            then format('the payment is of %s cents, the processor says %s', p.amount_cents, t.amount_cents)
        when t.status = 'Chargeback' then null
        when p.rotessa_customer_id <> t.customer_id
            then format('the payment is of customer %s, the processor says %s', p.rotessa_customer_id, t.customer_id)
        when p.status not in ('pending', 'approved')
            then format('the payment is %s, the processor says Approved', p.status)
        when c.period is not null
            then format('%s was closed on %s by %s (%s)', c.period, c.closed_at::date, c.closed_by, c.reason)
        when p.id is null and l.id is not null
            then format('the ledger has a transaction with this reference and no payment, %s', l.id)
    end as fault
from staging.rotessa_transaction as t
inner join lending.mortgages as m on t.schedule_id = m.rotessa_schedule_id
left join lending.payments as p on p.source_reference = 'rotessa:tx:' || t.id
left join ledger.transactions as l on l.reference = 'rotessa:tx:' || t.id
left join ledger.closed_period as c on c.period = to_char(t.settlement_date, 'YYYY-MM')
where
    (
        t.status = 'Approved' and t.settlement_date <= (now() at time zone 'UTC')::date
        and (p.id is null or p.ledger_transaction_id is null)
    )
    or (
        t.status = 'Chargeback' and p.id is not null
        and (
            p.status <> 'chargeback'
            or (
                p.ledger_transaction_id is not null
                and not exists (
                    select from ledger.transactions as r
                    where r.reverses = p.ledger_transaction_id
                )
            )
        )
    );

comment on view lending.payments_due is
'What is still to be written of linked schedules: payments for Approved transactions whose settlement date has come, postings of
payments that have none, reversals of payments that became chargebacks. Grain: one row for each transaction at the processor.';
comment on column lending.payments_due.kind is 'payment (and its posting), posting (the payment is there), chargeback.';
comment on column lending.payments_due.transaction_id is 'Rotessa''s id.';
comment on column lending.payments_due.reference is 'rotessa:tx:<id>.';
comment on column lending.payments_due.schedule_id is 'The linked schedule.';
comment on column lending.payments_due.mortgage_id is 'Its mortgage.';
comment on column lending.payments_due.mortgage_number is 'The mortgage''s number.';
comment on column lending.payments_due.customer_id is 'Who paid.';
comment on column lending.payments_due.payment_id is 'The payment, where there is one.';
comment on column lending.payments_due.cents is 'Amount.';
comment on column lending.payments_due.process_date is 'Day on which it was processed.';
comment on column lending.payments_due.settlement_date is 'Day on which it settled.';
comment on column lending.payments_due.effective_at is 'The settlement date at 00:00:00Z.';
comment on column lending.payments_due.fault is 'Why it cannot be written, with the values; null where it can.';

create view backfill.lending_payments_due as
select
    kind,
    transaction_id,
    reference,
    mortgage_number,
    schedule_id,
    settlement_date,
    fault,
    cents
from lending.payments_due;

comment on view backfill.lending_payments_due is 'The due relation of the backfill lending_payments: see lending.payments_due.';

-- No plan_cache_mode here: it would also hold for the foreign keys' own checks, and plan each of them anew.
create function lending.write_set(p_items bigint[]) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '64MB'
as $$
declare
    v_payments uuid[];
begin
    with written as (
        insert into lending.payments (id, mortgage_id, source_reference, rotessa_customer_id, amount_cents, status, process_date,
            settlement_date, origin, ledger_transaction_id)
        select backfill.business_id('payment', 'rotessa:tx:' || t.id), m.id, 'rotessa:tx:' || t.id, t.customer_id, t.amount_cents,
            'approved', t.process_date, t.settlement_date, 'backfill', ledger.transaction_id('rotessa:tx:' || t.id)
        from staging.rotessa_transaction as t
        join lending.mortgages as m on m.rotessa_schedule_id = t.schedule_id
        where t.id = any (p_items)
        order by t.settlement_date, t.id
        returning id
    )
    select array_agg(id) into v_payments from written;
    insert into ledger.accounts (account)
    select n.account
    from (
        select distinct l.account from unnest(v_payments) as w (id) join ledger.collection_legs as l on l.payment_id = w.id
    ) as n
    where not exists (select from ledger.accounts as a where a.account = n.account)
    order by n.account
    on conflict do nothing;
    -- In one statement, so that every transaction is seen with its postings.
    with written as (
        insert into ledger.transactions (id, reference, effective_at)
        select p.ledger_transaction_id, p.source_reference, p.settlement_date::timestamp at time zone 'UTC'
        from unnest(v_payments) as w (id) join lending.payments as p on p.id = w.id
    )
    insert into ledger.postings (transaction_id, line_no, account, asset, amount)
    select l.ledger_transaction_id, l.line_no, l.account, l.asset, l.amount
    from unnest(v_payments) as w (id) join ledger.collection_legs as l on l.payment_id = w.id;
end;
$$;

comment on function lending.write_set(bigint[]) is
'Payments, transactions and postings of many due transactions at once, by the same rule as ledger.record_payment_collection().';

create function lending.write_item(p_item lending.payments_due) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_item.kind = 'chargeback' then
        perform ledger.record_payment_chargeback(p_item.payment_id);
    elsif p_item.kind = 'posting' then
        update lending.payments
        set status = 'approved', process_date = coalesce(process_date, p_item.process_date),
            settlement_date = coalesce(settlement_date, p_item.settlement_date)
        where id = p_item.payment_id and (status <> 'approved' or process_date is null or settlement_date is null);
        perform ledger.record_payment_collection(p_item.payment_id, p_item.effective_at);
    else
        perform lending.write_set(array[p_item.transaction_id]);
    end if;
end;
$$;

comment on function lending.write_item(lending.payments_due) is 'Writes one due item; raises whatever keeps it from being written.';

create function lending.write_due(p_schedule bigint default null, p_limit integer default null) returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '64MB'
as $$
declare
    v_run uuid := backfill.require_run('select * from backfill.run(''lending_payments'');');
    v_set bigint[];
    v_alone lending.payments_due[];
    v_item lending.payments_due;
    v_state text;
    v_reason text;
    v_errors jsonb := '[]';
    v_payments bigint := 0;
    v_postings bigint := 0;
    v_chargebacks bigint := 0;
    v_cents bigint := 0;
    v_count bigint;
    v_all bigint;
begin
    -- Of those that are written together the ids are enough; the others are looked at one by one.
    select coalesce(array_agg(d.transaction_id) filter (where d.plain), '{}'),
        coalesce(array_agg(d.item order by d.place) filter (where not d.plain), '{}'),
        count(*) filter (where d.plain), coalesce(sum(d.cents) filter (where d.plain), 0), count(*)
    into v_set, v_alone, v_count, v_cents, v_all
    from (
        select x as item, x.transaction_id, x.cents, x.kind = 'payment' and x.fault is null as plain,
            row_number() over (order by x.settlement_date, x.transaction_id) as place
        from lending.payments_due as x
        where (p_schedule is null or x.schedule_id = p_schedule)
            -- What this run has given up is not tried again by its next step.
            and not exists (
                select from backfill.reject as r
                where r.run_id = v_run and r.source = 'rotessa transactions' and r.source_key = x.transaction_id::text
            )
    ) as d
    where p_limit is null or d.place <= p_limit;

    if v_count > 0 then
        begin
            perform lending.write_set(v_set);
            v_payments := v_count;
        exception
            when integrity_constraint_violation or data_exception or plpgsql_error or sqlstate 'BF020' or sqlstate 'BF021'
                or sqlstate 'BF042' or sqlstate 'BF040' or sqlstate 'BF045' then
                -- One of them cannot be written. Which, is found by taking each by itself.
                v_cents := 0;
                select array_agg(x order by x.settlement_date, x.transaction_id) into v_alone
                from (
                    select d.* from lending.payments_due as d where d.transaction_id = any (v_set)
                    union all
                    select d.* from unnest(v_alone) as d
                ) as x;
        end;
    end if;

    foreach v_item in array v_alone loop
        v_reason := v_item.fault;
        if v_reason is null then
            begin
                perform lending.write_item(v_item);
                v_payments := v_payments + (v_item.kind = 'payment')::integer;
                v_postings := v_postings + (v_item.kind = 'posting')::integer;
                v_chargebacks := v_chargebacks + (v_item.kind = 'chargeback')::integer;
                v_cents := v_cents + case when v_item.kind = 'chargeback' then -v_item.cents else v_item.cents end;
            exception
                when integrity_constraint_violation or data_exception or plpgsql_error or sqlstate 'BF020' or sqlstate 'BF021'
                    or sqlstate 'BF042' or sqlstate 'BF040' or sqlstate 'BF045' then
                    get stacked diagnostics v_reason = message_text, v_state = returned_sqlstate;
                    v_reason := format('%s [%s]', v_reason, v_state);
            end;
        end if;
        if v_reason is not null then
            insert into backfill.reject (run_id, backfill, source, source_key, reason, cents, payload)
            values (v_run, 'lending_payments', 'rotessa transactions', v_item.transaction_id::text, v_reason, v_item.cents,
                jsonb_build_object('kind', v_item.kind, 'reference', v_item.reference, 'mortgage', v_item.mortgage_number,
                    'schedule', v_item.schedule_id, 'settlement_date', v_item.settlement_date))
            on conflict do nothing;
            v_errors := v_errors || jsonb_build_object('item', v_item.reference, 'kind', v_item.kind, 'mortgage', v_item.mortgage_number,
                'cents', v_item.cents, 'reason', v_reason);
        end if;
    end loop;
    if v_errors <> '[]' then
        update backfill.backfill_log set errors = errors || v_errors where run_id = v_run;
    end if;
    return jsonb_build_object('items', v_all, 'payments', v_payments, 'postings', v_postings,
        'chargebacks', v_chargebacks, 'failed', jsonb_array_length(v_errors), 'cents', v_cents);
end;
$$;

comment on function lending.write_due(bigint, integer) is
'Writes what is due (of one schedule, at most so many) in the open run: set-wise what can be, by itself what cannot. An item that
fails is kept with its reason, in backfill.reject and in the errors of the log, and the rest goes on.';

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
        begin_payment_backfill.run_id := backfill.begin_run('lending_payments',
            jsonb_strip_nulls(jsonb_build_object('schedule', p_schedule)), v_subject, 'apply', p_actor, p_spans_transactions => true);
        perform set_config('backfill.run_id', '', true);
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
    perform set_config('backfill.run_id', '', true);
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
        'lending_payments', 'lending', 'Payments of linked schedules, with their postings at the settlement date', 400,
        'backfill.lending_payments_due', 'backfill.lending_payments',
        '{lending.payments,ledger.transactions,ledger.postings}'
    );
end;
$do$;

revoke execute on all functions in schema backfill from public;
revoke execute on all functions in schema lending from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on lending.payments_due, backfill.lending_payments_due');
    perform backfill.grant_to('backfill_operator', 'execute on function lending.begin_payment_backfill(bigint, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function lending.step_payment_backfill(uuid, integer)');
    perform backfill.grant_to('backfill_operator', 'execute on function lending.finish_payment_backfill(uuid)');
end;
$do$;
