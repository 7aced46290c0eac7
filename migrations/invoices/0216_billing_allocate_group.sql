-- Allocation: money that is not applied yet pays the invoices that it names, then the oldest due. Checks, payments and credits alike.
-- Safe: functions only; amounts move only when one is called.
-- depends: 0215_billing_record_applications

create function billing.write_off_room(
    p_company uuid, p_currency text, p_facility uuid, p_year integer, p_rest bigint
) returns bigint
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select case
        when p_rest > t.tolerance_cents then -1
        when t.limit_cents is null then p_rest
        else t.limit_cents - coalesce((
            select sum(e.amount_cents)
            from billing.application_entries as e
            join billing.invoices as i on i.id = e.invoice_id
            where e.source = 'write-off' and e.reason_code = 'short-pay' and e.effective_until is null and e.company_id = p_company
                and e.currency = p_currency and i.facility_id is not distinct from p_facility
                and e.effective_from >= make_date(p_year, 1, 1) and e.effective_from < make_date(p_year + 1, 1, 1)
        ), 0)
    end::bigint
    from billing.write_off_tolerances as t
    where t.company_id = p_company and t.currency = p_currency;
$$;

comment on function billing.write_off_room(uuid, text, uuid, integer, bigint) is
'How much may still be written off by itself on invoices of a facility in a year, for a rest of so many minor units; below zero where the rest is above
the tolerance, null where the company has none: billing.write_off_tolerances.';

create function billing.allocate_group(p_company uuid, p_facility uuid, p_customer uuid, p_sources uuid[]) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
-- Few rows, found by their keys: to start workers for them takes longer than all the rest.
set max_parallel_workers_per_gather = 0
set random_page_cost = 1.1
as $$
declare
    v_invoices uuid[];
    v_numbers text[];
    v_open bigint[];
    v_currencies text[];
    v_facilities uuid[];
    v_customers uuid[];
    v_issued date[];
    v_locked uuid[];
    v_key text;
    v_refused text[];
    v_own text[];
    v_count integer;
    v_first integer := 1;
    v_currency text;
    v_source record;
    v_left bigint;
    v_at integer;
    v_amount bigint;
    v_named integer;
    v_paid_here integer[];
    v_year integer;
    v_room jsonb := '{}';
    -- What is to be written, element by element; all of it goes into the tables in a few statements.
    v_to_kind text[] := '{}';
    v_to_source uuid[] := '{}';
    v_to_invoice uuid[] := '{}';
    v_to_amount bigint[] := '{}';
    v_review_check uuid[] := '{}';
    v_review_reference text[] := '{}';
    v_review_reason text[] := '{}';
    v_review_candidates text[] := '{}';
    v_reason text;
begin
    -- Allocations of one facility take turns; a row of another company's facility is never touched.
    perform from billing.facilities where id = p_facility for no key update;
    perform from billing.customers where id = p_customer for no key update;
    -- For update: an application that applies a check itself holds key share locks on both.
    v_locked := array(
        select i.id from billing.invoices as i
        where i.company_id = p_company and (i.facility_id = p_facility or i.customer_id = p_customer) and i.status in ('sent', 'partial')
        order by i.id
        for update
    );
    perform from billing.check_payments where id = any (p_sources) order by id for update;
    perform from billing.payments where id = any (p_sources) order by id for update;
    -- Of each currency oldest due date first, nulls last; an invoice without a currency is in the company's for money without one.
    select array_agg(o.id order by o.currency nulls first, o.due_date nulls last, o.ordinal, o.id),
        array_agg(o.open_cents order by o.currency nulls first, o.due_date nulls last, o.ordinal, o.id),
        array_agg(o.invoice_number order by o.currency nulls first, o.due_date nulls last, o.ordinal, o.id),
        array_agg(o.currency order by o.currency nulls first, o.due_date nulls last, o.ordinal, o.id),
        array_agg(o.facility_id order by o.currency nulls first, o.due_date nulls last, o.ordinal, o.id),
        array_agg(o.customer_id order by o.currency nulls first, o.due_date nulls last, o.ordinal, o.id),
        array_agg(o.issued_on order by o.currency nulls first, o.due_date nulls last, o.ordinal, o.id), count(*)
    into v_invoices, v_open, v_numbers, v_currencies, v_facilities, v_customers, v_issued, v_count
    from (
        select b.invoice_id as id, b.due_date, b.invoice_number, b.currency, b.open_cents, b.facility_id, b.customer_id, b.issued_on,
            billing.invoice_ordinal(b.invoice_number) as ordinal
        from billing.balances_as_of('infinity', array(
            select i.id
            from billing.invoices as i
            where i.id = any (v_locked) and i.status in ('sent', 'partial') and i.total_cents > 0
        )) as b
        where b.open_cents > 0
    ) as o;
    select array_agg(r.source_id::text || r.invoice_id::text) into v_refused
    from billing.application_refusals as r
    where r.source_id = any (p_sources) and r.withdrawn is null;

    select array_agg(a.source_id::text || a.invoice_id::text) into v_own
    from billing.application_rows as a
    where a.source_id = any (p_sources) and a.effective_until is null;

    for v_source in
        with wanted as (
            select b.source, b.source_id, b.label, b.currency, b.currency_unsaid, b.unapplied_cents, b.received_on, b.facility_id, b.customer_id
            from billing.balances_of_sources(p_sources) as b
            where b.company_id = p_company and b.unapplied_cents > 0
        ),
        fitting as (
            select r.source_id, r.reference, r.place, m.invoice_id, m.invoice_number, i.status,
                p.at::integer as at, m.sure,
                dense_rank() over (partition by r.source_id, r.place order by m.fit) as place_of_fit
            from billing.money_references as r
            left join billing.reference_matches as m on m.source = r.source and m.source_id = r.source_id and m.place = r.place
                and m.reference = r.reference and m.source_id = any (p_sources) and (r.source = 'check' or not m.bare)
            left join billing.invoices as i on i.id = m.invoice_id
            left join unnest(v_invoices) with ordinality as p (id, at) on p.id = m.invoice_id
            where r.source_id = any (p_sources)
        ),
        judged as (
            select f.source_id, f.reference, f.place, count(f.at) as outstanding, count(f.invoice_id) as found, min(f.at) filter (where f.sure) as at,
                coalesce(string_agg(f.invoice_number, e'\x1f' order by f.invoice_number), '') as candidates,
                string_agg(f.invoice_number || ' is ' || f.status, ', ' order by f.invoice_number) filter (where f.at is null) as settled,
                bool_or(f.source_id::text || f.invoice_id::text = any (v_own)) as its_own
            from fitting as f
            where f.place_of_fit = 1
            group by f.source_id, f.reference, f.place
        ),
        named as (
            select j.source_id, array_agg(case when j.outstanding = 1 then j.at end order by j.place) as at,
                array_agg(j.reference order by j.place) as reference, array_agg(j.candidates order by j.place) as candidates,
                array_agg(case
                    when btrim(j.reference) = '' then 'it is empty'
                    when j.its_own then ''
                    when j.outstanding > 1 then format('it fits %s outstanding invoices: %s', j.outstanding,
                        replace(j.candidates, e'\x1f', ', '))
                    when j.outstanding = 1 and j.at is null then 'it is digits alone, and the company has several series of numbers'
                    when j.outstanding = 1 then ''
                    when j.found > 0 then format('nothing is outstanding under it: %s', j.settled)
                    else 'no invoice of the facility has this number' end order by j.place) as doubt
            from judged as j
            group by j.source_id
        )
        select w.*, n.at, n.reference, n.candidates, n.doubt
        from wanted as w
        left join named as n on n.source_id = w.source_id
        order by w.currency nulls first, w.currency_unsaid desc, w.received_on, w.label, w.source_id
    loop
        v_left := v_source.unapplied_cents;
        v_paid_here := '{}';
        if v_source.currency is distinct from v_currency then
            v_currency := v_source.currency;
            v_first := 1;
        end if;
        for v_named in 1..coalesce(cardinality(v_source.at), 0) loop
            v_at := v_source.at[v_named];
            v_reason := v_source.doubt[v_named];
            if v_at is not null then
                v_reason := case
                    when v_currencies[v_at] is distinct from v_source.currency
                        and not (v_currencies[v_at] is null and v_source.currency_unsaid)
                        then format('%s is in %s, the check in %s', v_numbers[v_at], coalesce(v_currencies[v_at], 'a currency not known'),
                            coalesce(v_source.currency, 'a currency not known'))
                    when v_source.facility_id <> v_facilities[v_at] or v_source.customer_id <> v_customers[v_at]
                        then format('%s is another''s', v_numbers[v_at])
                    when v_source.source_id::text || v_invoices[v_at]::text = any (v_refused) then 'a person said that it is not for this one'
                    when v_open[v_at] = 0 and v_at <> all (v_paid_here) then format('%s was paid by a check before this one', v_numbers[v_at])
                    else ''
                end;
            end if;
            if v_reason = '' and v_at is not null and v_left > 0 and v_open[v_at] > 0 then
                v_amount := least(v_left, v_open[v_at]);
                v_open[v_at] := v_open[v_at] - v_amount;
                v_left := v_left - v_amount;
                v_paid_here := v_paid_here || v_at;
                v_to_kind := array_append(v_to_kind, v_source.source);
                v_to_source := array_append(v_to_source, v_source.source_id);
                v_to_invoice := array_append(v_to_invoice, v_invoices[v_at]);
                v_to_amount := array_append(v_to_amount, v_amount);
            elsif v_reason <> '' and v_source.source = 'check' then
                v_review_check := array_append(v_review_check, v_source.source_id);
                v_review_reference := array_append(v_review_reference, v_source.reference[v_named]);
                v_review_reason := array_append(v_review_reason, v_reason);
                v_review_candidates := array_append(v_review_candidates, v_source.candidates[v_named]);
            end if;
        end loop;
        -- Past what is paid or in another currency for good; what this money alone may not pay is only passed by.
        while v_first <= v_count and (v_open[v_first] = 0 or (
                v_currencies[v_first] is distinct from v_currency and not (v_currencies[v_first] is null and v_source.currency_unsaid)
            )) loop
            v_first := v_first + 1;
        end loop;
        v_at := v_first;
        while v_left > 0 and v_at <= v_count loop
            if v_open[v_at] > 0
                and (v_currencies[v_at] = v_source.currency or (v_currencies[v_at] is null and v_source.currency_unsaid))
                -- A credit of one facility pays no other, one customer's money no other's.
                and (v_source.facility_id <> v_facilities[v_at] or v_source.customer_id <> v_customers[v_at]) is not true
                and (v_refused is null or v_source.source_id::text || v_invoices[v_at]::text <> all (v_refused)) then
                v_amount := least(v_left, v_open[v_at]);
                v_open[v_at] := v_open[v_at] - v_amount;
                v_left := v_left - v_amount;
                v_paid_here := v_paid_here || v_at;
                v_to_kind := array_append(v_to_kind, v_source.source);
                v_to_source := array_append(v_to_source, v_source.source_id);
                v_to_invoice := array_append(v_to_invoice, v_invoices[v_at]);
                v_to_amount := array_append(v_to_amount, v_amount);
            end if;
            v_at := v_at + 1;
        end loop;
        -- Paid short: the rest of the last one, where the company writes off so little by itself.
        v_at := v_paid_here[cardinality(v_paid_here)];
        if v_left = 0 and v_at is not null and v_open[v_at] > 0 then
            v_year := extract(year from greatest(v_source.received_on, v_issued[v_at]));
            v_key := concat_ws(' ', v_facilities[v_at], v_year, v_currency);
            v_amount := coalesce(billing.write_off_room(p_company, v_currency, v_facilities[v_at], v_year, v_open[v_at]), -1)
                - coalesce((v_room ->> v_key)::bigint, 0);
            if v_amount >= v_open[v_at] then
                v_room := v_room || jsonb_build_object(v_key, coalesce((v_room ->> v_key)::bigint, 0) + v_open[v_at]);
                v_to_kind := array_append(v_to_kind, 'write-off');
                v_to_source := array_append(v_to_source, v_source.source_id);
                v_to_invoice := array_append(v_to_invoice, v_invoices[v_at]);
                v_to_amount := array_append(v_to_amount, v_open[v_at]);
                v_open[v_at] := 0;
            end if;
        end if;
    end loop;

    -- A check that pays now may have named what was not there when it was seen first.
    delete from billing.check_reference_reviews as r where r.check_payment_id = any (v_to_source);
    insert into billing.check_reference_reviews (company_id, check_payment_id, reference, reason, candidates)
    select distinct on (r.check_payment_id, r.reference) p_company, r.check_payment_id, r.reference, r.reason,
        case when r.candidates = '' then '{}' else string_to_array(r.candidates, e'\x1f') end
    from unnest(v_review_check, v_review_reference, v_review_reason, v_review_candidates)
        with ordinality as r (check_payment_id, reference, reason, candidates, place)
    order by r.check_payment_id, r.reference, r.place
    on conflict (check_payment_id, reference) do update
    set reason = excluded.reason, candidates = excluded.candidates, seen_at = excluded.seen_at
    where (check_reference_reviews.reason, check_reference_reviews.candidates) is distinct from (excluded.reason, excluded.candidates);
    perform billing.record_applications(v_to_kind, v_to_source, v_to_invoice, v_to_amount, 'allocated: named first, then oldest due');
end;
$$;

comment on function billing.allocate_group(uuid, uuid, uuid, uuid[]) is
'Allocates what is not applied of checks, payments and credits to the invoices of a facility or customer, in the order in which the money came: first
to the invoices that it names, then to the oldest due, in its own currency and never where a person said no. Reads once, computes in memory, one
step for each application, and writes in a few statements.';
