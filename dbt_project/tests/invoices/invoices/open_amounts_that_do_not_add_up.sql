with judged as (
    select
        *,
        concat_ws(
            ', ',
            case when amount_paid_cents < rows_cents - linked_cents then 'paid is less than what is applied' end,
            case when amount_paid_cents > total_cents and total_cents >= 0 then 'open is negative' end,
            case
                when status in ('draft', 'sent', 'void') and amount_paid_cents <> 0 then 'paid, and ' || status
                when status = 'partial' and total_cents >= 0 and amount_paid_cents in (0, total_cents)
                    then 'partial, and all or none paid'
                when status = 'paid' and amount_paid_cents <> greatest(total_cents, 0) then 'paid, and not wholly'
                when total_cents < 0 and status = 'paid' and given_cents <> -total_cents then 'used up, and not wholly'
            end
        ) as finding
    from {{ ref('invoice_balances') }}
)

select
    invoice_number,
    status,
    currency,
    total_cents as cents,
    amount_paid_cents,
    rows_cents as applied_cents,
    finding
from judged
where finding <> ''
order by invoice_number
