-- What a scraper reads: runs, rows, rejects and the chain, as numbers with labels.
-- Safe: a view that only reads the log; it counts nothing of the application's tables.
-- depends: 0040_backfill_dimensions

create view backfill.metrics as
with named as (
    -- The titles of what is done by hand are without end.
    select
        l.*,
        case when c.backfill is null then l.mode else l.backfill end as what
    from backfill.backfill_log as l
    left join backfill.catalog as c on l.backfill = c.backfill
)

select
    'backfill_runs_total' as metric,
    jsonb_build_object('backfill', n.what, 'mode', n.mode, 'status', n.status) as labels,
    count(*)::numeric as value
from named as n
group by n.what, n.mode, n.status
union all
select
    'backfill_rows_total' as metric,
    jsonb_build_object('backfill', n.what, 'mode', n.mode, 'table', t.key) as labels,
    sum(
        (t.value ->> 'inserted')::numeric + (t.value ->> 'updated')::numeric + (t.value ->> 'deleted')::numeric
    ) as value
from named as n
cross join lateral jsonb_each(coalesce(n.metrics -> 'tables', '{}')) as t (key, value)
group by n.what, n.mode, t.key
union all
select
    'backfill_last_completed_timestamp_seconds' as metric,
    jsonb_build_object('backfill', n.what, 'mode', n.mode) as labels,
    max(extract(epoch from n.completed_at)) as value
from named as n
where n.completed_at is not null
group by n.what, n.mode
union all
select
    'backfill_last_duration_seconds' as metric,
    jsonb_build_object('backfill', d.what, 'mode', d.mode) as labels,
    extract(epoch from d.completed_at - d.started_at) as value
from (
    select distinct on (n.what, n.mode)
        n.what,
        n.mode,
        n.started_at,
        n.completed_at
    from named as n
    where n.completed_at is not null
    order by n.what asc, n.mode asc, n.completed_at desc
) as d
union all
select
    'backfill_running' as metric,
    '{}'::jsonb as labels,
    count(*)::numeric as value
from named as n
where n.status = 'running'
union all
select
    'backfill_rejects_total' as metric,
    jsonb_build_object('backfill', r.backfill) as labels,
    count(*)::numeric as value
from backfill.reject as r
group by r.backfill
union all
select
    'backfill_chain_links' as metric,
    '{}'::jsonb as labels,
    coalesce(max(c.link), 0)::numeric as value
from backfill.chain as c;

comment on view backfill.metrics is
'For a scraper: a metric a row, with its labels and its value. Totals only grow; a reversed run is counted under its status now.';
comment on column backfill.metrics.metric is 'Name, as Prometheus has them: _total counts, _seconds are seconds (timestamps since 1970).';
comment on column backfill.metrics.labels is 'Which backfill (by hand: its mode), mode, status or table.';
comment on column backfill.metrics.value is 'The number.';

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on backfill.metrics');
    perform backfill.hand_over(true);
end;
$do$;
