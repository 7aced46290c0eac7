{#- dbt keeps the failing rows of a test's last run only. After each run those that it stored are added to
    backfill.stored_failure, one row each, and a row with a null payload for a test that passed. -#}
{% macro keep_failures(results) %}
    {%- for result in results if execute and result.node.resource_type == 'test'
        and result.node.config.store_failures and result.status in ('pass', 'warn', 'fail') %}
        {%- set test %}'{{ invocation_id }}', '{{ result.node.name }}'{% endset %}
        insert into backfill.stored_failure (invocation_id, test, number, payload)
        {% if result.status == 'pass' -%}
            values ({{ test }}, 0, null);
        {%- else -%}
            select {{ test }}, row_number() over (), to_jsonb(failing)
            from {{ result.node.relation_name }} as failing;
        {%- endif %}
    {%- endfor %}
{% endmacro %}
