-- Failing rows: paid orders whose deposit is missing or another amount.
select
    o.order_no,
    o.deposit_cents,
    d.amount_cents
from shop.orders as o
left join shop.deposits as d on o.order_no = d.order_no
where o.status = 'paid' and o.deposit_cents > 0 and d.amount_cents is distinct from o.deposit_cents
