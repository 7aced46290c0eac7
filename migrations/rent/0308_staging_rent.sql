-- Staging of rent calculations and electricity bills.
-- Safe: new tables of the schema staging only.
-- depends: 0307_rent_explain

create table staging.rent_history (
    file_sha256 text primary key check (file_sha256 ~ '^[0-9a-f]{64}$'),
    file_name text not null,
    period text not null check (backfill.is_period(period)),
    version integer not null check (version > 0),
    calculation_month text not null check (backfill.is_period(calculation_month)),
    title text,
    calculated_at timestamptz not null,
    base_monthly_rent bigint not null,
    document jsonb not null,
    suspicions text[] not null default '{}',
    remarks text[] not null default '{}',
    unique (period, version)
);

comment on table staging.rent_history is 'One calculation a row, every version of every month, with its whole document.';
comment on column staging.rent_history.file_sha256 is 'Of the file; see staging.file.';
comment on column staging.rent_history.file_name is 'YYYY_MM_vN.json.';
comment on column staging.rent_history.period is 'Rent month: that of the file''s name.';
comment on column staging.rent_history.version is 'N of the file''s name.';
comment on column staging.rent_history.calculation_month is 'constants.year and month; that of the name where the file has none.';
comment on column staging.rent_history.title is 'metadata.title.';
comment on column staging.rent_history.calculated_at is 'metadata.calculation_date.';
comment on column staging.rent_history.base_monthly_rent is 'Ore: kallhyra divided by the number of roommates.';
comment on column staging.rent_history.document is 'The whole file.';
comment on column staging.rent_history.suspicions is 'Why it was suspect; it was accepted by name (--accept) if there are any.';
comment on column staging.rent_history.remarks is 'What was reported, e.g. a calculation of quite another month.';

create table staging.rent_history_share (
    file_sha256 text not null references staging.rent_history (file_sha256),
    tenant text not null,
    days numeric,
    room_adjustment bigint not null,
    amount bigint not null check (amount >= 0),
    primary key (file_sha256, tenant)
);

comment on table staging.rent_history_share is 'What a calculation says of each roommate. Money is ore.';
comment on column staging.rent_history_share.file_sha256 is 'The calculation''s file.';
comment on column staging.rent_history_share.tenant is 'Name, as in roommates and final_results.';
comment on column staging.rent_history_share.days is 'Null = the whole month.';
comment on column staging.rent_history_share.room_adjustment is 'Ore; null in the file is 0.';
comment on column staging.rent_history_share.amount is 'final_results in ore.';

create table staging.electricity_bill (
    file_sha256 text not null check (file_sha256 ~ '^[0-9a-f]{64}$'),
    line bigint not null check (line > 0),
    provider text not null,
    bill_date date not null,
    amount bigint not null check (amount > 0),
    primary key (file_sha256, line)
);

comment on table staging.electricity_bill is 'One line of a file of electricity bills a row.';
comment on column staging.electricity_bill.file_sha256 is 'Of the file; see staging.file.';
comment on column staging.electricity_bill.line is 'Line in that file.';
comment on column staging.electricity_bill.provider is 'From the section''s heading.';
comment on column staging.electricity_bill.bill_date is 'Due date.';
comment on column staging.electricity_bill.amount is 'Ore.';

do $do$
begin
    perform backfill.track('staging.rent_history', '{period,version}', null);
    perform backfill.track('staging.rent_history_share', '{tenant,file_sha256}', 'amount', 'SEK');
    perform backfill.track('staging.electricity_bill', '{provider,bill_date}', 'amount', 'SEK');
    perform backfill.seal_table('staging.rent_history', 'file_sha256', '{rent_history}');
    perform backfill.seal_table('staging.rent_history_share', 'file_sha256', '{rent_history}');
    perform backfill.seal_table('staging.electricity_bill', 'file_sha256', '{electricity_bills}');
end;
$do$;
