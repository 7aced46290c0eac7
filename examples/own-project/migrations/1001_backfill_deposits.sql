-- Deposits of orders that were paid before the shop kept any (backfill "deposits").
-- Safe: a view, a function and a row of the catalog; shop.deposits is watched from now on, and changed by a run only.
-- depends: 0023_backfill_grants

-- The rule: this SELECT decides which rows are written, and for how much.
create view backfill.deposits_due as
select
    o.order_no,
    o.paid_on,
    o.deposit_cents as cents,
    'USD'::text as currency
from shop.orders as o
where o.status = 'paid' and o.deposit_cents > 0 and not exists (select 1 from shop.deposits as d where d.order_no = o.order_no);

comment on view backfill.deposits_due is 'Deposits still to write: one row for each paid order that has none. Grain: the order.';
comment on column backfill.deposits_due.order_no is 'The order.';
comment on column backfill.deposits_due.paid_on is 'The day on which the deposit was taken.';
comment on column backfill.deposits_due.cents is 'Its amount in cents.';
comment on column backfill.deposits_due.currency is 'Its currency.';

create function backfill.deposits(p_parameters jsonb default '{}') returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into shop.deposits (order_no, amount_cents, taken_on)
    select d.order_no, d.cents, d.paid_on from backfill.deposits_due as d;
    return '{}';
end;
$$;

comment on function backfill.deposits(jsonb) is
'Writes what backfill.deposits_due shows. Run it as a run: select * from backfill.run(''deposits'');';

revoke execute on function backfill.deposits(jsonb) from public;

do $do$
begin
    perform backfill.track('shop.deposits', '{order_no}', 'amount_cents', 'USD');
    perform backfill.register(
        'deposits', 'shop', 'Deposits of orders that were paid before deposits were kept', 1010,
        'backfill.deposits_due', 'backfill.deposits', '{shop.deposits}'
    );
    perform backfill.grant_to('backfill_auditor', 'select on backfill.deposits_due');
    perform backfill.grant_to('backfill_auditor', 'usage on schema shop');
    perform backfill.grant_to('backfill_auditor', 'select on shop.orders, shop.deposits');
end;
$do$;
