-- What the lending application owns: borrowers, mortgages, and the payments collected for them.
-- Safe: a table is created only where it is missing; one that exists is checked and left as it is, but for the capture
-- triggers of backfill.track() and two unique indexes, which are refused, listing them, while there are duplicates.
-- depends: 0008_staging_file

do $do$
begin
    if to_regnamespace('lending') is null then
        create schema lending;
    end if;

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

do $$
declare
    v_count bigint;
    v_listed text;
begin
    select count(*), string_agg(d.named, e'\n' order by d.named) filter (where d.place <= 10)
    into v_count, v_listed
    from (
        select x.named, row_number() over (order by x.named) as place
        from (
            select format('schedule %s: mortgages %s', rotessa_schedule_id, string_agg(number, ', ' order by number)) as named
            from lending.mortgages where rotessa_schedule_id is not null
            group by rotessa_schedule_id having count(*) > 1
            union all
            select format('%s: %s payments', source_reference, count(*)) from lending.payments
            group by source_reference having count(*) > 1
        ) as x
    ) as d;
    if v_count > 0 then
        raise exception '% schedules or source references of lending are there more than once', v_count
            using errcode = 'BF007', detail = v_listed, hint = 'Decide which one stands, mend the others, and apply again.';
    end if;
end;
$$;

create unique index mortgages_one_schedule on lending.mortgages (rotessa_schedule_id);
comment on index lending.mortgages_one_schedule is 'One schedule, one mortgage: also against a concurrent link.';

create unique index payments_one_reference on lending.payments (source_reference);
comment on index lending.payments_one_reference is
'One payment for each reference, whoever wrote it: live sync and backfill cannot both create it.';

do $do$
begin
    perform backfill.track('lending.borrowers', '{name}', null);
    perform backfill.track('lending.mortgages', '{number}', null);
    perform backfill.track('lending.payments', '{source_reference}', 'amount_cents');
    perform backfill.grant_to('backfill_auditor', 'usage on schema lending');
    perform backfill.grant_to('backfill_auditor', 'select on lending.borrowers, lending.mortgages, lending.payments');
end;
$do$;
