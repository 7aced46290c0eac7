-- What a property application might hold before it knew charges: six flats, two years of payments.
create schema property;

create table property.units (
    id uuid primary key default gen_random_uuid(),
    rent_amount_cents integer
);

create table property.payments (
    id uuid primary key default gen_random_uuid(),
    tenant_user_id text not null,
    unit_id uuid not null references property.units (id),
    amount_cents integer not null,
    payment_method text not null check (payment_method in ('card', 'ach', 'cash', 'check', 'venmo', 'other')),
    status text not null check (status in ('pending', 'succeeded', 'failed')),
    billing_period text not null,
    note text,
    paid_at timestamp,
    created_at timestamp not null default now(),
    updated_at timestamp not null default now()
);

create table property.charges (
    id uuid primary key default gen_random_uuid(),
    tenant_user_id text not null,
    unit_id uuid not null references property.units (id),
    type text not null check (type in ('rent', 'late_fee', 'one_time', 'credit', 'adjustment')),
    description text not null,
    amount_cents integer not null,
    billing_period text,
    created_by text,
    created_at timestamp not null default now()
);

-- Flat 5 has no rent configured, flat 6 is let for nothing.
insert into property.units (id, rent_amount_cents) values
('00000000-0000-4000-8000-000000000001', 120000),
('00000000-0000-4000-8000-000000000002', 95000),
('00000000-0000-4000-8000-000000000003', 143550),
('00000000-0000-4000-8000-000000000004', 88000),
('00000000-0000-4000-8000-000000000005', null),
('00000000-0000-4000-8000-000000000006', 0);

insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period, paid_at)
select
    t.tenant,
    t.unit_id::uuid,
    t.amount_cents,
    'ach',
    'succeeded',
    to_char(m.month, 'YYYY-MM'),
    m.month + interval '2 days'
from (values
    ('ada', '00000000-0000-4000-8000-000000000001', 120000),
    ('bruno', '00000000-0000-4000-8000-000000000002', 95000),
    ('chiara', '00000000-0000-4000-8000-000000000003', 143550),
    ('dmitri', '00000000-0000-4000-8000-000000000004', 80000),
    ('ella', '00000000-0000-4000-8000-000000000005', 70000),
    ('farid', '00000000-0000-4000-8000-000000000006', 100)
) as t (tenant, unit_id, amount_cents)
cross join generate_series(timestamp '2023-01-01', timestamp '2024-12-01', interval '1 month') as m (month);

-- Two payments in one month, one still under way, one that failed.
insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period, paid_at)
values
('ella', '00000000-0000-4000-8000-000000000005', 71500, 'card', 'succeeded', '2024-03', '2024-03-28'),
('bruno', '00000000-0000-4000-8000-000000000002', 95000, 'ach', 'pending', '2025-01', null),
('ada', '00000000-0000-4000-8000-000000000001', 120000, 'card', 'failed', '2025-01', null);

-- The application has begun to charge by itself.
insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period, created_by)
values
('chiara', '00000000-0000-4000-8000-000000000003', 'rent', 'Rent for 2024-12', 143550, '2024-12', 'admin'),
('chiara', '00000000-0000-4000-8000-000000000003', 'late_fee', 'Late fee', 1500, '2024-12', 'admin');
