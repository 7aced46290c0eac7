-- What the ledger refuses: rewriting its history, a transaction that does not sum to zero, and changes of a closed month.
-- Safe: triggers on tables that are new.
-- depends: 0506_ledger_tables

create function ledger.refuse_rewrite() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op <> 'DELETE' or not backfill.in_reversal() then
        raise exception '% of %.% is refused: the ledger is history', tg_op, tg_table_schema, tg_table_name
            using errcode = 'BF020',
                hint = 'Reverse the run that wrote it, select * from backfill.reverse_run(run), or write a reversing transaction.';
    end if;
    return null;
end;
$$;

comment on function ledger.refuse_rewrite() is
'Trigger: refuses (BF020) UPDATE and TRUNCATE always, and DELETE but by a reversal in a run.';

create trigger a_refuse_rewrite before update or delete or truncate on ledger.transactions
for each statement execute function ledger.refuse_rewrite();

create trigger a_refuse_rewrite before update or delete or truncate on ledger.postings
for each statement execute function ledger.refuse_rewrite();

create table ledger.unbalanced (
    transaction_id uuid primary key
);

comment on table ledger.unbalanced is
'Transactions that do not sum to zero at this moment, looked at again when the database transaction commits. Empty otherwise.';
comment on column ledger.unbalanced.transaction_id is 'The transaction.';

create function ledger.queue_unbalanced() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '64MB'
as $$
declare
    v_late text;
begin
    with moved as materialized (
        select r.transaction_id, r.asset, sum(r.amount) as total from changed_rows as r group by r.transaction_id, r.asset
    ), queued as (
        insert into ledger.unbalanced (transaction_id)
        select distinct m.transaction_id
        from moved as m
        where m.total <> 0
            or (tg_op = 'DELETE' and exists (select from ledger.transactions as t where t.id = m.transaction_id))
        on conflict do nothing
    )
    select min(t.reference) into v_late
    from moved as m join ledger.transactions as t on t.id = m.transaction_id
    where t.recorded_at <> now();
    if tg_op = 'INSERT' and v_late is not null and not backfill.in_reversal() then
        raise exception 'transaction % was recorded before: no posting can be added to it', v_late
            using errcode = 'BF020', hint = 'Write a transaction of its own.';
    end if;
    return null;
end;
$$;

comment on function ledger.queue_unbalanced() is
'Trigger, once for each statement: what does not sum to zero by itself is looked at again at the commit. No posting is added to a
transaction that was recorded before (BF020).';

create function ledger.queue_empty() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '64MB'
as $$
begin
    insert into ledger.unbalanced (transaction_id)
    select r.id from changed_rows as r
    where not exists (select from ledger.postings as p where p.transaction_id = r.id)
    on conflict do nothing;
    return null;
end;
$$;

comment on function ledger.queue_empty() is
'Trigger, once for each statement: transactions whose postings are still to come are looked at again at the commit.';

create function ledger.refuse_unbalanced() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_reference text;
    v_sums text;
    v_lines bigint;
begin
    delete from ledger.unbalanced where transaction_id = new.transaction_id;
    select t.reference into v_reference from ledger.transactions as t where t.id = new.transaction_id;
    if not found then
        return null;
    end if;
    select string_agg(format('%s %s', x.total, x.asset), ', ' order by x.asset) filter (where x.total <> 0), coalesce(sum(x.lines), 0)
    into v_sums, v_lines
    from (
        select p.asset, sum(p.amount) as total, count(*) as lines
        from ledger.postings as p where p.transaction_id = new.transaction_id group by p.asset
    ) as x;
    if v_lines = 0 or v_sums is not null then
        raise exception 'transaction % %', v_reference,
            case when v_lines = 0 then 'has no postings' else format('does not sum to zero: %s', v_sums) end
            using errcode = 'BF042', hint = 'Nothing was committed. Write all of its postings in the same transaction.';
    end if;
    return null;
end;
$$;

comment on function ledger.refuse_unbalanced() is 'Deferred trigger: a transaction without postings, or whose postings do not sum to zero for each asset, is refused (BF042).';

create trigger c_queue_empty after insert on ledger.transactions
referencing new table as changed_rows for each statement execute function ledger.queue_empty();

create trigger c_queue_unbalanced_insert after insert on ledger.postings
referencing new table as changed_rows for each statement execute function ledger.queue_unbalanced();
create trigger c_queue_unbalanced_delete after delete on ledger.postings
referencing old table as changed_rows for each statement execute function ledger.queue_unbalanced();

create constraint trigger refuse_unbalanced after insert on ledger.unbalanced
deferrable initially deferred for each row execute function ledger.refuse_unbalanced();

create table ledger.closed_period (
    period text primary key check (backfill.is_period(period)),
    reason text not null check (length(trim(reason)) > 0),
    closed_by text not null default session_user,
    closed_at timestamptz not null default now()
);

comment on table ledger.closed_period is
'Months (UTC, by effective date) in which nothing changes any more: no insert, delete or reversal. Corrections go to the open month.';
comment on column ledger.closed_period.period is 'YYYY-MM.';
comment on column ledger.closed_period.reason is 'Why it was closed.';
comment on column ledger.closed_period.closed_by is 'Who closed it.';
comment on column ledger.closed_period.closed_at is 'When.';

create function ledger.refuse_closed() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '64MB'
as $$
declare
    v_found record;
begin
    -- Shared: nobody closes a month while transactions are being written (see ledger.lock_periods).
    perform pg_advisory_xact_lock_shared(hashtextextended('ledger.closed_period', 0));
    if not exists (select from ledger.closed_period) then
        return null;
    end if;
    select r.reference, c.* into v_found
    from changed_rows as r
    join ledger.closed_period as c on c.period = to_char(r.effective_at at time zone 'UTC', 'YYYY-MM')
    order by r.reference
    limit 1;
    if found then
        raise exception '% of transaction % is refused: % was closed on % by % (%)', tg_op, v_found.reference, v_found.period,
            to_char(v_found.closed_at, 'YYYY-MM-DD'), v_found.closed_by, v_found.reason
            using errcode = case when backfill.in_reversal() then 'BF023' else 'BF021' end,
                hint = 'Nothing was changed. A correction goes to the open month.';
    end if;
    return null;
end;
$$;

comment on function ledger.refuse_closed() is
'Trigger, once for each statement: refuses (BF021, in a reversal BF023) transactions that take effect in a closed month.';

create function ledger.lock_periods() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('ledger.closed_period', 0));
    if new.period >= to_char(now() at time zone 'UTC', 'YYYY-MM') then
        raise exception 'month % cannot be closed: it is not over', new.period
            using errcode = 'BF021', hint = 'The month under way stays open: it is where corrections go.';
    end if;
    return new;
end;
$$;

comment on function ledger.lock_periods() is
'Trigger: closing a month waits for transactions under way, and the current month always stays open (BF021).';

create function ledger.close_period(p_period text, p_reason text) returns ledger.closed_period
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_opened boolean;
    v_row ledger.closed_period;
begin
    v_opened := backfill.ensure_run(format('ledger: %s closed', p_period), jsonb_build_object('period', p_period));
    insert into ledger.closed_period (period, reason) values (p_period, p_reason) on conflict (period) do nothing;
    if v_opened then
        perform backfill.finish_run();
    end if;
    select * into v_row from ledger.closed_period where period = p_period;
    return v_row;
end;
$$;

comment on function ledger.close_period(text, text) is
'Closes a month that is over; twice is harmless. Only reversing that run opens it again.
Example: select ledger.close_period(''2025-02'', ''year end 2025'');';

create trigger b_refuse_closed_insert after insert on ledger.transactions
referencing new table as changed_rows for each statement execute function ledger.refuse_closed();
create trigger b_refuse_closed_delete after delete on ledger.transactions
referencing old table as changed_rows for each statement execute function ledger.refuse_closed();

create trigger a_lock_periods before insert on ledger.closed_period
for each row execute function ledger.lock_periods();
create trigger a_refuse_rewrite before update or delete or truncate on ledger.closed_period
for each statement execute function ledger.refuse_rewrite();

do $do$
begin
    perform backfill.track('ledger.closed_period');
end;
$do$;
