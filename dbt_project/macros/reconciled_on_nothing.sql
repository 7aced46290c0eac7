{#- A reconciliation never passes on nothing. `wanted` is SQL for how many rows there must be; `seen` maps the name of a
    source to SQL for how many the gates see of them, or to a relation of which it is enough that it holds any row: an
    application may take rows away. A source that shows fewer is a failing row. -#}
{% macro reconciled_on_nothing(wanted, seen) -%}
select
    judged.source,
    judged.wanted,
    judged.rows_seen
from (
    {%- for source, rows in seen.items() %}
    select
        '{{ source }}' as source,
        expected.wanted,
        {% if rows is string -%} ({{ rows }})
        {%- else -%} case when exists (select 1 from {{ rows }}) then expected.wanted else 0 end
        {%- endif %} as rows_seen
    from (select ({{ wanted }}) as wanted) as expected
    {% if not loop.last -%} union all {%- endif %}
    {%- endfor %}
) as judged
where judged.rows_seen < judged.wanted
{%- endmacro %}

{#- How many rows the last standing run of a backfill says that it inserted into a table. -#}
{% macro rows_inserted(backfill, table_name) -%}
select coalesce(sum(rows_inserted), 0)::bigint from {{ ref('last_runs') }}
where backfill = '{{ backfill }}' and table_name = '{{ table_name }}'
{%- endmacro %}

{#- How many inserted rows of that run the log holds. As a value, the run is looked up there; as a join, the whole log
    would be unpacked. -#}
{% macro rows_captured(backfill, table_name) -%}
select count(*) from {{ ref('stg_backfill__changes') }}
where
    table_name = '{{ table_name }}' and operation = 'INSERT'
    and run_id = any(array(
        select last_runs.run_id from {{ ref('last_runs') }} as last_runs
        where last_runs.backfill = '{{ backfill }}' and last_runs.table_name = '{{ table_name }}'
    ))
{%- endmacro %}
