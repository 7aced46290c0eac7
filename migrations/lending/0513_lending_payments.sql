-- Writing what is due: payments, ledger transactions and postings, many at once or one by one.
-- Safe: functions only; they write what is missing, inside a run.
-- depends: 0512_lending_payments_due

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
-- One item by its key: backfill.run() plans for many rows, and would read whole tables for each.
set enable_nestloop = on
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
            insert into backfill.reject (run_id, backfill, source, source_key, reason, amount, payload)
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
