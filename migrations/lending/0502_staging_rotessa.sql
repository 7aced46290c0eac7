-- Rotessa in staging: customers, schedules and transactions as the processor shows them, and how far each fetch has come.
-- A row that changed moves its old content to staging.rotessa_version, so that nothing seen is lost.
-- Safe: new tables in staging.
-- depends: 0501_lending_baseline

create table staging.rotessa_fetch (
    fetch_id uuid primary key references backfill.backfill_log (run_id),
    date_from date not null,
    date_to date check (date_to >= date_from),
    look_back_days integer not null check (look_back_days >= 0),
    scan_from date not null,
    next_page integer not null default 1,
    customers_done bigint[] not null default '{}'
);

comment on table staging.rotessa_fetch is 'Fetches from Rotessa and how far each has come. Whether it is over says its row of the log.';
comment on column staging.rotessa_fetch.fetch_id is 'The fetch: its run in backfill.backfill_log.';
comment on column staging.rotessa_fetch.date_from is 'First process date that was asked for.';
comment on column staging.rotessa_fetch.date_to is 'Last process date; null = open.';
comment on column staging.rotessa_fetch.look_back_days is 'How many days before date_from are read again: an Approved payment can become a Chargeback.';
comment on column staging.rotessa_fetch.scan_from is 'date_from less the look-back: what is asked of the processor.';
comment on column staging.rotessa_fetch.next_page is 'First page of the transaction report that has not been taken.';
comment on column staging.rotessa_fetch.customers_done is 'Customers whose schedules have been taken.';

create table staging.rotessa_customer (
    id bigint primary key,
    name text not null,
    custom_identifier text,
    customer_type text,
    active boolean,
    version integer not null default 1,
    fetch_id uuid not null,
    changed_at timestamptz not null default now()
);

comment on table staging.rotessa_customer is 'Customers at Rotessa. Never holds account, transit, institution or routing numbers.';
comment on column staging.rotessa_customer.id is 'Rotessa''s id; borrowers carry it as rotessa_customer_id.';
comment on column staging.rotessa_customer.name is 'Name.';
comment on column staging.rotessa_customer.custom_identifier is 'The identifier that we gave.';
comment on column staging.rotessa_customer.customer_type is 'Personal or Business.';
comment on column staging.rotessa_customer.active is 'Whether Rotessa holds the customer active.';
comment on column staging.rotessa_customer.version is '1, and one more with each change that was seen.';
comment on column staging.rotessa_customer.fetch_id is 'The fetch that saw this content first.';
comment on column staging.rotessa_customer.changed_at is 'When.';

create table staging.rotessa_schedule (
    id bigint primary key,
    customer_id bigint not null,
    amount_cents bigint not null check (amount_cents > 0),
    frequency text not null,
    installments integer,
    process_date date,
    next_process_date date,
    gone boolean not null default false,
    version integer not null default 1,
    fetch_id uuid not null,
    changed_at timestamptz not null default now()
);

comment on table staging.rotessa_schedule is 'Payment schedules at Rotessa.';
comment on column staging.rotessa_schedule.id is 'Rotessa''s id; a linked mortgage carries it as rotessa_schedule_id.';
comment on column staging.rotessa_schedule.customer_id is 'Whose schedule: the API tells it only by the customer that lists it.';
comment on column staging.rotessa_schedule.amount_cents is 'Amount of one payment in cents.';
comment on column staging.rotessa_schedule.frequency is 'Once, Weekly, Every Other Week, Monthly, ...';
comment on column staging.rotessa_schedule.installments is 'How many payments; null = indefinitely.';
comment on column staging.rotessa_schedule.process_date is 'First payment.';
comment on column staging.rotessa_schedule.next_process_date is 'Next payment; null = none any more.';
comment on column staging.rotessa_schedule.gone is 'The customer no longer lists it.';
comment on column staging.rotessa_schedule.version is '1, and one more with each change that was seen.';
comment on column staging.rotessa_schedule.fetch_id is 'The fetch that saw this content first.';
comment on column staging.rotessa_schedule.changed_at is 'When.';

create index rotessa_schedule_customer on staging.rotessa_schedule (customer_id, amount_cents);

create table staging.rotessa_transaction (
    id bigint primary key,
    customer_id bigint not null,
    schedule_id bigint,
    amount_cents bigint not null check (amount_cents > 0),
    status text not null check (status in ('Future', 'Pending', 'Approved', 'Declined', 'Chargeback')),
    status_reason text,
    process_date date not null,
    settlement_date date,
    version integer not null default 1,
    fetch_id uuid not null,
    changed_at timestamptz not null default now()
);

comment on table staging.rotessa_transaction is
'Transactions at Rotessa, each as it was seen last. Posted is what is Approved and has a settlement date that has come: Future and
Pending rows can carry one too.';
comment on column staging.rotessa_transaction.id is 'Rotessa''s id; payments carry it as source reference rotessa:tx:<id>.';
comment on column staging.rotessa_transaction.customer_id is 'Who paid.';
comment on column staging.rotessa_transaction.schedule_id is 'The schedule that it belongs to; null = none.';
comment on column staging.rotessa_transaction.amount_cents is 'Amount in cents.';
comment on column staging.rotessa_transaction.status is 'Future, Pending, Approved, Declined, Chargeback.';
comment on column staging.rotessa_transaction.status_reason is 'NSF, Account Closed, ...';
comment on column staging.rotessa_transaction.process_date is 'Day on which it is processed.';
comment on column staging.rotessa_transaction.settlement_date is 'Day on which the money settles: the effective date of its posting.';
comment on column staging.rotessa_transaction.version is '1, and one more with each change that was seen.';
comment on column staging.rotessa_transaction.fetch_id is 'The fetch that saw this content first.';
comment on column staging.rotessa_transaction.changed_at is 'When.';

create index rotessa_transaction_schedule on staging.rotessa_transaction (schedule_id);

create table staging.rotessa_version (
    kind text not null check (kind in ('customer', 'schedule', 'transaction')),
    id bigint not null,
    version integer not null,
    content jsonb not null,
    replaced_by uuid not null references staging.rotessa_fetch (fetch_id),
    replaced_at timestamptz not null default now(),
    primary key (kind, id, version)
);

comment on table staging.rotessa_version is 'What rows from Rotessa were before they changed. Append-only.';
comment on column staging.rotessa_version.kind is 'customer, schedule, transaction.';
comment on column staging.rotessa_version.id is 'Rotessa''s id.';
comment on column staging.rotessa_version.version is 'Which version of the row it was.';
comment on column staging.rotessa_version.content is 'The whole row as it was.';
comment on column staging.rotessa_version.replaced_by is 'The fetch that saw it changed.';
comment on column staging.rotessa_version.replaced_at is 'When.';

do $do$
begin
    perform backfill.append_only('staging.rotessa_version');
    perform backfill.seal_table('staging.rotessa_customer', 'fetch_id', '{lending_payments}');
    perform backfill.seal_table('staging.rotessa_schedule', 'fetch_id', '{lending_payments}');
    perform backfill.seal_table('staging.rotessa_transaction', 'fetch_id', '{lending_payments}');
end;
$do$;
