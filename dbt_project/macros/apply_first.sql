{#- Gates on a database that holds none of what they judge would fail by the hundred, each with words of its own. -#}
{% macro apply_first() %}
    {%- if execute and flags.WHICH in ('build', 'run', 'test', 'retry') %} {#- compiling needs no database -#}
        {%- do require_engine() %}
        {%- set chosen = graph.nodes.values() | selectattr('package_name', 'equalto', 'reconciliation')
            | map(attribute='fqn') | map(attribute=1) | unique | list %}
        {%- set systems = var('systems', []) %}
        {%- if systems is string or systems is not sequence %}
            {%- do exceptions.raise_compiler_error("systems is a list: --vars '{systems: [charges]}'") %}
        {%- endif %}
        {%- for name in systems if name not in chosen %}
            {%- do exceptions.raise_compiler_error('there is no system ' ~ name ~ ' in this project') %}
        {%- endfor %}
        {%- set wanted = [] %}
        {%- for id in selected_resources if id in graph.nodes
            and graph.nodes[id].package_name == 'reconciliation' and graph.nodes[id].fqn[1] != 'engine' %}
            {%- do wanted.append(graph.nodes[id].fqn[1]) %}
        {%- endfor %}
        {%- set installed = run_query('select distinct system from backfill.catalog').columns[0].values() %}
        {%- set missing = wanted | unique | reject('in', installed) | sort %}
        {%- if missing %}
            {%- do exceptions.raise_compiler_error(
                missing | join(', ') ~ ': not installed in database ' ~ target.dbname ~ '. Apply first (runner apply), or leave it out: '
                ~ "--vars '{systems: [" ~ chosen | select('in', installed) | sort | join(', ') ~ "]}'"
            ) %}
        {%- endif %}
    {%- endif %}
{% endmacro %}

{% macro require_engine() %}
    {%- if run_query("select to_regclass('backfill.version') is null").columns[0].values()[0] %}
        {%- do exceptions.raise_compiler_error(
            'there is nothing to judge in database ' ~ target.dbname ~ ': apply first (runner apply)'
        ) %}
    {%- endif %}
{% endmacro %}

{#- dbt makes its schema before it runs the first hook; a database that is not ours gets none. -#}
{% macro create_schema(relation) %}
    {%- do require_engine() %}
    {{- dbt.create_schema(relation) }}
{% endmacro %}
