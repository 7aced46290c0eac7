-- How rows of applied money are written and ended, for whoever decided on them: amounts paid, states and links follow.
-- Safe: functions only; their callers hold the locks and have judged.
-- depends: 0214_billing_references

create function billing.follow_sources(p_sources uuid[]) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_sources = '{}' then
        return;
    end if;
    -- A credit is used up as an invoice is paid.
    update billing.invoices as i
    set status = s.state
    from (
        select b.source_id, case b.applied_cents when 0 then 'sent' when b.amount_cents then 'paid' else 'partial' end as state
        from billing.balances_of_sources(p_sources) as b
        where b.source = 'credit'
    ) as s
    where i.id = s.source_id and i.status in ('sent', 'partial', 'paid') and i.status <> s.state;
    -- A payment has one place for its invoice: it holds the only one that it is applied to.
    update billing.payments as p
    set invoice_id = s.invoice_id
    from (
        select w.id, case when count(distinct e.invoice_id) = 1 then min(e.invoice_id::text)::uuid end as invoice_id
        from unnest(p_sources) as w (id)
        left join billing.application_entries as e on e.source_id = w.id and e.source = 'payment' and e.effective_until is null
        group by w.id
    ) as s
    where p.id = s.id and p.invoice_id is distinct from s.invoice_id;
end;
$$;

comment on function billing.follow_sources(uuid[]) is
'Brings the states of credits and the links of payments in line with what of them is applied.';

create function billing.record_applications(
    p_source text[],
    p_source_id uuid[],
    p_invoice uuid[],
    p_cents bigint[],
    p_reason text,
    p_day date default null,
    p_code text default null
) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_rows jsonb;
    v_run uuid := backfill.open_run();
    v_over text;
begin
    -- A payment of more than is open explains first what the invoice said was paid without a row, and pays with the rest.
    select jsonb_agg(jsonb_build_object('place', n.place, 'source', n.source, 'source_id', n.source_id, 'invoice_id', n.invoice_id,
        'cents', n.cents, 'company_id', b.company_id, 'currency', coalesce(b.currency, billing.company_currency(b.company_id)),
        'said', case when n.source = 'payment' and n.claimed > b.open_cents
            then greatest(0, least(n.cents, b.opening_cents - (n.running - n.cents))) else 0 end,
        'day', coalesce(p_day, greatest(m.received_on, b.issued_on, f.free_from, o.open_from))) order by n.place)
    into v_rows
    from (
        select w.*, sum(w.cents) over (partition by w.invoice_id, w.source order by w.place) as running,
            sum(w.cents) over (partition by w.invoice_id, w.source) as claimed
        from unnest(p_source, p_source_id, p_invoice, p_cents) with ordinality as w (source, source_id, invoice_id, cents, place)
    ) as n
    join billing.balances_as_of('infinity', p_invoice) as b on b.invoice_id = n.invoice_id
    left join billing.money_sources as m on m.source_id = n.source_id and m.source_id = any (p_source_id)
    left join (
        -- The same money counts for one invoice at a time: where it paid another one, from that one's end.
        select e.source_id, max(e.effective_until) as free_from
        from billing.application_entries as e
        where e.source_id = any (p_source_id) and e.effective_until > e.effective_from
        group by e.source_id
    ) as f on f.source_id = n.source_id
    left join (
        -- And an invoice that something else paid until a day is open from that day on.
        select e.invoice_id, max(e.effective_until) as open_from
        from billing.application_entries as e
        where e.invoice_id = any (p_invoice) and e.effective_until > e.effective_from
        group by e.invoice_id
    ) as o on o.invoice_id = n.invoice_id;

    update billing.check_payment_applications as a
    set amount_cents = a.amount_cents + r.cents
    from jsonb_to_recordset(v_rows) as r (source text, source_id uuid, invoice_id uuid, cents bigint)
    where r.source = 'check' and a.check_payment_id = r.source_id and a.invoice_id = r.invoice_id;
    insert into billing.check_payment_applications
        (id, company_id, check_payment_id, invoice_id, amount_cents, currency, effective_from, reason, run_id)
    select backfill.business_id('application', r.source_id::text, r.invoice_id::text), r.company_id, r.source_id, r.invoice_id, r.cents,
        r.currency, r.day, p_reason, v_run
    from jsonb_to_recordset(v_rows) as r (source text, source_id uuid, invoice_id uuid, cents bigint, company_id uuid, currency text,
        day date)
    where r.source = 'check' and not exists (
        select from billing.check_payment_applications as a where a.check_payment_id = r.source_id and a.invoice_id = r.invoice_id);

    insert into billing.application_entries (id, company_id, source, source_id, invoice_id, amount_cents, currency, said_paid_cents,
        effective_from, reason_code, reason)
    select backfill.business_id('application', r.source, r.source_id::text, r.invoice_id::text, (
            select count(*) from billing.application_entries as e
            where e.source = r.source and e.source_id = r.source_id and e.invoice_id = r.invoice_id
        )::text), r.company_id, r.source, r.source_id, r.invoice_id, r.cents, r.currency, r.said, r.day,
        case when r.source = 'write-off' then coalesce(p_code, 'short-pay') end, p_reason
    from jsonb_to_recordset(v_rows) as r (source text, source_id uuid, invoice_id uuid, cents bigint, company_id uuid, currency text,
        said bigint, day date)
    where r.source <> 'check';

    update billing.invoices as i
    set amount_paid_cents = i.amount_paid_cents + t.cents,
        status = case when i.amount_paid_cents + t.cents = i.total_cents then 'paid' else 'partial' end
    from (
        select r.invoice_id, sum(r.cents - r.said)::bigint as cents
        from jsonb_to_recordset(v_rows) as r (invoice_id uuid, cents bigint, said bigint)
        group by r.invoice_id
    ) as t
    where i.id = t.invoice_id and t.cents <> 0;
    perform billing.follow_sources(array(select distinct w.id from unnest(p_source, p_source_id) as w (source, id)
        where w.source in ('payment', 'credit')));
    if p_day is not null then
        -- A day that a person gave: as of no day more may be paid than is owed.
        select format('%s would have %s too much paid on %s', b.invoice_number, billing.amount_text(-b.open_cents, b.currency), c.day)
        into v_over
        from (
            select distinct r.invoice_id, e.day
            from billing.application_rows as r
            cross join lateral (values (r.effective_from), (r.effective_until)) as e (day)
            where r.invoice_id = any (p_invoice) and e.day is not null
        ) as c
        cross join lateral billing.balances_as_of(c.day, array[c.invoice_id]) as b
        where b.open_cents < 0
        order by c.day
        limit 1;
        if found then
            raise exception 'on % nothing can be applied: %', p_day, v_over using errcode = 'BF033',
                hint = 'Give a later day, or none: it then counts from the day on which it can.';
        end if;
    end if;
end;
$$;

comment on function billing.record_applications(text[], uuid[], uuid[], bigint[], text, date, text) is
'Writes rows of applied money, one for each place of the arrays (source, its id, invoice, minor units), each from the day of its money or the issue
of its invoice, or from the day given. The caller has locked and judged them.';

create function billing.end_applications(p_ids uuid[], p_reason text, p_day date default null) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    -- What was written off because this money was short goes with it.
    v_ids uuid[] := p_ids || array(
        select o.id
        from billing.application_rows as m
        join billing.application_entries as o on o.source = 'write-off' and o.source_id = m.source_id and o.invoice_id = m.invoice_id
            and o.reason_code = 'short-pay' and o.effective_until is null
        where m.id = any (p_ids) and m.source <> 'write-off'
    );
    v_ended jsonb;
begin
    select jsonb_agg(to_jsonb(x)) into v_ended
    from (
        select r.id, r.source, r.source_id, r.invoice_id, r.amount_cents as cents, r.company_id, r.effective_from, r.reason,
            greatest(coalesce(p_day, r.effective_from), r.effective_from) as until, coalesce(e.said_paid_cents, 0) as said,
            i.currency, e.id is not null as kept, r.linked
        from billing.application_rows as r
        join billing.invoices as i on i.id = r.invoice_id
        left join billing.application_entries as e on e.id = r.id
        where r.effective_until is null and r.id = any (v_ids)
    ) as x;

    delete from billing.check_payment_applications as a
    where a.id in (select r.id from jsonb_to_recordset(v_ended) as r (id uuid, source text) where r.source = 'check');
    update billing.application_entries as e
    set effective_until = r.until, ended_reason = p_reason
    from jsonb_to_recordset(v_ended) as r (id uuid, until date, kept boolean)
    where e.id = r.id and r.kept;
    insert into billing.application_entries (id, company_id, source, source_id, invoice_id, amount_cents, currency, effective_from,
        effective_until, reason, ended_reason)
    select backfill.business_id('application', r.source, r.source_id::text, r.invoice_id::text, (
            select count(*) from billing.application_entries as e
            where e.source = r.source and e.source_id = r.source_id and e.invoice_id = r.invoice_id
        )::text), r.company_id, r.source, r.source_id, r.invoice_id, r.cents,
        coalesce(r.currency, billing.company_currency(r.company_id)), r.effective_from, r.until, coalesce(r.reason, 'applied'), p_reason
    from jsonb_to_recordset(v_ended) as r (id uuid, source text, source_id uuid, invoice_id uuid, cents bigint, company_id uuid,
        effective_from date, until date, reason text, currency text, kept boolean)
    where not r.kept;

    -- What is draft or void stays so. A link that the application never counted takes nothing away from what other rows paid.
    update billing.invoices as i
    set amount_paid_cents = n.cents,
        status = case when i.status in ('draft', 'void') then i.status when n.cents = 0 then 'sent' when n.cents = i.total_cents then 'paid'
            else 'partial' end
    from (
        select t.invoice_id, t.cents, t.linked_cents, coalesce((
            select sum(o.amount_cents) from billing.application_rows as o
            where o.invoice_id = t.invoice_id and o.effective_until is null and o.id <> all (v_ids)
        ), 0)::bigint as standing
        from (
            select r.invoice_id, coalesce(sum(r.cents - r.said) filter (where not r.linked), 0)::bigint as cents,
                coalesce(sum(r.cents) filter (where r.linked), 0)::bigint as linked_cents
            from jsonb_to_recordset(v_ended) as r (invoice_id uuid, cents bigint, said bigint, linked boolean)
            group by r.invoice_id
        ) as t
    ) as s
    cross join lateral (
        select greatest(p.amount_paid_cents - s.cents - least(s.linked_cents,
            greatest(p.amount_paid_cents - s.cents - s.standing, 0)), 0)::bigint as cents
        from billing.invoices as p where p.id = s.invoice_id
    ) as n
    where i.id = s.invoice_id and n.cents <> i.amount_paid_cents;
    -- What a write-off took its money from is no payment.
    perform billing.follow_sources(array(select distinct r.source_id from jsonb_to_recordset(v_ended) as r (source text, source_id uuid)
        where r.source in ('payment', 'credit')));
end;
$$;

comment on function billing.end_applications(uuid[], text, date) is
'Ends rows of applied money on a day (default: the day from which each counts, so that it never did): the rows stay with their end, amounts paid
and states follow, and what was written off because the money was short ends with it. The caller has locked and judged them.';
