select
    rejects.source,
    rejects.source_key,
    rejects.reason
from {{ ref('stg_backfill__rejects') }} as rejects
where
    rejects.backfill = 'load finance_ledger'
    and rejects.run_id in (
        select files.run_id
        from {{ ref('stg_landed__finance_ledger_files') }} as files
        where files.file_sha256 in (
            select lines.file_sha256 from {{ ref('stg_landed__finance_ledger_lines') }} as lines
        )
    )
order by rejects.source, rejects.source_key
