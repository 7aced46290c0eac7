with lines as (
    select * from {{ ref('stg_landed__finance_ledger_lines') }}
),

invoices as (
    select * from {{ ref('stg_billing__finance_invoices') }}
),

-- By id: the first line of an invoice has it, the others are surplus.
by_id as (
    select
        lines.line,
        lines.invoice_id,
        row_number() over (partition by lines.invoice_id order by lines.line) as nth
    from lines
    inner join invoices on lines.invoice_id = invoices.invoice_id
),

-- Numbers are unique within a company only: one that two invoices bear says of neither which is meant.
numbers as (
    select
        invoices.invoice_number,
        count(*) as invoices,
        min(invoices.invoice_id::text)::uuid as invoice_id,
        bool_or(by_id.line is not null) as taken
    from invoices
    left join by_id on invoices.invoice_id = by_id.invoice_id and by_id.nth = 1
    group by invoices.invoice_number
),

-- By number: lines without an id come before lines with an id that no invoice has.
by_number as (
    select
        lines.line,
        lines.invoice_id as unknown_id,
        lines.invoice_number,
        numbers.invoice_id,
        numbers.invoices,
        numbers.taken,
        row_number() over (
            partition by lines.invoice_number order by lines.invoice_id is not null, lines.line
        ) as nth
    from lines
    left join numbers on lines.invoice_number = numbers.invoice_number
    where lines.line not in (select by_id.line from by_id)
),

judged as (
    select
        *,
        case
            when invoices = 1 and not taken and nth = 1 then 'number'
            when invoices > 1 then 'unclear'
            when invoices = 1 then 'duplicate'
            when invoice_number is not null and nth > 1 then 'duplicate'
            else 'unknown'
        end as result
    from by_number
)

select
    line,
    case when nth = 1 then invoice_id end as invoice_id,
    case when nth = 1 then 'id' else 'duplicate' end as result
from by_id
union all
select
    line,
    case when result = 'number' then invoice_id end as invoice_id,
    case
        when
            result = 'unknown' and unknown_id is not null
            and row_number() over (partition by result, unknown_id order by line) > 1 then 'duplicate'
        else result
    end as result
from judged
