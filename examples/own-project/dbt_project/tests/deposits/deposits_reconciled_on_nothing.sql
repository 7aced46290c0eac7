-- Failing rows: runs that say they wrote deposits of which the gates see none. A gate never passes on nothing.
select r.run_id
from {{ ref('stg_backfill__runs') }} as r
where r.tables ? 'shop.deposits' and not exists (select 1 from shop.deposits)
