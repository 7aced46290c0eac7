-- What a reconciliation shows without a ledger, and the history of what reconciliations found.
-- Safe: new functions, new tables apart from dbt's schema, which may be dropped and built anew.
-- depends: 0405_staging_compare_finance_ledger

create table backfill.comparison (
    comparison_id uuid primary key default gen_random_uuid(),
    compared_at timestamptz not null default now(),
    actor text not null default session_user,
    file_sha256 text not null,
    file_name text not null,
    scope jsonb not null check (jsonb_typeof(scope) = 'object'),
    classes jsonb not null check (jsonb_typeof(classes) = 'array')
);

comment on table backfill.comparison is 'One row for each comparison that was kept (runner reconcile --store-failures).';
comment on column backfill.comparison.comparison_id is 'Names it.';
comment on column backfill.comparison.compared_at is 'When.';
comment on column backfill.comparison.actor is 'By which role.';
comment on column backfill.comparison.file_sha256 is 'The ledger''s file, see staging.file.';
comment on column backfill.comparison.file_name is 'Its name.';
comment on column backfill.comparison.scope is 'What was asked: from, to, as_of, company, tolerance and tolerance_total in whole units of each currency.';
comment on column backfill.comparison.classes is 'Rows and money by currency of both sides, by class.';

create table backfill.comparison_finding (
    comparison_id uuid not null references backfill.comparison (comparison_id),
    number bigint not null,
    class text not null,
    payload jsonb not null,
    primary key (comparison_id, number)
);

comment on table backfill.comparison_finding is 'The rows of kept comparisons that were not identical.';
comment on column backfill.comparison_finding.comparison_id is 'The comparison.';
comment on column backfill.comparison_finding.number is 'Place in it.';
comment on column backfill.comparison_finding.class is 'Its class.';
comment on column backfill.comparison_finding.payload is 'Line and invoice side by side: numbers, cents, dates, status, currency.';

create function backfill.keep_comparison(p_file text, p_scope jsonb, p_classes jsonb) returns uuid
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id uuid;
begin
    insert into backfill.comparison (actor, file_sha256, file_name, scope, classes)
    select session_user, f.sha256, f.name, p_scope, p_classes
    from staging.file as f where f.loader = 'finance_ledger' and f.sha256 = p_file
    returning comparison_id into v_id;
    insert into backfill.comparison_finding (comparison_id, number, class, payload)
    select v_id, r.number, r.row ->> 'class', r.row
    from staging.comparison_rows() with ordinality as r (row, number);
    return v_id;
end;
$$;

comment on function backfill.keep_comparison(text, jsonb, jsonb) is
'Keeps the comparison of this transaction, with all its findings, beside the earlier ones.';

create function billing.reconciliation_summary()
returns table (measure text, currency text, status text, row_count bigint, cents bigint)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select 'invoices', currency, status, count(*), coalesce(sum(total_cents), 0)::bigint
    from billing.invoices group by currency, status
    union all
    select 'invoices without a billing profile', currency, status, count(*), coalesce(sum(total_cents), 0)::bigint
    from billing.invoices where billing_profile_id is null group by currency, status
    union all
    select 'payments', currency, status, count(*), coalesce(sum(amount_cents), 0)::bigint
    from billing.payments group by currency, status
    union all
    select case when invoice_id is null then 'unlinked payments' else 'linked payments' end, currency, status, count(*),
        coalesce(sum(amount_cents), 0)::bigint
    from billing.payments group by 1, 2, 3
    order by 1, 2, 3;
$$;

comment on function billing.reconciliation_summary() is
'Rows and cents by currency and status: invoices, payments, linked and unlinked payments, invoices without a billing profile.';

create function billing.reconciliation_samples(p_limit integer)
returns table (measure text, payload jsonb)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    (select 'invoices without a billing profile', jsonb_build_object('invoice', invoice_number, 'cents', total_cents,
        'currency', currency, 'status', status, 'has_customer', customer_id is not null)
    from billing.invoices where billing_profile_id is null order by invoice_number, id limit p_limit)
    union all
    (select 'unlinked payments', jsonb_build_object('payment', id, 'paid_at', paid_at, 'cents', amount_cents,
        'currency', currency, 'status', status)
    from billing.payments where invoice_id is null order by paid_at, id limit p_limit);
$$;

comment on function billing.reconciliation_samples(integer) is
'A sample of what the summary counts as open. Without the reference of a payment: it may hold an account number.';
