select
    invoice_number,
    bucket,
    currency,
    cents
from {{ ref('catalogue_buckets') }}
where bucket in ('not written', 'unexpected')
order by invoice_number
