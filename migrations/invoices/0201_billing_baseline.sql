-- What the billing application owns: companies, settings, facilities, contractors, assignments, invoices
-- and their lines, checks and what they paid, interest.
-- Safe: a table is created only where it is missing; one that exists is checked and, apart from the
-- capture triggers of backfill.track(), left as it is. billing.settings is not tracked: the invoice
-- watermark never goes down, so that no reversal may put it back.
-- depends: 0027_backfill_owner

do $do$
begin
    perform backfill.create_baseline_schema('billing');

    perform backfill.create_baseline(
        'billing.companies',
        'id uuid primary key default gen_random_uuid(), name text not null unique',
        '{"id": "uuid", "name": "text"}'
    );

    perform backfill.create_baseline(
        'billing.settings',
        $$company_id uuid primary key references billing.companies (id),
        next_invoice_number bigint not null default 1 check (next_invoice_number > 0),
        interest_annual_bps integer not null default 0 check (interest_annual_bps >= 0)$$,
        '{"company_id": "uuid", "next_invoice_number": "integer|bigint", "interest_annual_bps": "integer|bigint"}',
        true
    );

    perform backfill.create_baseline(
        'billing.facilities',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        name text not null,
        unique (company_id, name)$$,
        '{"id": "uuid", "company_id": "uuid", "name": "text"}'
    );

    perform backfill.create_baseline(
        'billing.contractors',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        name text not null,
        unique (company_id, name)$$,
        '{"id": "uuid", "company_id": "uuid", "name": "text"}'
    );

    perform backfill.create_baseline(
        'billing.assignments',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        contractor_id uuid not null references billing.contractors (id),
        facility_id uuid not null references billing.facilities (id),
        effective_from date not null,
        effective_to date,
        rate_cents bigint not null check (rate_cents >= 0),
        check (effective_to >= effective_from),
        unique (company_id, contractor_id, facility_id, effective_from)$$,
        '{"id": "uuid", "company_id": "uuid", "contractor_id": "uuid", "facility_id": "uuid", "effective_from": "date",
          "effective_to": "date"}'
    );

    perform backfill.create_baseline(
        'billing.invoices',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        facility_id uuid not null references billing.facilities (id),
        invoice_number text not null,
        period_start date not null,
        period_end date not null,
        status text not null default 'draft' check (status in ('draft', 'sent', 'partial', 'paid', 'void')),
        sent_at timestamptz,
        due_date date,
        total_cents bigint not null,
        amount_paid_cents bigint not null default 0,
        pdf_storage_path text,
        created_at timestamptz not null default now(),
        check (period_end >= period_start),
        check (amount_paid_cents between 0 and greatest(total_cents, 0)),
        unique (company_id, invoice_number)$$,
        '{"id": "uuid", "company_id": "uuid", "facility_id": "uuid", "invoice_number": "text", "period_start": "date",
          "period_end": "date", "status": "text", "sent_at": "timestamp with time zone", "due_date": "date",
          "total_cents": "integer|bigint", "amount_paid_cents": "integer|bigint", "pdf_storage_path": "text",
          "created_at": "timestamp with time zone"}',
        true
    );

    perform backfill.create_baseline(
        'billing.invoice_lines',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        invoice_id uuid not null references billing.invoices (id),
        line_no integer not null check (line_no > 0),
        description text not null,
        contractor_id uuid references billing.contractors (id),
        assignment_id uuid references billing.assignments (id),
        week_start date,
        hours numeric(9, 2),
        rate_cents bigint,
        amount_cents bigint not null,
        variance_flagged boolean not null default false,
        unique (invoice_id, line_no)$$,
        '{"id": "uuid", "company_id": "uuid", "invoice_id": "uuid", "line_no": "integer|bigint", "description": "text",
          "contractor_id": "uuid", "assignment_id": "uuid", "week_start": "date", "hours": "numeric",
          "rate_cents": "integer|bigint", "amount_cents": "integer|bigint", "variance_flagged": "boolean"}',
        true
    );

    perform backfill.create_baseline(
        'billing.check_payments',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        facility_id uuid references billing.facilities (id),
        check_number text not null,
        received_on date not null,
        amount_cents bigint not null check (amount_cents > 0),
        created_at timestamptz not null default now()$$,
        '{"id": "uuid", "company_id": "uuid", "facility_id": "uuid", "check_number": "text", "received_on": "date",
          "amount_cents": "integer|bigint"}'
    );

    perform backfill.create_baseline(
        'billing.check_payment_applications',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        check_payment_id uuid not null references billing.check_payments (id),
        invoice_id uuid not null references billing.invoices (id),
        amount_cents bigint not null check (amount_cents > 0),
        applied_at timestamptz not null default now(),
        unique (check_payment_id, invoice_id)$$,
        '{"id": "uuid", "company_id": "uuid", "check_payment_id": "uuid", "invoice_id": "uuid",
          "amount_cents": "integer|bigint", "applied_at": "timestamp with time zone"}',
        true
    );

    perform backfill.create_baseline(
        'billing.interest_accruals',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        invoice_id uuid not null references billing.invoices (id),
        accrued_from date not null,
        accrued_through date not null,
        base_cents bigint not null check (base_cents > 0),
        annual_bps integer not null,
        amount_cents bigint not null check (amount_cents > 0),
        created_at timestamptz not null default now(),
        check (accrued_through > accrued_from),
        unique (invoice_id, accrued_through)$$,
        '{"id": "uuid", "company_id": "uuid", "invoice_id": "uuid", "accrued_from": "date", "accrued_through": "date",
          "base_cents": "integer|bigint", "annual_bps": "integer|bigint", "amount_cents": "integer|bigint"}',
        true
    );

    perform backfill.track('billing.facilities', '{name}', null);
    perform backfill.track('billing.contractors', '{name}', null);
    perform backfill.track('billing.assignments', '{contractor_id,facility_id,effective_from}', null);
    perform backfill.track('billing.invoices', '{invoice_number}', 'total_cents', p_void => '{status,void}');
    perform backfill.track('billing.invoice_lines', '{invoice_id,line_no}', 'amount_cents');
    perform backfill.track('billing.check_payments', '{check_number}', 'amount_cents');
    perform backfill.track('billing.check_payment_applications', '{check_payment_id,invoice_id}', 'amount_cents');
    perform backfill.track('billing.interest_accruals', '{invoice_id,accrued_through}', 'amount_cents');
end;
$do$;
