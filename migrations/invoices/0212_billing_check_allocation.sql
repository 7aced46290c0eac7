-- Allocation of checks to the invoices of their facility, and its inverse.
-- Safe: functions and a view; amounts move only when a function is called.
-- depends: 0211_billing_check_references

create function billing.allocate_facility(p_company uuid, p_facility uuid, p_checks uuid[]) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_invoices uuid[];
    v_numbers text[];
    v_open bigint[];
    v_count integer;
    v_first integer := 1;
    v_check record;
    v_left bigint;
    v_at integer;
    v_amount bigint;
    -- What is to be written, element by element; all of it goes into the tables in three statements.
    v_to_check uuid[] := '{}';
    v_to_invoice uuid[] := '{}';
    v_to_amount bigint[] := '{}';
    v_spent_check uuid[] := '{}';
    v_spent_place bigint[] := '{}';
    v_spent_number text[] := '{}';
begin
    -- Allocations of one facility take turns; a row of another company's facility is never touched.
    perform from billing.facilities where id = p_facility for no key update;
    perform from billing.invoices as i
    where i.company_id = p_company and i.facility_id = p_facility and i.status in ('sent', 'partial')
    order by i.id
    for no key update;
    -- Oldest due date first, nulls last.
    select array_agg(o.id order by o.due_date nulls last, o.ordinal, o.id),
        array_agg(o.open_cents order by o.due_date nulls last, o.ordinal, o.id),
        array_agg(o.invoice_number order by o.due_date nulls last, o.ordinal, o.id), count(*)
    into v_invoices, v_open, v_numbers, v_count
    from (
        select i.id, i.due_date, i.invoice_number, billing.invoice_ordinal(i.invoice_number) as ordinal,
            i.total_cents - i.amount_paid_cents as open_cents
        from billing.invoices as i
        where i.company_id = p_company and i.facility_id = p_facility and i.status in ('sent', 'partial')
            and i.amount_paid_cents < i.total_cents
    ) as o;

    for v_check in
        with wanted as (
            select c.id, c.amount_cents, c.received_on, c.check_number
            from unnest(p_checks) as w (id)
            join billing.check_payments as c on c.id = w.id
            where c.company_id = p_company and c.facility_id = p_facility
                and not exists (select from billing.check_payment_applications as a where a.check_payment_id = c.id)
        ),
        named as (
            select m.check_payment_id, array_agg(p.at order by m.place) as at, array_agg(m.place order by m.place) as place
            from wanted as w
            join billing.check_reference_matches as m on m.check_payment_id = w.id
                and m.check_payment_id = any (p_checks)  -- only this reaches below the view's grouping
            join unnest(v_invoices) with ordinality as p (id, at) on p.id = m.invoice_id
            group by m.check_payment_id
        )
        select w.*, n.at, n.place
        from wanted as w
        left join named as n on n.check_payment_id = w.id
        order by w.received_on, w.check_number, w.id
    loop
        v_left := v_check.amount_cents;
        for v_named in 1..coalesce(cardinality(v_check.at), 0) loop
            v_at := v_check.at[v_named];
            exit when v_left = 0;
            if v_open[v_at] = 0 then
                -- Paid by a check before this one; by this one, if it was read twice, is nothing to look at.
                if v_to_check[cardinality(v_to_check)] is distinct from v_check.id
                    or not v_at = any (v_check.at[1:v_named - 1]) then
                    v_spent_check := array_append(v_spent_check, v_check.id);
                    v_spent_place := array_append(v_spent_place, v_check.place[v_named]);
                    v_spent_number := array_append(v_spent_number, v_numbers[v_at]);
                end if;
                continue;
            end if;
            v_amount := least(v_left, v_open[v_at]);
            v_open[v_at] := v_open[v_at] - v_amount;
            v_left := v_left - v_amount;
            v_to_check := array_append(v_to_check, v_check.id);
            v_to_invoice := array_append(v_to_invoice, v_invoices[v_at]);
            v_to_amount := array_append(v_to_amount, v_amount);
        end loop;
        while v_left > 0 and v_first <= v_count loop
            if v_open[v_first] = 0 then
                v_first := v_first + 1;
                continue;
            end if;
            v_amount := least(v_left, v_open[v_first]);
            v_open[v_first] := v_open[v_first] - v_amount;
            v_left := v_left - v_amount;
            v_to_check := array_append(v_to_check, v_check.id);
            v_to_invoice := array_append(v_to_invoice, v_invoices[v_first]);
            v_to_amount := array_append(v_to_amount, v_amount);
        end loop;
    end loop;

    -- A check that pays now may have named what was not there when it was seen first.
    delete from billing.check_reference_reviews as r where r.check_payment_id = any (v_to_check);
    -- Before the amounts move: the view tells what was outstanding when the checks came.
    insert into billing.check_reference_reviews (company_id, check_payment_id, reference, reason, candidates)
    select distinct on (m.check_payment_id, m.reference) p_company, m.check_payment_id, m.reference,
        case
            when btrim(m.reference) = '' then 'it is empty'
            when s.number is not null then format('%s was paid by a check before this one', s.number)
            when m.outstanding > 1 then format('it fits %s outstanding invoices: %s', m.outstanding, array_to_string(m.candidates, ', '))
            when m.fitting > 0 then format('nothing is outstanding under it: %s', m.settled)
            else 'no invoice of the facility has this number'
        end,
        m.candidates
    from billing.check_reference_matches as m
    left join unnest(v_spent_check, v_spent_place, v_spent_number) as s (check_payment_id, place, number)
        on s.check_payment_id = m.check_payment_id and s.place = m.place
    where m.check_payment_id = any (p_checks) and m.company_id = p_company and m.facility_id = p_facility
        and (m.invoice_id is null or s.number is not null)
        and not exists (select from billing.check_payment_applications as a where a.check_payment_id = m.check_payment_id)
    on conflict (check_payment_id, reference) do update
    set reason = excluded.reason, candidates = excluded.candidates, seen_at = excluded.seen_at
    where (check_reference_reviews.reason, check_reference_reviews.candidates) is distinct from (excluded.reason, excluded.candidates);

    insert into billing.check_payment_applications (id, company_id, check_payment_id, invoice_id, amount_cents)
    select backfill.business_id('application', t.check_payment_id::text, t.invoice_id::text), p_company, t.check_payment_id,
        t.invoice_id, t.amount_cents
    from unnest(v_to_check, v_to_invoice, v_to_amount) as t (check_payment_id, invoice_id, amount_cents);

    update billing.invoices as i
    set amount_paid_cents = i.amount_paid_cents + t.cents,
        status = case when i.amount_paid_cents + t.cents = i.total_cents then 'paid' else 'partial' end
    from (
        select u.invoice_id, sum(u.amount_cents)::bigint as cents
        from unnest(v_to_invoice, v_to_amount) as u (invoice_id, amount_cents)
        group by u.invoice_id
    ) as t
    where i.id = t.invoice_id and i.company_id = p_company;
end;
$$;

comment on function billing.allocate_facility(uuid, uuid, uuid[]) is
'Allocates the checks of one facility, in the order in which they were received: first to the invoices that they name, then to the
oldest due. Reads once, computes in memory, one step for each application, and writes in three statements.';

create function billing.allocate_checks(p_checks uuid[] default null)
returns table (check_payment_id uuid, invoice_number text, amount_cents bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_group record;
    v_checks uuid[];
begin
    -- A check that has paid anything is done; what is left of it stays unapplied until it is unapplied as a whole.
    select coalesce(array_agg(c.id), '{}') into v_checks
    from billing.check_payments as c
    where (p_checks is null or c.id = any (p_checks))
        and not exists (select from billing.check_payment_applications as a where a.check_payment_id = c.id);
    for v_group in
        select c.company_id, c.facility_id, array_agg(c.id) as checks
        from unnest(v_checks) as w (id)
        join billing.check_payments as c on c.id = w.id
        where c.facility_id is not null
        group by c.company_id, c.facility_id
        order by c.company_id, c.facility_id
    loop
        perform billing.allocate_facility(v_group.company_id, v_group.facility_id, v_group.checks);
    end loop;
    insert into billing.check_reference_reviews (company_id, check_payment_id, reference, reason, candidates)
    select distinct on (c.id, r.reference) c.company_id, c.id, r.reference, 'the check names no facility', '{}'
    from unnest(v_checks) as w (id)
    join billing.check_payments as c on c.id = w.id
    cross join lateral unnest(c.ocr_invoice_refs) as r (reference)
    where c.facility_id is null and r.reference is not null
    on conflict on constraint check_reference_reviews_pkey do nothing;
    return query
    select a.check_payment_id, i.invoice_number, a.amount_cents::bigint
    from unnest(v_checks) as w (id)
    join billing.check_payment_applications as a on a.check_payment_id = w.id
    join billing.invoices as i on i.id = a.invoice_id
    order by a.check_payment_id, i.due_date nulls last, i.invoice_number;
end;
$$;

comment on function billing.allocate_checks(uuid[]) is
'Allocates checks (default: all that have paid nothing yet) and returns the applications written. A check that has paid
anything is left alone. Numbers that fit nothing, or more than one invoice, go to billing.check_reference_reviews.';

create function billing.allocate_check(p_check uuid)
returns table (check_payment_id uuid, invoice_number text, amount_cents bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from billing.check_payments where id = p_check) then
        raise exception 'there is no check %', p_check using errcode = 'BF009';
    end if;
    return query select * from billing.allocate_checks(array[p_check]);
end;
$$;

comment on function billing.allocate_check(uuid) is
'Allocates one check: to the outstanding invoices of its facility that it names, then oldest due first, nulls last; what is
left over stays unapplied. Returns the applications written; the same check twice changes nothing.';

create function billing.unapply_check(p_check uuid)
returns table (invoice_number text, amount_cents bigint)
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
    end if;
    perform from billing.facilities where id = v_check.facility_id for no key update;
    perform from billing.invoices as i
    join billing.check_payment_applications as a on a.invoice_id = i.id
    where a.check_payment_id = p_check
    order by i.id
    for no key update of i;
    return query
    select i.invoice_number, a.amount_cents::bigint
    from billing.check_payment_applications as a
    join billing.invoices as i on i.id = a.invoice_id
    where a.check_payment_id = p_check
    order by i.due_date nulls last, i.invoice_number;
    update billing.invoices as i
    set amount_paid_cents = i.amount_paid_cents - a.amount_cents,
        status = case when i.amount_paid_cents = a.amount_cents then 'sent' else 'partial' end
    from billing.check_payment_applications as a
    where a.invoice_id = i.id and a.check_payment_id = p_check;
    delete from billing.check_payment_applications as a where a.check_payment_id = p_check;
    delete from billing.check_reference_reviews as r where r.check_payment_id = p_check;
end;
$$;

comment on function billing.unapply_check(uuid) is
'Takes back all that a check has paid, and returns it; the invoices are as they were before. Twice is harmless.';

create view billing.check_balances as
select
    c.company_id,
    c.id as check_payment_id,
    c.facility_id,
    c.check_number,
    c.amount_cents,
    coalesce(sum(a.amount_cents), 0)::bigint as applied_cents,
    (c.amount_cents - coalesce(sum(a.amount_cents), 0))::bigint as unapplied_cents
from billing.check_payments as c
left join billing.check_payment_applications as a on c.id = a.check_payment_id
group by c.company_id, c.id, c.facility_id, c.check_number, c.amount_cents;

comment on view billing.check_balances is 'Each check with what it paid and what is left of it: applied + unapplied = amount.';
comment on column billing.check_balances.amount_cents is 'Amount of the check.';
comment on column billing.check_balances.check_number is 'Number on the check.';
comment on column billing.check_balances.check_payment_id is 'The check.';
comment on column billing.check_balances.company_id is 'The company that received it.';
comment on column billing.check_balances.facility_id is 'The facility that paid with it.';
comment on column billing.check_balances.applied_cents is 'Sum of its applications.';
comment on column billing.check_balances.unapplied_cents is 'What is left: the client''s credit.';
