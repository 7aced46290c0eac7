-- The balance that the charges make true: what each tenant was charged, paid, and owes.
-- Safe: a view only.
-- depends: 0102_backfill_charges

create view property.tenant_balance as
select
    tenant_user_id,
    coalesce(sum(charged_cents), 0)::bigint as charged_cents,
    coalesce(sum(paid_cents), 0)::bigint as paid_cents,
    coalesce(sum(pending_cents), 0)::bigint as pending_cents,
    (coalesce(sum(charged_cents), 0) - coalesce(sum(paid_cents), 0))::bigint as balance_cents
from (
    select
        tenant_user_id,
        case when type = 'credit' then -abs(amount_cents) else amount_cents end as charged_cents,
        null::bigint as paid_cents,
        null::bigint as pending_cents
    from property.charges
    union all
    select
        tenant_user_id,
        null as charged_cents,
        case when status = 'succeeded' then amount_cents end as paid_cents,
        case when status = 'pending' then amount_cents end as pending_cents
    from property.payments
    where status in ('succeeded', 'pending')
) as entries
group by tenant_user_id;

comment on view property.tenant_balance is 'What each tenant was charged, paid, and owes. A credit is a negative charge, whichever sign it was stored with.';
comment on column property.tenant_balance.tenant_user_id is 'The tenant.';
comment on column property.tenant_balance.charged_cents is 'Sum of all charges, credits subtracted.';
comment on column property.tenant_balance.paid_cents is 'Sum of the payments that succeeded.';
comment on column property.tenant_balance.pending_cents is 'Sum of the payments under way; not yet subtracted.';
comment on column property.tenant_balance.balance_cents is 'Charged minus paid: positive is owed.';
