-- The ledger compared with Formance's, transaction by transaction.
-- Safe: a new table in staging, functions in ledger. Where Formance is not used, the table stays empty.
-- depends: 0515_ledger_push

create table staging.formance_transaction (
    verify_id uuid not null,
    formance_id text not null,
    reference text,
    effective_at timestamptz,
    postings jsonb not null,
    primary key (verify_id, formance_id)
);

comment on table staging.formance_transaction is 'Formance''s side of a comparison, of the last one only.';
comment on column staging.formance_transaction.verify_id is 'The comparison.';
comment on column staging.formance_transaction.formance_id is 'Id at Formance.';
comment on column staging.formance_transaction.reference is 'Reference; null = none.';
comment on column staging.formance_transaction.effective_at is 'Its timestamp.';
comment on column staging.formance_transaction.postings is 'Its postings as we write them: source, destination, asset, amount.';

create function ledger.begin_verify() returns uuid
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from staging.formance_transaction;
    return gen_random_uuid();
end;
$$;

comment on function ledger.begin_verify() is 'Begins a comparison with Formance; what an earlier one had read is forgotten.';

create function ledger.take_formance_transactions(p_verify uuid, p_rows jsonb) returns bigint
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_count bigint;
begin
    if jsonb_typeof(p_rows) is distinct from 'array' then
        raise exception 'Formance''s answer is no array but %', coalesce(jsonb_typeof(p_rows), 'null')
            using errcode = 'BF041', hint = 'Pass cursor.data of GET /v2/{ledger}/transactions.';
    end if;
    insert into staging.formance_transaction (verify_id, formance_id, reference, effective_at, postings)
    select p_verify, r.id, nullif(r.reference, ''), r.timestamp::timestamptz, coalesce((
        select jsonb_agg(jsonb_build_object('source', x.source, 'destination', x.destination, 'asset', x.asset, 'amount', x.amount) order by x.i)
        from rows from (jsonb_to_recordset(r.postings) as (source text, destination text, asset text, amount numeric)) with ordinality
            as x (source, destination, asset, amount, i)), '[]')
    from jsonb_to_recordset(p_rows) as r (id text, reference text, timestamp text, postings jsonb)
    on conflict (verify_id, formance_id) do nothing;
    get diagnostics v_count = row_count;
    return v_count;
end;
$$;

comment on function ledger.take_formance_transactions(uuid, jsonb) is
'A page of Formance''s transactions (cursor.data) for a comparison; pages may overlap. Returns how many were new.';

create function ledger.verify_findings(p_verify uuid)
returns table (reference text, finding text, transaction_id uuid, formance_id text, detail text)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set enable_nestloop = off
set jit = off
as $$
begin
    return query
    select coalesce(o.reference, f.reference), case
            when o.transaction_id is null then 'only in Formance'
            when f.formance_id is null and p.state = 'confirmed' then 'confirmed, and missing in Formance'
            when f.formance_id is null then 'not in Formance'
            when o.body -> 'postings' is distinct from f.postings or o.effective_at is distinct from f.effective_at then 'differs'
            when p.state = 'confirmed' then 'confirmed under another id'
            else 'in Formance, and not confirmed here'
        end, o.transaction_id, f.formance_id, case
            when o.transaction_id is null then f.postings::text
            when f.formance_id is null then coalesce(concat_ws(': ', p.state, p.code, p.reason), 'never sent')
            when o.body -> 'postings' is distinct from f.postings
                then format('here %s, at Formance %s', o.body -> 'postings', f.postings)
            when o.effective_at is distinct from f.effective_at
                then format('here effective at %s, at Formance at %s', o.effective_at at time zone 'UTC', f.effective_at at time zone 'UTC')
            else format('here %s, at Formance %s', coalesce(p.formance_id, 'none'), f.formance_id)
        end
    from ledger.formance_body as o
    full join (select * from staging.formance_transaction as x where x.verify_id = p_verify) as f on f.reference = o.reference
    left join ledger.push as p on p.transaction_id = o.transaction_id
    where o.transaction_id is null or f.formance_id is null or p.state is distinct from 'confirmed' or p.formance_id <> f.formance_id
        or o.body -> 'postings' is distinct from f.postings or o.effective_at is distinct from f.effective_at
    order by 1, 4;
end;
$$;

comment on function ledger.verify_findings(uuid) is
'Both sides compared, transaction by transaction: the rows that are not the same and confirmed. Empty = the ledgers agree.';
