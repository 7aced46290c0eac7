-- The outbox to a Formance ledger: what is still to be sent, and what it answered.
-- Safe: a new table, functions and views in ledger. Where Formance is not used, they stay empty.
-- depends: 0514_lending_payment_steps

create table ledger.push (
    transaction_id uuid primary key references ledger.transactions (id),
    state text not null check (state in ('sent', 'confirmed', 'refused')),
    attempts integer not null default 1 check (attempts > 0),
    formance_id text,
    code text,
    reason text,
    hard boolean not null default false,
    sent_at timestamptz not null default now(),
    answered_at timestamptz,
    check ((state = 'sent') = (answered_at is null)),
    check (state <> 'confirmed' or formance_id is not null),
    check (state <> 'refused' or code is not null)
);

-- The foreign key also keeps a transaction from being reversed once it may have been sent.
comment on table ledger.push is
'Transactions that were sent to Formance and what it answered. The row is committed before the request: sent = no answer was
recorded, so that it is sent again under the same key. A transaction without a row was never sent.';
comment on column ledger.push.transaction_id is 'The transaction.';
comment on column ledger.push.state is 'sent, confirmed, refused.';
comment on column ledger.push.attempts is 'How often it was sent.';
comment on column ledger.push.formance_id is 'Its id at Formance.';
comment on column ledger.push.code is 'Error code of the refusal: INSUFFICIENT_FUND, VALIDATION, CONFLICT, ...';
comment on column ledger.push.reason is 'The refusal in words.';
comment on column ledger.push.hard is 'Formance holds another transaction under this reference: trying again cannot help.';
comment on column ledger.push.sent_at is 'When it was sent last.';
comment on column ledger.push.answered_at is 'When it was answered.';

create index push_unconfirmed on ledger.push (state) where state <> 'confirmed';

create view ledger.formance_body as
select
    t.id as transaction_id,
    t.reference,
    t.recorded_at,
    t.effective_at,
    t.reverses,
    'runner:' || t.id as idempotency_key,
    jsonb_build_object(
        'timestamp', to_char(t.effective_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
        || case
            when t.effective_at = date_trunc('second', t.effective_at) then ''
            else to_char(t.effective_at at time zone 'UTC', '.US')
        end || 'Z',
        'reference', t.reference,
        'postings', (
            select
                jsonb_agg(
                    jsonb_build_object(
                        'source', taken.account, 'destination', given.account, 'asset', given.asset,
                        'amount', given.amount
                    ) order by given.line_no
                )
            from ledger.postings as taken
            inner join ledger.postings as given
                on taken.transaction_id = given.transaction_id and taken.line_no + 1 = given.line_no
            where taken.transaction_id = t.id and taken.line_no % 2 = 1
        ),
        -- Nothing that could change between two tries: the key's hash covers it.
        'metadata', jsonb_build_object('transaction_id', t.id::text)
        || case when t.reverses is null then '{}' else jsonb_build_object('reverses', t.reverses::text) end
    ) as body
from ledger.transactions as t;

comment on view ledger.formance_body is
'Each transaction as it is sent to Formance: the same bytes whenever it is asked for. Grain: one row for each transaction.';
comment on column ledger.formance_body.transaction_id is 'The transaction.';
comment on column ledger.formance_body.idempotency_key is 'The key under which it is sent, always the same.';
comment on column ledger.formance_body.body is 'timestamp, reference, postings (source, destination, asset, amount), metadata.';

create function ledger.push_batch(
    p_limit integer default 100, p_retry_refused boolean default false, p_attempt_before timestamptz default null
) returns table (transaction_id uuid, reference text, idempotency_key text, body jsonb)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids uuid[];
begin
    -- One pusher at a time hands out work; the lock is gone with the transaction, so no crash leaves it behind.
    perform pg_advisory_xact_lock(hashtextextended('ledger.push', 0));
    select array_agg(x.id) into v_ids
    from (
        (select p.transaction_id as id
        from ledger.push as p
        where (p.state = 'sent' or (p.state = 'refused' and p_retry_refused))
            and p.sent_at < coalesce(p_attempt_before, 'infinity')
        limit p_limit)
        union all
        (select t.id
        from ledger.transactions as t
        where not exists (select from ledger.push as p where p.transaction_id = t.id)
            -- What was refused must not be taken back there.
            and (t.reverses is null or exists (
                select from ledger.push as p where p.transaction_id = t.reverses and p.state = 'confirmed'))
        order by t.recorded_at, t.effective_at, t.reference
        limit p_limit)
    ) as x;
    return query
    with picked as (
        select b.*
        from ledger.formance_body as b
        where b.transaction_id = any (v_ids)
        order by b.recorded_at, b.effective_at, b.reference
        limit p_limit
    ), noted as (
        insert into ledger.push as p (transaction_id, state)
        select k.transaction_id, 'sent' from picked as k
        on conflict on constraint push_pkey do update
        set state = 'sent', attempts = p.attempts + 1, sent_at = now(), answered_at = null, code = null, reason = null, hard = false
    )
    select k.transaction_id, k.reference, k.idempotency_key, k.body from picked as k;
end;
$$;

comment on function ledger.push_batch(integer, boolean, timestamptz) is
'The next transactions to send, in order: those without an answer first, then new ones; refused ones only when asked. A
reversal waits until what it reverses is confirmed. Commit before the request: what may have been sent is then known. Attempt before: leaves out what was sent since, so that one pass ends.';

create function ledger.push_confirmed(p_transactions uuid[], p_formance_ids text[]) returns bigint
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_count bigint;
    v_other text;
begin
    if cardinality(p_transactions) is distinct from cardinality(p_formance_ids) then
        raise exception '% transactions and % ids of Formance', cardinality(p_transactions), cardinality(p_formance_ids)
            using errcode = 'BF046', hint = 'One id for each transaction, in the same order.';
    end if;
    select string_agg(format('%s: %s', x.id, case when p.transaction_id is null then 'was never sent'
        else format('is confirmed as %s, not %s', p.formance_id, x.formance_id) end), '; ') into v_other
    from unnest(p_transactions, p_formance_ids) as x (id, formance_id)
    left join ledger.push as p on p.transaction_id = x.id
    where p.transaction_id is null or (p.state = 'confirmed' and p.formance_id <> x.formance_id) or x.formance_id is null;
    if v_other is not null then
        raise exception 'confirmation refused: %', v_other
            using errcode = 'BF046', hint = 'Only what ledger.push_batch() handed out can be confirmed, and only once. See runner ledger verify.';
    end if;
    update ledger.push as p
    set state = 'confirmed', formance_id = x.formance_id, answered_at = now(), code = null, reason = null, hard = false
    from unnest(p_transactions, p_formance_ids) as x (id, formance_id)
    where p.transaction_id = x.id and p.state <> 'confirmed';
    get diagnostics v_count = row_count;
    return v_count;
end;
$$;

comment on function ledger.push_confirmed(uuid[], text[]) is
'Records what Formance took, one id for each transaction; returns how many are newly confirmed. Again: a no-op; another id for a
confirmed one is refused (BF046).';

create function ledger.push_refused(
    p_transaction uuid, p_code text, p_reason text, p_hard boolean default false
) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update ledger.push
    set state = 'refused', code = coalesce(p_code, 'UNKNOWN'), reason = left(p_reason, 2000), hard = coalesce(p_hard, false), answered_at = now()
    where transaction_id = p_transaction and state <> 'confirmed';
    if not found then
        raise exception 'refusal of transaction % cannot be recorded: it %', coalesce(p_transaction::text, 'null'),
            case when exists (select from ledger.push where transaction_id = p_transaction) then 'is confirmed' else 'was never sent' end
            using errcode = 'BF046', hint = 'Only what ledger.push_batch() handed out can be refused.';
    end if;
end;
$$;

comment on function ledger.push_refused(uuid, text, text, boolean) is
'Records that Formance did not take a transaction, and why. Hard: it holds another one under this reference.';

create view ledger.push_state as
with moved as (
    select
        transaction_id,
        sum(amount) as cents
    from ledger.postings
    where line_no = 2
    group by transaction_id
)

select
    coalesce(p.state, 'pending') as state,
    p.code,
    p.hard,
    count(*) as transactions,
    sum(m.cents)::bigint as cents,
    min(t.reference) as first_reference,
    min(p.reason) as first_reason
from ledger.transactions as t
left join ledger.push as p on t.id = p.transaction_id
left join moved as m on t.id = m.transaction_id
group by coalesce(p.state, 'pending'), p.code, p.hard;

comment on view ledger.push_state is 'How far the outbox is. Grain: one row for each state, code and hardness.';
comment on column ledger.push_state.state is 'pending (never sent), sent (no answer recorded), confirmed, refused.';
comment on column ledger.push_state.transactions is 'How many.';
comment on column ledger.push_state.cents is 'Sum of what their first movement moves.';
comment on column ledger.push_state.first_reference is 'One of them.';
comment on column ledger.push_state.first_reason is 'One of the reasons.';
