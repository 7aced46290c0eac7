-- A double-entry ledger: accounts, transactions, postings that sum to zero, closed months, balances as of any date;
-- and the one way of a collected payment into it, for live sync and backfill alike.
-- Safe: a new schema. On lending.payments it adds a foreign key where the baseline made the table.
-- depends: 0041_staging_rotessa 0007_property_charges

create schema ledger;

comment on schema ledger is 'Double-entry ledger. Complete by itself; a Formance ledger, where one is used, is sent what is in here.';

create table ledger.accounts (
    account text collate "C" primary key check (account ~ '^[a-zA-Z0-9_-]+(:[a-zA-Z0-9_-]+)*$'),
    may_be_negative boolean not null default false,
    created_at timestamptz not null default now()
);

-- Untracked: an account may be used by later runs, so that undoing the run that opened it must not close it.
comment on table ledger.accounts is 'Accounts, opened as they are needed. One that is no longer used is harmless.';
comment on column ledger.accounts.account is 'Segments joined by colons: world, borrower:<customer>:rotessa, mortgage:<id>:trust.';
comment on column ledger.accounts.may_be_negative is 'Whether the balance may fall below zero; only what stands for the outside world may.';
comment on column ledger.accounts.created_at is 'When it was opened.';

insert into ledger.accounts (account, may_be_negative) values ('world', true);

create table ledger.transactions (
    id uuid primary key,
    reference text collate "C" not null unique check (length(reference) > 0),
    effective_at timestamptz not null,
    recorded_at timestamptz not null default now(),
    reverses uuid unique references ledger.transactions (id),
    -- Nothing takes effect after it was recorded.
    check (effective_at <= recorded_at),
    check (reverses <> id)
);

create index transactions_recorded on ledger.transactions (recorded_at, effective_at, reference);

comment on table ledger.transactions is 'Transactions of the ledger. Never updated; deleted only by reversing the run that wrote them, in an open month.';
comment on column ledger.transactions.id is 'Made from the reference, so that it is the same wherever and whenever it is written.';
comment on column ledger.transactions.reference is 'Source system and source id: rotessa:tx:1233; the reversal of a chargeback adds :chargeback.';
comment on column ledger.transactions.effective_at is 'When it counts: the settlement date at 00:00:00Z for a backfill.';
comment on column ledger.transactions.recorded_at is 'When it was written here.';
comment on column ledger.transactions.reverses is 'The transaction that this one takes back; at most one reversal for each.';

create table ledger.postings (
    transaction_id uuid not null references ledger.transactions (id),
    line_no smallint not null check (line_no > 0),
    account text collate "C" not null references ledger.accounts (account),
    asset text collate "C" not null default 'CAD/2' check (asset ~ '^[A-Z][A-Z0-9]{0,16}(/[0-9]{1,2})?$'),
    amount bigint not null check (amount <> 0),
    primary key (transaction_id, line_no)
);

create index postings_account on ledger.postings (account, asset);

comment on table ledger.postings is
'Lines of transactions. Each movement is two lines that follow each other: an odd line takes from an account, the next gives.';
comment on column ledger.postings.transaction_id is 'The transaction.';
comment on column ledger.postings.line_no is 'Place in the transaction, from 1.';
comment on column ledger.postings.account is 'The account.';
comment on column ledger.postings.asset is 'What is counted and in which unit: CAD/2 is Canadian cents.';
comment on column ledger.postings.amount is 'In the asset''s smallest unit: negative is taken from the account, positive given to it.';

create table ledger.unbalanced (
    transaction_id uuid primary key
);

comment on table ledger.unbalanced is
'Transactions that do not sum to zero at this moment, looked at again when the database transaction commits. Empty otherwise.';
comment on column ledger.unbalanced.transaction_id is 'The transaction.';

create table ledger.closed_period (
    period text primary key check (backfill.is_billing_period(period)),
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

create trigger a_refuse_rewrite before update or delete or truncate on ledger.transactions
for each statement execute function ledger.refuse_rewrite();
create trigger b_refuse_closed_insert after insert on ledger.transactions
referencing new table as changed_rows for each statement execute function ledger.refuse_closed();
create trigger b_refuse_closed_delete after delete on ledger.transactions
referencing old table as changed_rows for each statement execute function ledger.refuse_closed();
create trigger c_queue_empty after insert on ledger.transactions
referencing new table as changed_rows for each statement execute function ledger.queue_empty();

create trigger a_refuse_rewrite before update or delete or truncate on ledger.postings
for each statement execute function ledger.refuse_rewrite();
create trigger c_queue_unbalanced_insert after insert on ledger.postings
referencing new table as changed_rows for each statement execute function ledger.queue_unbalanced();
create trigger c_queue_unbalanced_delete after delete on ledger.postings
referencing old table as changed_rows for each statement execute function ledger.queue_unbalanced();

create constraint trigger refuse_unbalanced after insert on ledger.unbalanced
deferrable initially deferred for each row execute function ledger.refuse_unbalanced();

create trigger a_lock_periods before insert on ledger.closed_period
for each row execute function ledger.lock_periods();
create trigger a_refuse_rewrite before update or delete or truncate on ledger.closed_period
for each statement execute function ledger.refuse_rewrite();

do $do$
begin
    -- Deferred, so that a payment and its transaction can be written in any order.
    if exists (select from backfill.baseline where relation = 'lending.payments') then
        alter table lending.payments add constraint payments_ledger_transaction foreign key (ledger_transaction_id)
        references ledger.transactions (id) deferrable initially deferred;
    end if;
end;
$do$;

create view ledger.collection_legs as
select
    p.id as payment_id,
    p.source_reference as reference,
    p.ledger_transaction_id,
    l.line_no::smallint as line_no,
    l.account,
    'CAD/2'::text as asset,
    l.amount
from lending.payments as p
cross join lateral (
    values
    (1, 'world', -p.amount_cents::bigint),
    (2, 'borrower:' || p.rotessa_customer_id || ':rotessa', p.amount_cents::bigint),
    (3, 'borrower:' || p.rotessa_customer_id || ':rotessa', -p.amount_cents::bigint),
    (4, 'mortgage:' || p.mortgage_id || ':trust', p.amount_cents::bigint)
) as l (line_no, account, amount);

comment on view ledger.collection_legs is
'The rule by which a collected payment is posted: it comes in from the world, and clears to the mortgage''s trust. Whatever posts
a payment, one or many, takes its lines from here. Grain: one row for each payment and line.';
comment on column ledger.collection_legs.payment_id is 'The payment.';
comment on column ledger.collection_legs.reference is 'Its reference.';
comment on column ledger.collection_legs.ledger_transaction_id is 'Its transaction, where it has one already.';
comment on column ledger.collection_legs.line_no is 'Place in the transaction.';
comment on column ledger.collection_legs.account is 'The account.';
comment on column ledger.collection_legs.asset is 'CAD/2.';
comment on column ledger.collection_legs.amount is 'Cents: negative is taken, positive given.';

create function ledger.transaction_id(p_reference text) returns uuid
language sql stable parallel safe
security invoker
return backfill.business_id('ledger', p_reference);

comment on function ledger.transaction_id(text) is 'The id of the transaction with this reference.';

create function ledger.record_payment_collection(p_payment uuid, p_effective_at timestamptz default null)
returns ledger.transactions
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment lending.payments;
    v_row ledger.transactions;
    v_why text;
begin
    select * into v_payment from lending.payments where id = p_payment for update;
    if not found then
        raise exception 'there is no payment %', coalesce(p_payment::text, 'null') using errcode = 'BF009', hint = 'select id from lending.payments;';
    end if;
    select * into v_row from ledger.transactions where reference = v_payment.source_reference;
    if found then
        v_why := concat_ws('; ',
            case when p_effective_at <> v_row.effective_at
                then format('it took effect at %s, not at %s', v_row.effective_at at time zone 'UTC', p_effective_at at time zone 'UTC') end,
            (select string_agg(format('line %s: %s %s %s in the ledger, %s %s %s by the payment', coalesce(p.line_no, l.line_no),
                    coalesce(p.account, 'nothing'), p.amount, p.asset, coalesce(l.account, 'nothing'), l.amount, l.asset), '; '
                    order by coalesce(p.line_no, l.line_no))
                from (select * from ledger.postings where transaction_id = v_row.id) as p
                full join (select * from ledger.collection_legs where payment_id = p_payment) as l on p.line_no = l.line_no
                where (p.account, p.asset, p.amount) is distinct from (l.account, l.asset, l.amount)));
        if v_why <> '' then
            raise exception 'payment % is in the ledger with other content: %', v_payment.source_reference, v_why
                using errcode = 'BF040', hint = 'Nothing was written. Find out which one is right; a correction is a transaction of its own.';
        end if;
    else
        v_why := case
            when v_payment.status <> 'approved' then format('it is %s', v_payment.status)
            when v_payment.settlement_date is null then 'it has no settlement date'
            when v_payment.settlement_date > (now() at time zone 'UTC')::date then format('it settles on %s only', v_payment.settlement_date)
            when p_effective_at > now() then format('it cannot take effect at %s, which is to come', p_effective_at at time zone 'UTC')
        end;
        if v_why is not null then
            raise exception 'payment % cannot be posted: %', v_payment.source_reference, v_why
                using errcode = 'BF045', hint = 'Only what is approved and settled is posted, and nothing takes effect before its time.';
        end if;
        insert into ledger.accounts (account)
        select distinct l.account from ledger.collection_legs as l where l.payment_id = p_payment
        on conflict do nothing;
        with written as (
            insert into ledger.transactions (id, reference, effective_at)
            values (ledger.transaction_id(v_payment.source_reference), v_payment.source_reference, coalesce(p_effective_at, now()))
            returning *
        ), lines as (
            insert into ledger.postings (transaction_id, line_no, account, asset, amount)
            select w.id, l.line_no, l.account, l.asset, l.amount
            from written as w join ledger.collection_legs as l on l.payment_id = p_payment
        )
        select * into v_row from written;
    end if;
    if v_payment.ledger_transaction_id is distinct from v_row.id then
        update lending.payments set ledger_transaction_id = v_row.id where id = p_payment;
    end if;
    return v_row;
end;
$$;

comment on function ledger.record_payment_collection(uuid, timestamptz) is
'The one way of a payment into the ledger, for live sync and backfill. Effective at: the settlement date at 00:00:00Z for a backfill;
null = now. Again with the same content: a no-op that returns the transaction; with other content: an error (BF040).';

create function ledger.record_payment_chargeback(p_payment uuid) returns ledger.transactions
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment lending.payments;
    v_row ledger.transactions;
begin
    select * into v_payment from lending.payments where id = p_payment for update;
    if not found then
        raise exception 'there is no payment %', coalesce(p_payment::text, 'null') using errcode = 'BF009', hint = 'select id from lending.payments;';
    end if;
    if v_payment.ledger_transaction_id is not null then
        select * into v_row from ledger.transactions where reverses = v_payment.ledger_transaction_id;
        if not found then
            -- Effective now, whenever the payment was: the month under way is always open, the payment's may be closed.
            with written as (
                insert into ledger.transactions (id, reference, effective_at, reverses)
                values (ledger.transaction_id(v_payment.source_reference || ':chargeback'), v_payment.source_reference || ':chargeback',
                    now(), v_payment.ledger_transaction_id)
                returning *
            ), lines as (
                -- Backwards: what came last goes back first, so that no account falls below zero on the way.
                insert into ledger.postings (transaction_id, line_no, account, asset, amount)
                select w.id, max(p.line_no) over () + 1 - p.line_no, p.account, p.asset, -p.amount
                from written as w join ledger.postings as p on p.transaction_id = w.reverses
            )
            select * into v_row from written;
        end if;
    end if;
    if v_payment.status <> 'chargeback' then
        update lending.payments set status = 'chargeback' where id = p_payment;
    end if;
    return v_row;
end;
$$;

comment on function ledger.record_payment_chargeback(uuid) is
'Takes a payment back: one reversing transaction, linked to the first and effective now, so that a closed month is corrected in the
open one; and the payment is marked. Again: a no-op. A payment that was never posted is only marked (returns nulls).';

create function ledger.balances(p_as_of timestamptz default 'infinity')
returns table (account text, asset text, balance bigint, postings bigint, may_be_negative boolean)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select p.account, p.asset, sum(p.amount)::bigint, count(*), a.may_be_negative
    from ledger.postings as p
    join ledger.transactions as t on t.id = p.transaction_id and t.effective_at <= p_as_of
    join ledger.accounts as a on a.account = p.account
    group by p.account, p.asset, a.may_be_negative
    order by p.account, p.asset;
$$;

comment on function ledger.balances(timestamptz) is
'Balance of each account as of an effective date, in the asset''s smallest unit. Example: select * from ledger.balances(''2025-06-30 23:59:59Z'');';

create view ledger.running_balance as
select
    p.account,
    p.asset,
    t.effective_at,
    t.reference,
    t.id as transaction_id,
    p.amount,
    (sum(p.amount) over (
        partition by p.account, p.asset order by t.effective_at, t.reference
        rows between unbounded preceding and current row
    ))::bigint as balance,
    a.may_be_negative
from (
    select
        transaction_id,
        account,
        asset,
        sum(amount)::bigint as amount
    from ledger.postings
    group by transaction_id, account, asset
) as p
inner join ledger.transactions as t on p.transaction_id = t.id
inner join ledger.accounts as a on p.account = a.account;

comment on view ledger.running_balance is
'What each transaction made of each account''s balance, by effective date. Grain: one row for each account, asset and transaction.';
comment on column ledger.running_balance.amount is 'What the transaction changed, in the asset''s smallest unit.';
comment on column ledger.running_balance.balance is 'Balance after it.';

revoke execute on all functions in schema ledger from public;
do $do$
begin
    perform backfill.track('ledger.transactions', '{reference}', null);
    perform backfill.track('ledger.postings', '{transaction_id,line_no}', 'amount');
    perform backfill.track('ledger.closed_period');
    perform backfill.grant_to('backfill_auditor', 'usage on schema ledger');
    perform backfill.grant_to('backfill_auditor', 'select on ledger.accounts, ledger.transactions, ledger.postings, '
        'ledger.closed_period, ledger.collection_legs, ledger.running_balance');
    perform backfill.grant_to('backfill_auditor', 'execute on function ledger.balances(timestamptz)');
    perform backfill.grant_to('backfill_auditor', 'execute on function ledger.transaction_id(text)');
    perform backfill.grant_to('backfill_operator', 'execute on function ledger.close_period(text, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function ledger.record_payment_collection(uuid, timestamptz)');
    perform backfill.grant_to('backfill_operator', 'execute on function ledger.record_payment_chargeback(uuid)');
end;
$do$;
