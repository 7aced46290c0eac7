with ledger as (
    select min(lines.file_sha256) as file_sha256
    from {{ ref('stg_landed__finance_ledger_lines') }} as lines
)

select
    rejects.source,
    rejects.source_key,
    rejects.reason
from ledger
inner join {{ ref('stg_landed__finance_ledger_files') }} as files on ledger.file_sha256 = files.file_sha256
inner join {{ ref('stg_backfill__rejects') }} as rejects on files.run_id = rejects.run_id
where rejects.backfill = 'load finance_ledger'
order by rejects.source, rejects.source_key
