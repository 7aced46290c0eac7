-- A double-entry ledger: accounts, transactions, and their postings.
-- Safe: a schema where there is none of that name, new tables. On lending.payments it adds a foreign key where the baseline made the table.
-- depends: 0505_lending_schedules

do $do$
begin
    if backfill.create_baseline_schema('ledger') then
        comment on schema ledger is 'Double-entry ledger. Complete by itself; a Formance ledger, where one is used, is sent what is in here.';
    end if;
end;
$do$;

create table ledger.accounts (
    account text collate "C" primary key check (account ~ '^[a-zA-Z0-9_-]+(:[a-zA-Z0-9_-]+)*$'),
    may_be_negative boolean not null default false,
    created_at timestamptz not null default now()
);

-- Untracked: an account may be used by later runs, so that undoing the run that opened it must not close it.
comment on table ledger.accounts is 'Accounts, opened as they are needed. One that is no longer used is harmless.';
comment on column ledger.accounts.account is 'Segments joined by colons: world, borrower:<customer>:rotessa, mortgage:<id>:trust.';
comment on column ledger.accounts.may_be_negative is 'Whether the balance may fall below zero; only what stands for the outside world may.';
comment on column ledger.accounts.created_at is 'When it was opened.';

insert into ledger.accounts (account, may_be_negative) values ('world', true);

create table ledger.transactions (
    id uuid primary key,
    reference text collate "C" not null unique check (length(reference) > 0),
    effective_at timestamptz not null,
    recorded_at timestamptz not null default now(),
    reverses uuid unique references ledger.transactions (id),
    -- Nothing takes effect after it was recorded.
    check (effective_at <= recorded_at),
    check (reverses <> id)
);

comment on table ledger.transactions is 'Transactions of the ledger. Never updated; deleted only by reversing the run that wrote them, in an open month.';
comment on column ledger.transactions.id is 'Made from the reference, so that it is the same wherever and whenever it is written.';
comment on column ledger.transactions.reference is 'Source system and source id: rotessa:tx:1233; the reversal of a chargeback adds :chargeback.';
comment on column ledger.transactions.effective_at is 'When it counts: the settlement date at 00:00:00Z for a backfill.';
comment on column ledger.transactions.recorded_at is 'When it was written here.';
comment on column ledger.transactions.reverses is 'The transaction that this one takes back; at most one reversal for each.';

create index transactions_recorded on ledger.transactions (recorded_at, effective_at, reference);

create table ledger.postings (
    transaction_id uuid not null references ledger.transactions (id),
    line_no smallint not null check (line_no > 0),
    account text collate "C" not null references ledger.accounts (account),
    asset text collate "C" not null default 'CAD/2' check (asset ~ '^[A-Z][A-Z0-9]{0,16}(/[0-9]{1,2})?$'),
    amount bigint not null check (amount <> 0),
    primary key (transaction_id, line_no)
);

comment on table ledger.postings is
'Lines of transactions. Each movement is two lines that follow each other: an odd line takes from an account, the next gives.';
comment on column ledger.postings.transaction_id is 'The transaction.';
comment on column ledger.postings.line_no is 'Place in the transaction, from 1.';
comment on column ledger.postings.account is 'The account.';
comment on column ledger.postings.asset is 'What is counted and in which unit: CAD/2 is Canadian cents.';
comment on column ledger.postings.amount is 'In the asset''s smallest unit: negative is taken from the account, positive given to it.';

create index postings_account on ledger.postings (account, asset);

do $do$
begin
    perform backfill.track('ledger.transactions', '{reference}', null);
    perform backfill.track('ledger.postings', '{transaction_id,line_no}', 'amount', 'asset');
end;
$do$;

do $do$
begin
    -- Deferred, so that a payment and its transaction can be written in any order.
    if exists (select from backfill.baseline where relation = 'lending.payments') then
        alter table lending.payments add constraint payments_ledger_transaction foreign key (ledger_transaction_id)
        references ledger.transactions (id) deferrable initially deferred;
    end if;
end;
$do$;
