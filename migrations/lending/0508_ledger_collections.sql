-- The one way of a collected payment into the ledger, for live sync and backfill alike, and the way back of a chargeback.
-- Safe: a view and functions; they write only where they are called.
-- depends: 0507_ledger_guards

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
