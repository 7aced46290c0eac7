-- Who owes what since when, and what became of it: aging and statements as of any day.
-- Safe: functions that only read.
-- depends: 0226_billing_smoke_test

create function billing.aging(p_as_of date default null, p_by text default 'facility')
returns table (
    company_id uuid,
    debtor_id uuid,
    debtor text,
    currency text,
    invoices bigint,
    current_cents bigint,
    days_1_to_30_cents bigint,
    days_31_to_60_cents bigint,
    days_61_to_90_cents bigint,
    days_over_90_cents bigint,
    open_cents bigint
)
language plpgsql stable
rows 1000
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_day date := coalesce(p_as_of, billing.day_of(now()));
begin
    if p_by is null or p_by not in ('facility', 'customer') then
        raise exception 'aging goes by facility or customer, not by %', coalesce(quote_literal(p_by), 'null') using errcode = 'BF033';
    end if;
    return query
    select b.company_id, d.id, coalesce(f.name, c.name), b.currency, count(*),
        coalesce(sum(b.open_cents) filter (where d.late <= 0), 0)::bigint,
        coalesce(sum(b.open_cents) filter (where d.late between 1 and 30), 0)::bigint,
        coalesce(sum(b.open_cents) filter (where d.late between 31 and 60), 0)::bigint,
        coalesce(sum(b.open_cents) filter (where d.late between 61 and 90), 0)::bigint,
        coalesce(sum(b.open_cents) filter (where d.late > 90), 0)::bigint,
        sum(b.open_cents)::bigint
    from billing.balances_as_of(v_day) as b
    cross join lateral (
        select case p_by when 'facility' then b.facility_id else b.customer_id end as id, coalesce(v_day - b.due_date, 0) as late
    ) as d
    left join billing.facilities as f on p_by = 'facility' and f.id = d.id
    left join billing.customers as c on p_by = 'customer' and c.id = d.id
    where b.issued_on <= v_day and b.open_cents <> 0
    group by b.company_id, d.id, f.name, c.name, b.currency
    order by coalesce(f.name, c.name), d.id, b.currency;
end;
$$;

comment on function billing.aging(date, text) is
'What was open at the end of a day (default: today, UTC), by facility or customer (null: not known) and currency, by days past the due date; what has no due date
is current, credits are below zero. In minor units; the five buckets sum to open. By the days on which money was received, not on which it was entered.';

create function billing.statement(p_debtor uuid, p_from date, p_to date)
returns table (
    currency text, day date, what text, document text, amount_cents bigint, balance_cents bigint
)
language plpgsql stable
rows 1000
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_invoices uuid[];
begin
    if p_from is null or p_to is null or p_to < p_from then
        raise exception 'a statement goes from a day to one that is not before it, not from % to %', coalesce(p_from::text, 'null'),
            coalesce(p_to::text, 'null') using errcode = 'BF033';
    end if;
    if not exists (select from billing.facilities where id = p_debtor) and not exists (select from billing.customers where id = p_debtor) then
        raise exception 'there is no facility and no customer %', p_debtor using errcode = 'BF009',
            hint = 'select id, name from billing.facilities; select id, name from billing.customers;';
    end if;
    v_invoices := array(select i.id from billing.invoices as i where (i.facility_id = p_debtor or i.customer_id = p_debtor) and i.status <> 'draft');
    return query
    with moves as (
        select b.currency, b.issued_on as day, 1 as place, case when b.total_cents < 0 then 'credit' else 'invoice' end as what,
            b.invoice_number as document, b.total_cents as cents
        from billing.balances_as_of('infinity', v_invoices) as b
        join billing.invoices as i on i.id = b.invoice_id
        where i.status <> 'void' or i.voided_on is not null
        union all
        select i.currency, i.voided_on, 2, 'void', i.invoice_number, -i.total_cents::bigint
        from billing.invoices as i
        where i.id = any (v_invoices) and i.status = 'void' and i.voided_on is not null
        union all
        select a.currency, a.effective_from, 3, a.source, concat_ws(' for ', case a.source when 'check' then m.label end,
            i.invoice_number), -a.amount_cents
        from billing.applications as a
        join billing.invoices as i on i.id = a.invoice_id
        left join billing.money_sources as m on m.source = a.source and m.source_id = a.source_id
        -- A credit that pays an invoice moves nothing between the two of them where both are here.
        where a.invoice_id = any (v_invoices) and not (a.source = 'credit' and a.source_id = any (v_invoices))
            and a.effective_until is distinct from a.effective_from and (i.status <> 'void' or i.voided_on is not null)
        union all
        select a.currency, a.effective_until, 4, a.source || ' taken back', concat_ws(' for ',
            case a.source when 'check' then m.label end, i.invoice_number), a.amount_cents
        from billing.applications as a
        join billing.invoices as i on i.id = a.invoice_id
        left join billing.money_sources as m on m.source = a.source and m.source_id = a.source_id
        where a.invoice_id = any (v_invoices) and not (a.source = 'credit' and a.source_id = any (v_invoices))
            and a.effective_until > a.effective_from and (i.status <> 'void' or i.voided_on is not null)
        union all
        -- A credit of this account that pays somebody else's invoice is used up here.
        select a.currency, d.day, d.place, d.what, concat_ws(' for ', c.invoice_number, i.invoice_number), d.sign * a.amount_cents
        from billing.applications as a
        join billing.invoices as c on c.id = a.source_id
        join billing.invoices as i on i.id = a.invoice_id
        cross join lateral (values (a.effective_from, 3, 'credit given', 1), (a.effective_until, 4, 'credit given taken back', -1))
            as d (day, place, what, sign)
        where a.source = 'credit' and a.source_id = any (v_invoices) and a.invoice_id <> all (v_invoices) and d.day is not null
            and a.effective_until is distinct from a.effective_from
    ),
    lines as (
        select m.currency, p_from as day, 0 as place, 'opening balance' as what, null::text as document,
            coalesce(sum(m.cents) filter (where m.day < p_from), 0)::bigint as cents
        from moves as m
        where m.day <= p_to
        group by m.currency
        union all
        select m.currency, m.day, m.place, m.what, m.document, m.cents
        from moves as m
        where m.day between p_from and p_to
    )
    select l.currency, l.day, l.what, l.document, l.cents,
        sum(l.cents) over (partition by l.currency order by l.day, l.place, l.document, l.what rows unbounded preceding)::bigint
    from lines as l
    order by l.currency, l.day, l.place, l.document, l.what;
end;
$$;

comment on function billing.statement(uuid, date, date) is
'The account of a facility or customer from a day to another, in each currency: the opening balance, every invoice, credit, application and write-off on its
day, and the balance after it, in minor units. The last balance is what billing.balances_as_of() has open on that day; money on account is not in it.';
