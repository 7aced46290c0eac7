-- Foreign keys that the corrections make possible: added NOT VALID here, validated by a call of its own.
-- Safe: NOT VALID checks no row that is there, so the locks (SHARE ROW EXCLUSIVE) are brief; validating takes
-- SHARE UPDATE EXCLUSIVE, which lets readers and writers through. Rows in the way are listed before.
-- depends: 0410_billing_link_payment

do $do$
declare
    v_key record;
begin
    for v_key in
        select * from (values
            ('billing.invoices', 'customer_id', 'billing.customers', 'invoices_customer_fk'),
            ('billing.invoices', 'billing_profile_id', 'billing.billing_profiles', 'invoices_billing_profile_fk'),
            ('billing.payments', 'invoice_id', 'billing.invoices', 'payments_invoice_fk')
        ) as k (child, child_column, parent, name)
    loop
        -- An existing database may have the key under a name of its own.
        if not exists (
            select from pg_constraint as c
            join pg_attribute as a on a.attrelid = c.conrelid and c.conkey = array[a.attnum]
            where c.contype = 'f' and c.conrelid = v_key.child::regclass and c.confrelid = v_key.parent::regclass
                and a.attname = v_key.child_column
        ) then
            execute format('alter table %s add constraint %I foreign key (%I) references %s (id) not valid',
                v_key.child, v_key.name, v_key.child_column, v_key.parent);
        end if;
    end loop;
end;
$do$;

create view billing.constraint_offenders as
select
    'invoices_customer_fk' as constraint_name,
    'billing.invoices' as table_name,
    i.invoice_number as business_key,
    format('customer_id %s does not exist', i.customer_id) as offence
from billing.invoices as i
where
    i.customer_id is not null
    and not exists (
        select 1 from billing.customers as c
        where c.id = i.customer_id
    )
union all
select
    'invoices_billing_profile_fk' as constraint_name,
    'billing.invoices' as table_name,
    i.invoice_number as business_key,
    format('billing_profile_id %s does not exist', i.billing_profile_id) as offence
from billing.invoices as i
where
    i.billing_profile_id is not null
    and not exists (
        select 1 from billing.billing_profiles as p
        where p.id = i.billing_profile_id
    )
union all
select
    'payments_invoice_fk' as constraint_name,
    'billing.payments' as table_name,
    p.id::text as business_key,
    format('invoice_id %s does not exist', p.invoice_id) as offence
from billing.payments as p
where
    p.invoice_id is not null
    and not exists (
        select 1 from billing.invoices as i
        where i.id = p.invoice_id
    )
union all
select
    'invoices_profile_of_customer' as constraint_name,
    'billing.invoices' as table_name,
    i.invoice_number as business_key,
    'billing_profile_id is null' as offence
from billing.invoices as i
where i.customer_id is not null and i.billing_profile_id is null;

comment on view billing.constraint_offenders is
'Rows that break a constraint which is not validated yet, or not there yet (invoices_profile_of_customer).';
comment on column billing.constraint_offenders.constraint_name is 'The constraint.';
comment on column billing.constraint_offenders.table_name is 'Its table.';
comment on column billing.constraint_offenders.business_key is 'The row: invoice number, or id of the payment.';
comment on column billing.constraint_offenders.offence is 'What is wrong with it.';

create function billing.validate_constraints()
returns table (table_name text, constraint_name text, state text, offenders bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
    v_constraint record;
begin
    for v_constraint in
        select c.conrelid::regclass::text as child, c.conname::text as name, c.convalidated as done
        from pg_constraint as c
        where c.connamespace = 'billing'::regnamespace and c.contype in ('f', 'c')
        order by 1, 2
    loop
        table_name := v_constraint.child;
        constraint_name := v_constraint.name;
        offenders := 0;
        state := 'valid';
        if not v_constraint.done then
            select count(*) into offenders from billing.constraint_offenders as o where o.constraint_name = v_constraint.name;
            if offenders > 0 then
                state := 'not valid';
            else
                execute format('alter table %s validate constraint %I', v_constraint.child, v_constraint.name);
                state := 'validated';
            end if;
        end if;
        return next;
    end loop;
end;
$$;

comment on function billing.validate_constraints() is
'Validates what no row breaks any more: state validated (just now), valid (before), or not valid, with the number of rows in the
way; see billing.constraint_offenders. Writers go on meanwhile. Waits at most 5 s for a lock.';

create function billing.require_profiles() returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
    v_count bigint;
    v_listed text;
begin
    if exists (select from pg_constraint where conrelid = 'billing.invoices'::regclass and conname = 'invoices_profile_of_customer') then
        return;
    end if;
    select count(*), string_agg(o.business_key, ', ' order by o.business_key) filter (where o.place <= 10)
    into v_count, v_listed
    from (
        select business_key, row_number() over (order by business_key) as place
        from billing.constraint_offenders where constraint_name = 'invoices_profile_of_customer'
    ) as o;
    if v_count > 0 then
        raise exception '% invoices of a customer have no billing profile', v_count
            using errcode = 'BF034', detail = v_listed, hint = 'runner apply billing_profiles, and decide on its rejects.';
    end if;
    alter table billing.invoices add constraint invoices_profile_of_customer
        check (customer_id is null or billing_profile_id is not null) not valid;
end;
$$;

comment on function billing.require_profiles() is
'From here on an invoice of a customer must have its billing profile. Refuses (BF034), naming them, while invoices have none.
NOT VALID at first; billing.validate_constraints(), in a transaction of its own, makes it valid.';

create function billing.constraints_check() returns table (passed boolean, finding text, way_out text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select c.oid is null,
        case when c.oid is null then 'every foreign key and check of billing is validated'
            else format('%s of %s is not validated', c.conname, c.conrelid::regclass) end,
        case when c.oid is not null then 'select * from billing.validate_constraints();' end
    from (select 'billing'::regnamespace as of_schema) as b
    left join pg_constraint as c on c.connamespace = b.of_schema and not c.convalidated
    order by 1, 2;
$$;

comment on function billing.constraints_check() is 'Promotion check: no constraint of billing is left NOT VALID.';

do $do$
begin
    perform backfill.register_check('constraints', 'reconciliation', 410, 'billing.constraints_check');
end;
$do$;
