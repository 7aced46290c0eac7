-- What the rent application owns: tenants, rent_config, rent_ledger. Money is ore, currency SEK.
-- Safe: a table is created only where it is missing; one that exists is checked and, apart from the
-- capture triggers of backfill.track(), left as it is.
-- depends: 0027_backfill_owner

do $do$
begin
    if backfill.create_baseline_schema('rent') then
        comment on schema rent is 'Rent of a shared flat: who was billed what, and from which inputs. Money is ore (bigint), SEK.';
    end if;

    perform backfill.create_baseline(
        'rent.tenants',
        $$id uuid primary key default gen_random_uuid(),
        name text not null,
        start_date date,
        departure_date date,
        room_adjustment bigint,
        check (departure_date >= start_date)$$,
        '{"name": "text", "start_date": "date", "departure_date": "date", "room_adjustment": "integer|bigint"}'
    );

    perform backfill.create_baseline(
        'rent.rent_config',
        $$id uuid primary key default gen_random_uuid(),
        key text not null,
        period text not null check (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
        value bigint not null,
        unique (key, period)$$,
        '{"id": "uuid", "key": "text", "period": "text", "value": "integer|bigint"}',
        true
    );

    perform backfill.create_baseline(
        'rent.rent_ledger',
        $$id uuid primary key default gen_random_uuid(),
        tenant text not null,
        period text not null check (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
        amount_due bigint not null check (amount_due >= 0),
        amount_paid bigint,
        payment_date date$$,
        '{"id": "uuid", "tenant": "text", "period": "text", "amount_due": "integer|bigint", "amount_paid": "integer|bigint",
          "payment_date": "date"}'
    );
    -- What was paid is not known from a calculation: such a column must be allowed to stay empty.
    perform backfill.require_columns(
        'rent.rent_ledger',
        '{"id": "uuid", "tenant": "text", "period": "text", "amount_due": "integer|bigint"}', true
    );

    perform backfill.track('rent.tenants', '{name}', null);
    perform backfill.track('rent.rent_config', '{key,period}', 'value', 'SEK');
    perform backfill.track('rent.rent_ledger', '{tenant,period}', 'amount_due', 'SEK');
end;
$do$;

do $do$
begin
    -- A table that was there before keeps what its owner says of it.
    if exists (select from backfill.baseline where relation = 'rent.tenants') then
        comment on table rent.tenants is 'Who lives or lived there.';
        comment on column rent.tenants.name is 'As files and calculations name the person; unique.';
        comment on column rent.tenants.start_date is 'First day; null = since ever.';
        comment on column rent.tenants.departure_date is 'Last day; null = lives there.';
        comment on column rent.tenants.room_adjustment is 'Standing monthly adjustment in ore, negative for a smaller room; null = 0.';
    end if;
    if exists (select from backfill.baseline where relation = 'rent.rent_config') then
        comment on table rent.rent_config is 'Values that calculations are made from: kallhyra, el, bredband, vattenavgift, va, larm, ...';
        comment on column rent.rent_config.key is 'Which value.';
        comment on column rent.rent_config.period is 'YYYY-MM from which it is valid, until a later one.';
        comment on column rent.rent_config.value is 'Ore.';
    end if;
    if exists (select from backfill.baseline where relation = 'rent.rent_ledger') then
        comment on table rent.rent_ledger is 'What was billed to each tenant for each month. Immutable apart from the payment.';
        comment on column rent.rent_ledger.tenant is 'Name in rent.tenants.';
        comment on column rent.rent_ledger.period is 'YYYY-MM, the rent month.';
        comment on column rent.rent_ledger.amount_due is 'Billed, in ore.';
        comment on column rent.rent_ledger.amount_paid is 'Paid, in ore; null = nothing is known.';
        comment on column rent.rent_ledger.payment_date is 'When it was paid.';
    end if;
end;
$do$;
