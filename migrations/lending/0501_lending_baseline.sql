-- What the lending application owns: borrowers, mortgages, and the payments collected for them.
-- Safe: a table is created only where it is missing; one that exists is checked and left as it is, but for the capture
-- triggers of backfill.track() and two unique indexes, which are refused, listing them, while there are duplicates.
-- depends: 0027_backfill_owner

do $do$
begin
    perform backfill.create_baseline_schema('lending');

    perform backfill.create_baseline(
        'lending.borrowers',
        $$id uuid primary key default gen_random_uuid(),
        name text not null,
        rotessa_customer_id bigint unique check (rotessa_customer_id > 0)$$,
        '{"id": "uuid", "name": "text", "rotessa_customer_id": "bigint"}'
    );

    perform backfill.create_baseline(
        'lending.mortgages',
        $$id uuid primary key default gen_random_uuid(),
        number text not null unique,
        borrower_id uuid not null references lending.borrowers (id),
        payment_cents bigint not null check (payment_cents > 0),
        frequency text,
        rotessa_schedule_id bigint,
        rotessa_schedule_status text check (rotessa_schedule_status in ('active', 'ended', 'missing')),
        rotessa_last_sync_at timestamptz$$,
        '{"id": "uuid", "number": "text", "borrower_id": "uuid", "payment_cents": "integer|bigint", "frequency": "text",
          "rotessa_schedule_id": "bigint", "rotessa_schedule_status": "text",
          "rotessa_last_sync_at": "timestamp with time zone"}'
    );

    perform backfill.create_baseline(
        'lending.payments',
        $$id uuid primary key default gen_random_uuid(),
        mortgage_id uuid not null references lending.mortgages (id),
        source_reference text not null collate "C",
        rotessa_customer_id bigint not null check (rotessa_customer_id > 0),
        amount_cents bigint not null check (amount_cents > 0),
        status text not null check (status in ('pending', 'approved', 'declined', 'chargeback')),
        process_date date,
        settlement_date date,
        origin text not null default 'live' check (origin in ('live', 'backfill')),
        ledger_transaction_id uuid,
        created_at timestamptz not null default now()$$,
        '{"id": "uuid", "mortgage_id": "uuid", "source_reference": "text", "rotessa_customer_id": "bigint",
          "amount_cents": "integer|bigint", "status": "text", "process_date": "date", "settlement_date": "date",
          "origin": "text", "ledger_transaction_id": "uuid", "created_at": "timestamp with time zone"}',
        true
    );
end;
$do$;

do $do$
begin
    perform backfill.create_unique_index(
        'mortgages_one_schedule', 'lending.mortgages', '{rotessa_schedule_id}',
        p_message => '%s schedules are linked to more than one mortgage',
        p_found => $$'mortgages ' || string_agg(number, ', ' order by number)$$,
        p_hint => 'Decide which link stands, empty the others, and apply again.'
    );
    perform backfill.create_unique_index(
        'payments_one_reference', 'lending.payments', '{source_reference}',
        p_message => '%s source references of lending.payments are there more than once',
        p_found => $$count(*) || ' payments'$$,
        p_hint => 'Decide which one stands, mend the others, and apply again.'
    );
end;
$do$;

comment on index lending.mortgages_one_schedule is 'One schedule, one mortgage: also against a concurrent link.';
comment on index lending.payments_one_reference is
'One payment for each reference, whoever wrote it: live sync and backfill cannot both create it.';

do $do$
begin
    perform backfill.track('lending.borrowers', '{name}', null);
    perform backfill.track('lending.mortgages', '{number}', null);
    perform backfill.track('lending.payments', '{source_reference}', 'amount_cents', 'CAD');
end;
$do$;
