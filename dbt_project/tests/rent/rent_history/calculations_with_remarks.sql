{{ config(severity='warn') }}

select
    file_name,
    array_to_string(remarks, '; ') as remarks
from {{ ref('stg_landed__calculations') }}
where cardinality(remarks) > 0
order by file_name
