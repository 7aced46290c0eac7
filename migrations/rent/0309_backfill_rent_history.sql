-- Backfill "rent_history": the calculations of the files into rent.calculation, the ledger's audit fields, and the
-- ledger rows that are missing. What is billed already is never changed.
-- Safe: functions and views only.
-- depends: 0308_staging_rent

create view backfill.rent_history_files as
with judged as (
    select
        h.file_sha256,
        h.file_name,
        h.period,
        h.version,
        p.closed_at,
        (c.period is not null and c.file_sha256 = h.file_sha256) is true as is_kept,
        case
            when (c.period is not null and c.file_sha256 is distinct from h.file_sha256)
                then coalesce(c.file_name, 'rent.record_calculation')
        end as other_source,
        max(h.version) over (partition by h.period) as highest,
        (
            select max(x.version) from rent.calculation as x
            where x.period = h.period and x.file_name is null
        ) as computed_version,
        (
            select max(substring(r.source from '_v([0-9]{1,6})[.]json$')::integer)
            from backfill.reject as r
            inner join backfill.backfill_log as l on r.run_id = l.run_id
            where
                r.backfill = 'load rent-history' and l.status <> 'reversed'
                and starts_with(r.source, replace(h.period, '-', '_') || '_v')
        ) as rejected_version,
        (
            select min(s.tenant) from staging.rent_history_share as s
            inner join staging.rent_history as o on s.file_sha256 = o.file_sha256
            where
                o.period = h.period
                and not exists (
                    select from rent.tenants as t
                    where t.name = s.tenant
                )
        ) as unknown_tenant
    from staging.rent_history as h
    left join rent.closed_period as p on h.period = p.period
    left join rent.calculation as c on h.period = c.period and h.version = c.version
    where
        not exists (
            select from staging.file_in_flight as f
            where f.sha256 = h.file_sha256
        )
)

select
    file_sha256,
    file_name,
    period,
    version,
    is_kept,
    version = highest and version > coalesce(computed_version, 0) as counts,
    case
        when closed_at is not null then format('%s was closed on %s', period, to_char(closed_at, 'YYYY-MM-DD'))
        when other_source is not null
            then format('version %s of %s is already there from %s', version, period, other_source)
        when rejected_version > highest
            then format(
                    'version %s of %s was rejected when it was loaded, and a lower one must not count in its place',
                    rejected_version, period
                )
        when unknown_tenant is not null then format('there is no tenant %s any more', unknown_tenant)
    end as problem
from judged;

comment on view backfill.rent_history_files is
'Every staged calculation: does it count (the highest version of its month), and what keeps it from being taken.';

comment on column backfill.rent_history_files.file_sha256 is 'The staged file.';
comment on column backfill.rent_history_files.file_name is 'Its name.';
comment on column backfill.rent_history_files.period is 'YYYY-MM.';
comment on column backfill.rent_history_files.version is 'Of the file''s name.';
comment on column backfill.rent_history_files.is_kept is 'It is in rent.calculation.';
comment on column backfill.rent_history_files.counts is 'It is the highest version of its month, also compared with what was computed here.';
comment on column backfill.rent_history_files.problem is 'Why it cannot be taken; null where it can.';

create view backfill.rent_history_due as
select
    'rent.calculation'::text as table_name,
    null::text as tenant,
    f.period,
    f.version,
    'create'::text as what,
    f.file_sha256,
    0::bigint as cents,
    'SEK'::text as currency
from backfill.rent_history_files as f
where f.problem is null and not f.is_kept
union all
select
    'rent.rent_ledger' as table_name,
    s.tenant,
    f.period,
    f.version,
    case when l.tenant is null then 'create' else 'explain' end as what,
    f.file_sha256,
    case when l.tenant is null then s.amount else 0 end as cents,
    'SEK' as currency
from backfill.rent_history_files as f
inner join staging.rent_history_share as s on f.file_sha256 = s.file_sha256
left join rent.rent_ledger as l on s.tenant = l.tenant and f.period = l.period
where f.problem is null and f.counts and l.calculation_date is null;

comment on view backfill.rent_history_due is
'Rows still to write: calculations to keep, ledger rows to create, ledger rows whose audit fields are to be filled.';
comment on column backfill.rent_history_due.table_name is 'Where it will be written.';
comment on column backfill.rent_history_due.tenant is 'Whose ledger row; null for a calculation.';
comment on column backfill.rent_history_due.period is 'YYYY-MM.';
comment on column backfill.rent_history_due.version is 'Version of the calculation.';
comment on column backfill.rent_history_due.what is 'create, or explain: only the audit fields are filled.';
comment on column backfill.rent_history_due.file_sha256 is 'The file that it comes from.';
comment on column backfill.rent_history_due.cents is 'Ore that the ledger grows by.';
comment on column backfill.rent_history_due.currency is 'SEK.';

create view backfill.rent_history_rejects as
select
    'staging.rent_history'::text as source,
    f.file_name as source_key,
    null::bigint as line,
    f.problem as reason,
    case when f.counts then (
            select sum(s.amount)::bigint from staging.rent_history_share as s
            where s.file_sha256 = f.file_sha256
        ) else 0
    end as cents,
    jsonb_build_object('period', f.period, 'version', f.version) as payload,
    'SEK'::text as currency
from backfill.rent_history_files as f
where
    f.problem is not null
    and (
        not f.is_kept
        or (
            f.counts and exists (
                select from staging.rent_history_share as s
                left join rent.rent_ledger as l on s.tenant = l.tenant and l.period = f.period
                where s.file_sha256 = f.file_sha256 and l.calculation_date is null
            )
        )
    );

comment on view backfill.rent_history_rejects is
'Staged calculations from which something would be due and cannot be taken: a closed month, another calculation of the same
version, a higher version that was rejected when it was loaded, a tenant who is gone.';
comment on column backfill.rent_history_rejects.source is 'The file.';
comment on column backfill.rent_history_rejects.source_key is 'The row in that file.';
comment on column backfill.rent_history_rejects.line is 'Null: a calculation is one document.';
comment on column backfill.rent_history_rejects.reason is 'Why it cannot be taken, with the value.';
comment on column backfill.rent_history_rejects.currency is 'SEK.';
comment on column backfill.rent_history_rejects.cents is 'Its amount in ore, where it has one.';
comment on column backfill.rent_history_rejects.payload is 'What a person needs to find and mend it.';

create function backfill.rent_history(p_parameters jsonb default '{}') returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_calculations bigint;
    v_created bigint;
    v_explained bigint;
begin
    create temporary table rent_history_now on commit drop as select * from backfill.rent_history_due;

    insert into rent.calculation
        (period, version, calculation_month, title, calculated_at, inputs, roommates, results, file_name, file_sha256)
    select h.period, h.version, h.calculation_month, h.title, h.calculated_at, h.document -> 'constants',
        h.document -> 'roommates', h.document -> 'final_results', h.file_name, h.file_sha256
    from pg_temp.rent_history_now as d
    join staging.rent_history as h using (file_sha256)
    where d.table_name = 'rent.calculation';
    get diagnostics v_calculations = row_count;

    insert into rent.rent_ledger
        (id, tenant, period, amount_due, days_stayed, room_adjustment, base_monthly_rent, calculation_title,
        calculation_date, calculation_version)
    select backfill.business_id('rent_ledger', s.tenant, h.period), s.tenant, h.period, s.amount, s.days,
        s.room_adjustment, h.base_monthly_rent, h.title, h.calculated_at, h.version
    from pg_temp.rent_history_now as d
    join staging.rent_history as h using (file_sha256)
    join staging.rent_history_share as s using (file_sha256, tenant)
    where d.table_name = 'rent.rent_ledger' and d.what = 'create';
    get diagnostics v_created = row_count;

    update rent.rent_ledger as l
    set days_stayed = s.days, room_adjustment = s.room_adjustment, base_monthly_rent = h.base_monthly_rent,
        calculation_title = h.title, calculation_date = h.calculated_at, calculation_version = h.version
    from pg_temp.rent_history_now as d
    join staging.rent_history as h using (file_sha256)
    join staging.rent_history_share as s using (file_sha256, tenant)
    where d.table_name = 'rent.rent_ledger' and d.what = 'explain' and l.tenant = d.tenant and l.period = d.period;
    get diagnostics v_explained = row_count;

    drop table pg_temp.rent_history_now;
    return jsonb_build_object('calculations', v_calculations, 'ledger_rows_created', v_created, 'ledger_rows_explained', v_explained);
end;
$$;

comment on function backfill.rent_history(jsonb) is
'Writes what backfill.rent_history_due shows. Run it as a run: select * from backfill.run(''rent_history'');';

do $do$
begin
    perform backfill.register(
        'rent_history', 'rent', 'Rent calculations from files: kept, and the ledger explained and completed by them', 320,
        'backfill.rent_history_due', 'backfill.rent_history', '{rent.calculation,rent.rent_ledger}',
        'backfill.rent_history_rejects', p_settled => 'staging.file.loaded_at', p_dimensions => '{period}'
    );
end;
$do$;
