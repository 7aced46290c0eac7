-- What the property application owns: units, payments, charges.
-- Safe: a table is created only where it is missing; one that exists is checked and, apart from the
-- capture triggers of backfill.track(), left as it is.
-- depends: 0027_backfill_owner

do $do$
begin
    perform backfill.create_baseline_schema('property');

    perform backfill.create_baseline(
        'property.units',
        'id uuid primary key default gen_random_uuid(), rent_amount_cents bigint',
        '{"id": "uuid", "rent_amount_cents": "integer|bigint"}'
    );

    perform backfill.create_baseline(
        'property.payments',
        $$id uuid primary key default gen_random_uuid(),
        tenant_user_id text not null,
        unit_id uuid not null references property.units (id),
        amount_cents bigint not null,
        payment_method text not null check (payment_method in ('card', 'ach', 'cash', 'check', 'venmo', 'other')),
        status text not null check (status in ('pending', 'succeeded', 'failed')),
        billing_period text not null,
        note text,
        paid_at timestamptz,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now()$$,
        '{"id": "uuid", "tenant_user_id": "text", "unit_id": "uuid", "amount_cents": "integer|bigint", "status": "text",
          "billing_period": "text"}'
    );

    perform backfill.create_baseline(
        'property.charges',
        $$id uuid primary key default gen_random_uuid(),
        tenant_user_id text not null,
        unit_id uuid not null references property.units (id),
        type text not null check (type in ('rent', 'late_fee', 'one_time', 'credit', 'adjustment')),
        description text not null,
        amount_cents bigint not null,
        billing_period text,
        created_by text,
        created_at timestamptz not null default now()$$,
        '{"id": "uuid", "tenant_user_id": "text", "unit_id": "uuid", "type": "text", "description": "text",
          "amount_cents": "integer|bigint", "billing_period": "text", "created_by": "text",
          "created_at": "timestamp without time zone|timestamp with time zone"}',
        true
    );

    perform backfill.track('property.units', null, null);
    perform backfill.track('property.payments', '{tenant_user_id,unit_id,billing_period}', 'amount_cents');
    perform backfill.track('property.charges', '{tenant_user_id,unit_id,billing_period}', 'amount_cents');
end;
$do$;
