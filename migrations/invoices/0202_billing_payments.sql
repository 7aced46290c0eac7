-- Who is billed and what was paid otherwise than by check: customers, payments; customer and currency of an invoice.
-- Safe: a table or column is created only where it is missing. New columns are nullable; the only default,
-- currency USD, is for rows to come: a row that is there keeps null, which reads as "not known".
-- depends: 0201_billing_baseline

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
    -- When it was sent again, and since when it is void: its own dates stay what they were.
    perform backfill.create_baseline_column('billing.invoices', 'last_sent_at', 'timestamp with time zone');
    perform backfill.create_baseline_column('billing.invoices', 'voided_on', 'date');

    -- A line is in the currency of its invoice; what is written here says it, so that no sum adds two of them.
    perform backfill.create_baseline_column('billing.invoice_lines', 'currency', 'text');
    perform backfill.create_baseline_column('billing.interest_accruals', 'currency', 'text');
    perform backfill.create_baseline_column('billing.check_payment_applications', 'currency', 'text');
    perform backfill.track('billing.invoices', p_currency => 'currency');
    perform backfill.track('billing.invoice_lines', p_currency => 'currency');
    perform backfill.track('billing.interest_accruals', p_currency => 'currency');
    perform backfill.track('billing.check_payment_applications', p_currency => 'currency');
    perform backfill.track('billing.customers', '{name}', null);
    perform backfill.track('billing.payments', '{reference,paid_at}', 'amount_cents', 'currency');
end;
$do$;
