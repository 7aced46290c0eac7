-- Balances of accounts, as of any date and after each transaction.
-- Safe: a function and a view; they read.
-- depends: 0508_ledger_collections

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
