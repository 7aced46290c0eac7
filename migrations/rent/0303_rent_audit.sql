-- Audit fields of the rent ledger, electricity bills, every calculation with its inputs, and findings
-- that a person has accepted.
-- Safe: columns are added without a rewrite (a constant default); the three unique indexes are refused, listing the
-- rows, while a tenant's name, a month of the ledger or a value of the configuration is there twice.
-- depends: 0302_rent_periods

do $do$
begin
    perform backfill.create_unique_index('tenants_one_name', 'rent.tenants', '{name}');
    perform backfill.create_unique_index('rent_config_one_value', 'rent.rent_config', '{key,period}');
    perform backfill.create_unique_index('rent_ledger_one_row', 'rent.rent_ledger', '{tenant,period}');
end;
$do$;

comment on index rent.tenants_one_name is 'Files know a tenant by the name alone.';
comment on index rent.rent_config_one_value is 'One value for a key and a period.';
comment on index rent.rent_ledger_one_row is 'A tenant is billed once for a period, also against a concurrent writer.';

create table rent.electricity_bills (
    id uuid primary key default gen_random_uuid(),
    provider text not null check (provider <> ''),
    bill_date date not null,
    amount bigint not null check (amount > 0),
    bill_period text not null,
    currency text not null default 'SEK' check (currency ~ '^[A-Z]{3}$'),
    -- The month is a rule, not an opinion.
    check (bill_period = rent.bill_period(bill_date)),
    -- No bill twice.
    unique (provider, bill_date)
);

comment on table rent.electricity_bills is 'Electricity bills, one row for each provider and due date.';
comment on column rent.electricity_bills.id is 'Computed from provider and date.';
comment on column rent.electricity_bills.provider is 'Vattenfall (network) or Fortum (consumption).';
comment on column rent.electricity_bills.bill_date is 'Day on which it is due.';
comment on column rent.electricity_bills.amount is 'Ore.';
comment on column rent.electricity_bills.bill_period is 'Month of consumption: rent.bill_period(bill_date).';
comment on column rent.electricity_bills.currency is 'Always SEK so far.';

create table rent.calculation (
    period text not null check (backfill.is_period(period)),
    version integer not null check (version > 0),
    calculation_month text not null check (backfill.is_period(calculation_month)),
    title text,
    calculated_at timestamptz not null,
    inputs jsonb not null check (jsonb_typeof(inputs) = 'object'),
    roommates jsonb not null check (jsonb_typeof(roommates) = 'object'),
    results jsonb not null check (jsonb_typeof(results) = 'object'),
    used jsonb check (jsonb_typeof(used) = 'object'),
    total bigint,
    currency text not null default 'SEK' check (currency ~ '^[A-Z]{3}$'),
    file_name text,
    file_sha256 text check (file_sha256 ~ '^[0-9a-f]{64}$'),
    primary key (period, version),
    -- It comes from a file, or was computed here and says what it used.
    check ((file_name is null) = (file_sha256 is null)),
    check ((file_name is null) = (used is not null and total is not null))
);

comment on table rent.calculation is 'Every calculation ever made, from files or here. The highest version of a month counts.';
comment on column rent.calculation.period is 'YYYY-MM, the rent month: that of the file''s name.';
comment on column rent.calculation.version is '1, 2, ...; a later calculation of the same month is a new version.';
comment on column rent.calculation.calculation_month is 'YYYY-MM that it was made for; the month lived in is the one after.';
comment on column rent.calculation.title is 'As the person who made it called it.';
comment on column rent.calculation.calculated_at is 'When it was made.';
comment on column rent.calculation.inputs is 'What was given, in kronor, under the names of rent_config.';
comment on column rent.calculation.roommates is 'Days and adjustments as given: {"name": {"days": 15.5, "room_adjustment": -1400}}, kronor.';
comment on column rent.calculation.results is 'What each has to pay, in kronor: {"name": 4526}.';
comment on column rent.calculation.used is 'Computed here: each value in ore and the period that it was taken from. Null for a file.';
comment on column rent.calculation.total is 'Computed here: cost of the month in ore. Null for a file.';
comment on column rent.calculation.currency is 'Always SEK so far.';
comment on column rent.calculation.file_name is 'File that it comes from; null = computed here.';
comment on column rent.calculation.file_sha256 is 'Of that file.';

create table rent.accepted_finding (
    tenant text not null,
    period text not null check (backfill.is_period(period)),
    -- Of this amount: when the row is billed anew with another, nobody has accepted that.
    amount_due bigint not null,
    reason text not null check (length(trim(reason)) > 0),
    accepted_by text not null default session_user,
    accepted_at timestamptz not null default now(),
    primary key (tenant, period)
);

comment on table rent.accepted_finding is 'Billed rows that differ from their calculation, or have none, and stay so. See rent.accept_finding().';
comment on column rent.accepted_finding.tenant is 'Whose.';
comment on column rent.accepted_finding.period is 'YYYY-MM.';
comment on column rent.accepted_finding.amount_due is 'What was billed then, in ore; of another amount nothing was accepted.';
comment on column rent.accepted_finding.reason is 'Why it may stay.';
comment on column rent.accepted_finding.accepted_by is 'Who said so.';
comment on column rent.accepted_finding.accepted_at is 'When.';

create function rent.accept_finding(p_tenant text, p_period text, p_reason text) returns rent.accepted_finding
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_opened boolean;
    v_amount bigint;
    v_row rent.accepted_finding;
begin
    select amount_due into v_amount from rent.rent_ledger where tenant = p_tenant and period = p_period;
    if not found then
        raise exception 'nothing was billed to % for %', p_tenant, p_period
            using errcode = 'BF022', hint = 'select tenant, period from rent.rent_ledger;';
    end if;
    v_opened := backfill.ensure_run(
        format('rent: finding accepted for %s, %s', p_tenant, p_period),
        jsonb_build_object('tenant', p_tenant, 'period', p_period));
    insert into rent.accepted_finding as f (tenant, period, amount_due, reason) values (p_tenant, p_period, v_amount, p_reason)
    on conflict (tenant, period) do update
    set amount_due = excluded.amount_due, reason = excluded.reason, accepted_by = session_user, accepted_at = now()
    where (f.amount_due, f.reason) is distinct from (excluded.amount_due, excluded.reason);
    if v_opened then
        perform backfill.finish_run();
    end if;
    select * into v_row from rent.accepted_finding where tenant = p_tenant and period = p_period;
    return v_row;
end;
$$;

comment on function rent.accept_finding(text, text, text) is
'A billed row that has no calculation, or differs from it, stays as it is, and the gates let it pass with this reason, as long
as its amount is that of now.
Example: select rent.accept_finding(''Adam'', ''2025-02'', ''rounded by agreement'');';

do $do$
begin
    perform backfill.track('rent.electricity_bills', '{provider,bill_date}', 'amount', 'currency');
    perform backfill.track('rent.calculation', '{period,version}', null);
    perform backfill.track('rent.accepted_finding', '{tenant,period}', 'amount_due', 'SEK');
end;
$do$;

-- Last: from here on whoever uses these two tables waits.
alter table rent.rent_ledger
add column currency text not null default 'SEK' check (currency ~ '^[A-Z]{3}$'),
add column days_stayed numeric check (days_stayed > 0 and days_stayed <= 31),
add column room_adjustment bigint,
add column base_monthly_rent bigint check (base_monthly_rent >= 0),
add column calculation_title text,
add column calculation_date timestamptz,
add column calculation_version integer;

comment on column rent.rent_ledger.currency is 'Of the amounts; always SEK so far.';
comment on column rent.rent_ledger.days_stayed is 'Days of the month lived in; null = the whole month.';
comment on column rent.rent_ledger.room_adjustment is 'Ore for a whole month.';
comment on column rent.rent_ledger.base_monthly_rent is 'Ore: kallhyra divided by the number of roommates, half an ore rounded up.';
comment on column rent.rent_ledger.calculation_title is 'Title of the calculation; null where it has none.';
comment on column rent.rent_ledger.calculation_date is 'When it was calculated. Null = the audit fields are not known yet; they are written once.';
comment on column rent.rent_ledger.calculation_version is 'Version of the calculation in rent.calculation.';

alter table rent.rent_config
add column currency text not null default 'SEK' check (currency ~ '^[A-Z]{3}$');

comment on column rent.rent_config.currency is 'Always SEK so far.';

do $do$
begin
    perform backfill.track('rent.rent_ledger', p_currency => 'currency');
    perform backfill.track('rent.rent_config', p_currency => 'currency');
end;
$do$;
