-- What the corrections work on: customers, their billing profiles, payments; and on invoices the customer, the
-- currency and the billing profile.
-- Safe: a table or column is created only where it is missing. New columns are nullable; the only default,
-- currency USD, is for rows to come: a row that is there keeps null, which reads as "not known".
-- depends: 0011_billing_invoice_origin

create function backfill.create_baseline_column(
    p_relation text, p_column text, p_type text, p_default text default null
) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from pg_attribute where attrelid = p_relation::regclass and attname = p_column and not attisdropped
    ) then
        execute format('alter table %s add column %I %s', p_relation::regclass, p_column, p_type);
        if p_default is not null then  -- apart from the column: what is there stays null
            execute format('alter table %s alter column %I set default %s', p_relation::regclass, p_column, p_default);
        end if;
        insert into backfill.baseline (relation) values (format('%s.%s', p_relation, p_column));
    end if;
    perform backfill.require_columns(p_relation, jsonb_build_object(p_column, p_type));
end;
$$;

comment on function backfill.create_baseline_column(text, text, text, text) is
'Adds a nullable column to a table of the application where it is missing; where it exists, only checks its type.';

create function backfill.drop_baseline_column(p_relation text, p_column text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_used boolean;
begin
    if not exists (select from backfill.baseline where relation = format('%s.%s', p_relation, p_column)) then
        raise notice 'column %.% was here before the baseline: it stays', p_relation, p_column;
        return;
    end if;
    if to_regclass(p_relation) is not null then
        execute format('select exists (select from %s where %I is not null)', p_relation, p_column) into v_used;
        if v_used then
            raise notice 'column %.% holds values: it stays', p_relation, p_column;
            return;
        end if;
        execute format('alter table %s drop column %I', p_relation, p_column);
    end if;
    delete from backfill.baseline where relation = format('%s.%s', p_relation, p_column);
end;
$$;

comment on function backfill.drop_baseline_column(text, text) is
'Drops a column that create_baseline_column() added, unless a row holds a value in it.';

do $do$
begin
    perform backfill.create_baseline(
        'billing.customers',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        name text not null,
        unique (company_id, name)$$,
        '{"id": "uuid", "company_id": "uuid", "name": "text"}'
    );

    perform backfill.create_baseline(
        'billing.billing_profiles',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        customer_id uuid not null references billing.customers (id),
        name text not null,
        currency text not null check (currency ~ '^[A-Z]{3}$'),
        valid_from date not null,
        valid_to date,
        check (valid_to >= valid_from)$$,
        '{"id": "uuid", "company_id": "uuid", "customer_id": "uuid", "name": "text", "currency": "text",
          "valid_from": "date", "valid_to": "date"}'
    );

    perform backfill.create_baseline(
        'billing.payments',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        customer_id uuid references billing.customers (id),
        invoice_id uuid,
        amount_cents bigint not null check (amount_cents > 0),
        currency text not null check (currency ~ '^[A-Z]{3}$'),
        status text not null check (status in ('pending', 'succeeded', 'failed', 'refunded')),
        payment_method text,
        reference text,
        paid_at timestamptz not null,
        created_at timestamptz not null default now()$$,
        '{"id": "uuid", "company_id": "uuid", "customer_id": "uuid", "invoice_id": "uuid",
          "amount_cents": "integer|bigint", "currency": "text", "status": "text", "reference": "text",
          "paid_at": "timestamp with time zone"}'
    );

    perform backfill.create_baseline_column('billing.invoices', 'customer_id', 'uuid');
    perform backfill.create_baseline_column('billing.invoices', 'currency', 'text', '''USD''');
    perform backfill.create_baseline_column('billing.invoices', 'billing_profile_id', 'uuid');

    perform backfill.track('billing.invoices');
    perform backfill.track('billing.customers', '{name}', null);
    perform backfill.track('billing.billing_profiles', '{customer_id,name}', null);
    perform backfill.track('billing.payments', '{reference,paid_at}', 'amount_cents');
end;
$do$;

create view billing.invoice_ledger as
select
    id as invoice_id,
    company_id,
    invoice_number,
    (coalesce(sent_at, created_at) at time zone 'UTC')::date as entry_date,
    total_cents::bigint as cents,
    currency,
    status
from billing.invoices;

comment on view billing.invoice_ledger is 'Invoices as Finance''s ledger writes them. Grain: one row for each invoice.';
comment on column billing.invoice_ledger.invoice_id is 'The invoice.';
comment on column billing.invoice_ledger.company_id is 'Its company.';
comment on column billing.invoice_ledger.invoice_number is 'Its number, unique within the company.';
comment on column billing.invoice_ledger.entry_date is 'Day of issue in UTC; of a draft, the day on which it was made.';
comment on column billing.invoice_ledger.cents is 'Total in cents.';
comment on column billing.invoice_ledger.currency is 'Three letters; null = not known.';
comment on column billing.invoice_ledger.status is 'draft, sent, partial, paid, void.';

revoke execute on all functions in schema backfill from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor',
        'select on billing.customers, billing.billing_profiles, billing.payments, billing.invoice_ledger');
end;
$do$;
