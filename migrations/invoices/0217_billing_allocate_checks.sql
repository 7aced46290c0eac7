-- Who asks for an allocation: the checks, and all money on account of a facility or customer; and checks that were entered twice.
-- Safe: views and functions; amounts move only when a function is called.
-- depends: 0216_billing_allocate_group

create view billing.checks_received_twice as
with paying as (
    select
        c.*,
        exists(
            select 1 from billing.check_payment_applications as a
            where a.check_payment_id = c.id
        ) as has_paid
    from billing.check_payments as c
    where c.returned_on is null
)

select
    c.company_id,
    c.id as check_payment_id,
    c.facility_id,
    c.check_number,
    c.received_on,
    coalesce(upper(btrim(c.currency)), billing.company_currency(c.company_id)) as currency,
    c.amount_cents::bigint as amount_cents,
    o.id as same_as,
    c.has_paid
from paying as c
inner join paying as o
    on
        c.company_id = o.company_id and c.check_number = o.check_number and c.received_on = o.received_on
        and c.amount_cents = o.amount_cents and c.id <> o.id
where
    c.facility_id is not distinct from o.facility_id
    -- The one that has paid was the first; of two that have not, and of two that have, that with the lower id.
    and case when c.has_paid = o.has_paid then c.id > o.id else o.has_paid end;

comment on view billing.checks_received_twice is
'Checks of the same facility, number, amount and day as another one: the second of each pair. billing.allocate_checks() leaves them alone.';
comment on column billing.checks_received_twice.company_id is 'Company of the check.';
comment on column billing.checks_received_twice.check_payment_id is 'The check that seems to be there twice.';
comment on column billing.checks_received_twice.facility_id is 'Its facility.';
comment on column billing.checks_received_twice.check_number is 'Its number.';
comment on column billing.checks_received_twice.received_on is 'When it was received.';
comment on column billing.checks_received_twice.amount_cents is 'Its amount, in minor units.';
comment on column billing.checks_received_twice.currency is 'Its currency, or its company''s.';
comment on column billing.checks_received_twice.same_as is 'The other one.';
comment on column billing.checks_received_twice.has_paid is 'Whether it has paid an invoice all the same.';

create function billing.allocate_checks(p_checks uuid[] default null, p_again boolean default false)
returns table (check_payment_id uuid, invoice_number text, amount_cents bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_group record;
    v_checks uuid[];
    v_twice uuid[] := '{}';
    v_before jsonb;
begin
    select coalesce(array_agg(b.source_id), '{}') into v_checks
    from billing.balances_of_sources(p_checks) as b
    where b.source = 'check' and b.unapplied_cents > 0;
    if not p_again then
        v_twice := array(select distinct t.check_payment_id from billing.checks_received_twice as t
            where t.check_payment_id = any (v_checks) and not t.has_paid);
    end if;
    select coalesce(jsonb_object_agg(a.id, a.amount_cents), '{}') into v_before
    from billing.check_payment_applications as a
    where a.check_payment_id = any (v_checks);
    for v_group in
        select c.company_id, c.facility_id, array_agg(c.id) as checks
        from unnest(v_checks) as w (id)
        join billing.check_payments as c on c.id = w.id
        where c.facility_id is not null and c.id <> all (v_twice) and (c.currency is null or billing.is_currency(upper(btrim(c.currency))))
        group by c.company_id, c.facility_id
        order by c.company_id, c.facility_id
    loop
        perform billing.allocate_group(v_group.company_id, v_group.facility_id, null, v_group.checks);
    end loop;
    insert into billing.check_reference_reviews (company_id, check_payment_id, reference, reason, candidates)
    select distinct on (d.id, d.reference) d.company_id, d.id, d.reference, d.reason, '{}'
    from (
        select c.company_id, c.id, coalesce(r.reference, '') as reference, case
            when c.facility_id is null then 'the check names no facility'
            when c.id = any (v_twice) then format('check %s of this facility, amount and day is here twice: if it is another one, '
                'billing.allocate_check(check, true)', c.check_number)
            when not billing.is_currency(upper(btrim(c.currency))) then format('%s is no currency', quote_literal(c.currency))
        end as reason
        from unnest(v_checks) as w (id)
        join billing.check_payments as c on c.id = w.id
        left join lateral unnest(c.ocr_invoice_refs) as r (reference) on c.facility_id is null
    ) as d
    where d.reason is not null
    on conflict on constraint check_reference_reviews_pkey do nothing;
    return query
    select a.check_payment_id, i.invoice_number, a.amount_cents::bigint - coalesce((v_before ->> a.id::text)::bigint, 0)
    from unnest(v_checks) as w (id)
    join billing.check_payment_applications as a on a.check_payment_id = w.id
    join billing.invoices as i on i.id = a.invoice_id
    where a.amount_cents > coalesce((v_before ->> a.id::text)::bigint, 0)
    order by a.check_payment_id, i.due_date nulls last, i.invoice_number;
end;
$$;

comment on function billing.allocate_checks(uuid[], boolean) is
'Allocates what is not applied of checks (default: of all) and returns the applications written. Numbers that fit nothing, or more than one invoice, go to
billing.check_reference_reviews; so do checks that seem to be here twice, unless again is true, and those in what is no currency.';

create function billing.allocate_check(p_check uuid, p_again boolean default false)
returns table (check_payment_id uuid, invoice_number text, amount_cents bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_check billing.check_payments;
begin
    select * into v_check from billing.check_payments where id = p_check;
    if not found then
        raise exception 'there is no check %', p_check using errcode = 'BF009';
    elsif not billing.is_currency(upper(btrim(v_check.currency))) then
        raise exception 'check % is in %, which is no currency', v_check.check_number, quote_literal(v_check.currency)
            using errcode = 'BF033', hint = 'Set billing.check_payments.currency to a code of ISO 4217, or to null: its company''s.';
    elsif v_check.returned_on is not null then
        raise exception 'check % was returned on %: it pays nothing', v_check.check_number, v_check.returned_on using errcode = 'BF033';
    end if;
    return query select * from billing.allocate_checks(array[p_check], p_again);
end;
$$;

comment on function billing.allocate_check(uuid, boolean) is
'Allocates what is not applied of one check: to the outstanding invoices of its facility that it names, then oldest due first, nulls last; the rest stays
unapplied, and pays later invoices when this is called again. Returns the applications written. Refuses (BF033) a check that was returned or is
in no known currency. Again: true where it seems to be here twice and is another one.';

create function billing.allocate_on_account(p_facility uuid default null, p_customer uuid default null)
returns table (source text, label text, invoice_number text, amount_cents bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_company uuid;
    v_sources uuid[];
    v_before jsonb;
    v_opened boolean;
begin
    select f.company_id into v_company from billing.facilities as f where f.id = p_facility and p_customer is null;
    if not found then
        select c.company_id into v_company from billing.customers as c where c.id = p_customer and p_facility is null;
    end if;
    if v_company is null then
        raise exception 'there is no facility % and no customer %', p_facility, p_customer using errcode = 'BF009',
            hint = 'select * from billing.allocate_on_account(p_facility => ...), or p_customer => ..., one of the two.';
    end if;
    perform backfill.take_lock();
    v_sources := array(
        select b.source_id
        from billing.source_balances as b
        where b.company_id = v_company and b.unapplied_cents > 0 and (b.facility_id = p_facility or b.customer_id = p_customer)
            and not exists (select from billing.checks_received_twice as t where t.check_payment_id = b.source_id and not t.has_paid)
    );
    select coalesce(jsonb_object_agg(r.id, r.amount_cents), '{}') into v_before
    from billing.application_rows as r
    where r.source_id = any (v_sources) and r.effective_until is null;
    v_opened := backfill.ensure_run('money on account allocated', jsonb_build_object('facility', p_facility, 'customer', p_customer));
    perform billing.allocate_group(v_company, p_facility, p_customer, v_sources);
    if v_opened then
        perform backfill.finish_run();
    end if;
    return query
    select r.source, m.label, i.invoice_number, r.amount_cents - coalesce((v_before ->> r.id::text)::bigint, 0)
    from billing.application_rows as r
    join billing.money_sources as m on m.source_id = r.source_id
    join billing.invoices as i on i.id = r.invoice_id
    where r.source_id = any (v_sources) and r.effective_until is null
        and r.amount_cents > coalesce((v_before ->> r.id::text)::bigint, 0)
    order by r.source, m.label, i.due_date nulls last, i.invoice_number;
end;
$$;

comment on function billing.allocate_on_account(uuid, uuid) is
'Allocates all that a facility or a customer has on account, checks, payments and credits, to its open invoices: named first, then oldest due. An audited
run. Returns the applications written.';
