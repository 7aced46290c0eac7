-- A shop as it is before anybody thinks of a backfill.
create schema shop;

create table shop.orders (
    order_no text primary key,
    customer text not null,
    status text not null check (status in ('open', 'paid', 'cancelled')),
    deposit_cents bigint not null check (deposit_cents >= 0),
    paid_on date
);

create table shop.deposits (
    order_no text primary key references shop.orders (order_no),
    amount_cents bigint not null check (amount_cents > 0),
    taken_on date not null
);

insert into shop.orders (order_no, customer, status, deposit_cents, paid_on)
select 'A-' || lpad(n::text, 4, '0'), 'customer ' || n % 7,
    case when n % 10 = 0 then 'cancelled' when n % 4 = 0 then 'open' else 'paid' end,
    case when n % 3 = 0 then 0 else 1000 + n end,
    case when n % 10 <> 0 and n % 4 <> 0 then date '2019-01-01' + n end
from generate_series(1, 100) as n;

insert into shop.deposits (order_no, amount_cents, taken_on) values ('A-0001', 1001, '2019-01-02');
