{#- The connection says which database: without its name in the SQL, what was compiled for one
    database runs in another, inside a transaction that dbt knows nothing of. -#}
{% macro source(source_name, table_name) %}
    {%- do return(builtins.source(source_name, table_name).include(database=false)) -%}
{% endmacro %}

{% macro ref() %}
    {%- do return(builtins.ref(*varargs, **kwargs).include(database=false)) -%}
{% endmacro %}

{#- A model lands in exactly the schema it names, not in <target schema>_<schema>. -#}
{% macro generate_schema_name(custom_schema_name, node) %}
    {%- do return(custom_schema_name | trim if custom_schema_name else target.schema) -%}
{% endmacro %}
