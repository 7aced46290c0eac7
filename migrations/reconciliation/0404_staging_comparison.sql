-- Ledger against invoices, both ways: every line and every invoice ends in exactly one class.
-- Safe: functions only; they write nothing.
-- depends: 0402_staging_finance_ledger_intake 0403_billing_profiles

create function staging.comparison_differences(
    p_number_differs boolean, p_tolerance numeric, p_ledger_cents numeric, p_db_cents numeric,
    p_ledger_date date, p_db_date date, p_ledger_status text, p_db_status text,
    p_ledger_currency text, p_db_currency text
) returns text[]
language sql immutable parallel safe
-- Null, the usual answer, first: an array made of five conditions costs as much as all the rest.
return case
    when
        p_number_differs
        or p_ledger_currency is distinct from p_db_currency
        or p_ledger_cents is distinct from p_db_cents
        or p_ledger_date is distinct from p_db_date
        or p_ledger_status is distinct from p_db_status
        then nullif(
                array_remove(
                    array[
                        case when p_number_differs then 'number' end,
                        case when p_ledger_currency is distinct from p_db_currency then 'currency' end,
                        -- Amounts of two currencies are neither equal nor different.
                        case
                            when
                                p_ledger_currency = p_db_currency
                                and abs(p_ledger_cents - p_db_cents)
                                > p_tolerance * backfill.minor_factor(p_ledger_currency)
                                then 'amount'
                        end,
                        case when p_ledger_date is distinct from p_db_date then 'date' end,
                        case when p_ledger_status is distinct from p_db_status then 'status' end
                    ],
                    null
                ),
                '{}'
            )
end;

comment on function staging.comparison_differences(
    boolean, numeric, numeric, numeric, date, date, text, text, text, text
) is
'All columns in which a ledger''s lines and their invoice differ, in the order that names their class; null where none does. Tolerance in
whole units of the currency. Inlined.';

create type staging.ledger_part as (
    nth bigint, class text, is_other boolean, currency text, line bigint, lines bigint, cents numeric,
    entry_date date, of_lines bigint []
);

comment on type staging.ledger_part is
'Lines of a ledger that name one invoice and are an entry of their own. The first has the invoice; the class is that of one that is not the first.';

create function staging.ledger_parts(
    p_file text, p_lines bigint[], p_others bigint[], p_currency text, p_cents numeric, p_within numeric
)
returns staging.ledger_part[]
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    with l as (
        select l.line, l.amount_cents as cents, l.currency, l.entry_date, o.line is not null as is_other
        from staging.finance_ledger_line as l
        left join unnest(p_others) as o (line) on o.line = l.line
        where l.file_sha256 = p_file and l.line = any(p_lines)
    ), g as (
        select l.currency, l.is_other, coalesce(not l.is_other and l.currency = p_currency and min(l.cents) = max(l.cents)
            and abs(sum(l.cents) - p_cents) > p_within and abs(min(l.cents) - p_cents) <= p_within, false) as is_repeated
        from l group by l.currency, l.is_other
    ), t as (
        select row_number() over (order by l.is_other, l.currency is distinct from p_currency, min(l.line)) as nth,
            case when l.is_other then 'number differs' when g.is_repeated then 'duplicate key' else 'currency differs' end as class,
            l.is_other, l.currency, min(l.line) as line, count(*) as lines, sum(l.cents)::numeric as cents,
            min(l.entry_date) as entry_date, array_agg(l.line) as of_lines
        from l
        inner join g on g.currency = l.currency and g.is_other = l.is_other
        group by l.is_other, l.currency, g.is_repeated, case when g.is_repeated then l.line end
    )
    select array_agg(t::staging.ledger_part order by t.nth) from t
$$;

comment on function staging.ledger_parts(text, bigint[], bigint[], text, numeric, numeric) is
'Lines that name one invoice by currency, that of the invoice first, those whose number is another invoice''s (others) last; and each line by
itself where they book the invoice again: the sum does not fit its cents, and one line alone does.';

create function staging.ledger_comparison(
    p_file text, p_tolerance numeric default 0, p_from date default null, p_to date default null,
    p_company uuid default null, p_as_of date default null
)
returns table (
    class text, differs text[], matched_by text, line bigint, lines bigint, ledger_id text, invoice_id uuid,
    invoices bigint, ledger_number text, db_number text, ledger_cents numeric, db_cents numeric, apart_cents numeric,
    ledger_date date, db_date date, ledger_status text, db_status text, ledger_currency text, db_currency text,
    ledger_invoice_id uuid
)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '256MB'
as $$
#variable_conflict use_column
declare
    v_from date := coalesce(p_from, '-infinity');
    v_to date := coalesce(p_as_of, p_to, 'infinity');
begin
    if not coalesce(p_tolerance >= 0 and p_tolerance < 'Infinity', false) then
        raise exception 'the tolerance is %: it cannot be below zero, and is an amount', coalesce(p_tolerance::text, 'null')
            using errcode = 'BF032';
    end if;
    if p_to is not null and p_as_of is not null then
        raise exception 'to % and as of %: both name the last day', p_to, p_as_of using errcode = 'BF032';
    end if;
    if v_from > v_to then
        raise exception 'the comparison is from % to %: it would hold no day', v_from, v_to using errcode = 'BF032';
    end if;
    return query
    with balance as materialized (
        select b.invoice_id, b.open_cents, b.total_cents, n.open_cents as open_now
        from billing.balances_as_of(p_as_of) as b
        inner join billing.invoice_balances as n on n.invoice_id = b.invoice_id
        where p_as_of is not null
    ), invoice as not materialized (
        select i.invoice_id, i.company_id, i.invoice_number, i.entry_date, i.cents, i.currency,
            p_company is null or i.company_id = p_company as is_asked,
            case
                when p_as_of is null or b.invoice_id is null or i.status = 'draft' then i.status
                when i.status = 'void' and coalesce(i.voided_on <= p_as_of, true) then i.status
                when i.status <> 'void' and b.open_cents = b.open_now then i.status
                when b.open_cents = b.total_cents then 'sent'
                when sign(b.open_cents) = sign(b.total_cents) then 'partial'
                else 'paid'
            end as status
        from billing.finance_invoices as i
        left join balance as b on b.invoice_id = i.invoice_id
    ), named as materialized (
        -- Each line with the invoice that its id names, and how its number fits that.
        select l.line, l.invoice_id as named_id, i.invoice_id as key, i.company_id, l.invoice_number, l.entry_date, l.amount_cents, l.currency, l.status,
            case when l.invoice_number = i.invoice_number then 1 else billing.number_fit(l.invoice_number, i.invoice_number) end as fit
        from staging.finance_ledger_line as l
        left join billing.finance_invoices as i on i.invoice_id = l.invoice_id
        where l.file_sha256 = p_file and (p_company is null or i.company_id is null or i.company_id = p_company)
            and (p_as_of is null or l.entry_date <= p_as_of)
    ), number as materialized (
        select distinct n.invoice_number from named as n where n.invoice_number is not null and n.key is null
    ), exact as materialized (
        -- Letter for letter first: nothing fits nearer, and the keys of numbers take longer than all the rest.
        select n.invoice_number, i.is_asked, array_agg(i.invoice_id order by i.invoice_id) as candidates
        from number as n
        inner join invoice as i on upper(i.invoice_number) = upper(n.invoice_number)
        group by n.invoice_number, i.is_asked
    ), near as materialized (
        select n.invoice_number, i.is_asked, i.invoice_id, i.company_id, i.cents, 2 as fit
        from number as n
        inner join invoice as i on billing.number_key(i.invoice_number) = billing.number_key(n.invoice_number)
            and billing.number_prefix(i.invoice_number) = billing.number_prefix(n.invoice_number)
        where n.invoice_number not in (select e.invoice_number from exact as e)
        union all
        select n.invoice_number, i.is_asked, i.invoice_id, i.company_id, i.cents, 3
        from number as n
        inner join invoice as i on billing.number_key(i.invoice_number) = billing.number_key(n.invoice_number)
        where billing.is_bare_number(n.invoice_number) and billing.number_fit(n.invoice_number, i.invoice_number) = 3
            and n.invoice_number not in (select e.invoice_number from exact as e)
    ), other as materialized (
        -- Lines with an id whose number fits another invoice of the company better. Numbers of other companies say nothing.
        select n.line from named as n
        inner join billing.finance_invoices as i on i.company_id = n.company_id and upper(i.invoice_number) = upper(btrim(n.invoice_number))
        where n.fit > 1
        union
        select n.line from named as n
        inner join billing.finance_invoices as i on i.company_id = n.company_id
            and billing.number_key(i.invoice_number) = billing.number_key(n.invoice_number)
            and billing.number_prefix(i.invoice_number) = billing.number_prefix(n.invoice_number)
        where n.fit > 2
    ), numbered as (
        -- Each number with the invoices that it may mean: those that it fits nearest. A credit is of no series.
        select distinct on (c.invoice_number) c.invoice_number, c.is_asked, c.candidates[1] as key, c.candidates,
            cardinality(c.candidates) > 1 as is_unclear
        from (
            select e.invoice_number, e.is_asked, 1 as fit, e.candidates from exact as e
            union all
            select n.invoice_number, n.is_asked, n.fit, array_agg(n.invoice_id order by n.invoice_id)
            from near as n
            where n.fit < 3 or n.fit = 3 and n.cents > 0 and billing.one_series(n.company_id)
            group by n.invoice_number, n.is_asked, n.fit
        ) as c
        order by c.invoice_number, c.fit, c.is_asked desc
    ), unclear as materialized (
        select distinct u.invoice_id
        from numbered as n cross join lateral unnest(n.candidates) as u (invoice_id)
        where n.is_unclear
    ), side as (
        select n.line, n.named_id, n.invoice_number, n.entry_date, n.amount_cents, n.currency, n.status,
            n.key is not null as by_id, n.key is null and coalesce(m.is_unclear, false) as is_unclear,
            coalesce(n.key is not null and n.invoice_number is not null and (n.fit is null or n.line in (select o.line from other as o)), false) as is_other,
            coalesce(n.key, case when not m.is_unclear then m.key end) as key,
            -- Lines without an invoice belong together where they name the same.
            case
                when n.key is not null or not m.is_unclear then null
                when n.named_id is not null and m.key is null then 'id ' || n.named_id
                when n.invoice_number is not null then format('number %s %s', billing.number_prefix(n.invoice_number), billing.number_key(n.invoice_number))
                else 'line ' || n.line
            end as name
        from named as n
        left join numbered as m on n.key is null and m.invoice_number = n.invoice_number
        where n.key is not null or coalesce(m.is_asked, true)
    ), entry as (
        -- All lines of one invoice are one entry.
        select s.key, s.name, min(s.line) as line, count(*) as lines, sum(s.amount_cents) as cents, min(s.entry_date) as entry_date,
            min(s.status) as status, max(s.status) as other_status, min(s.currency) as currency, max(s.currency) as other_currency,
            min(s.amount_cents) as least, max(s.amount_cents) as most, bool_or(s.by_id) as by_id, bool_or(s.is_unclear) as is_unclear,
            bool_or(s.is_other) as is_other, bool_and(s.is_other) as are_others, array_agg(s.line) as of_lines,
            array_agg(s.line) filter (where s.is_other) as others, bool_or(s.entry_date between v_from and v_to) as is_within
        from side as s group by s.key, s.name
    ), pair as (
        select e.*, i.invoice_id, i.invoice_number, i.entry_date as db_date, i.cents as db_cents, i.currency as db_currency, i.status as db_status,
            p_tolerance * backfill.minor_factor(backfill.currency_code(i.currency)) as within
        from entry as e
        full join (select * from invoice where is_asked) as i on i.invoice_id = e.key
        where coalesce(e.is_within, false) or coalesce(i.entry_date between v_from and v_to, false)
    ), parted as (
        -- Lines in several currencies, with another's number, or of 200 and 200 for an invoice of 200 are entries again: the first has it.
        select p.*, unnest(
            case
                when p.lines > 1 and (p.currency <> p.other_currency or p.is_other <> p.are_others
                    or p.least = p.most and abs(p.cents - p.db_cents) > p.within)
                    then staging.ledger_parts(p_file, p.of_lines, p.others, p.db_currency, p.db_cents, p.within)
                else '{null}'::staging.ledger_part[]
            end
        ) as part
        from pair as p
    ), narrow as (
        select p.by_id, coalesce((p.part).is_other, p.is_other) as is_other, (p.part).class as class_apart, p.is_unclear, p.invoice_id, p.invoice_number, p.db_date, p.db_cents,
            p.db_currency, p.db_status, coalesce((p.part).nth, 1) as nth, coalesce((p.part).line, p.line) as line,
            coalesce((p.part).lines, p.lines) as lines, coalesce((p.part).cents, p.cents) as cents,
            coalesce((p.part).entry_date, p.entry_date) as entry_date, coalesce((p.part).currency, p.currency) as currency,
            case when p.status = p.other_status then p.status else (
                select l.status from staging.finance_ledger_line as l
                where l.file_sha256 = p_file and l.line = any(coalesce((p.part).of_lines, p.of_lines))
                order by l.entry_date desc, l.line desc limit 1
            ) end as status
        from parted as p
        offset 0  -- a fence, here and below: what is computed once is not computed again for each column
    ), judged as (
        select n.*, case when n.nth = 1 and n.line is not null and n.invoice_id is not null
            then staging.comparison_differences(n.is_other, p_tolerance, n.cents, n.db_cents, n.entry_date, n.db_date,
                n.status, n.db_status, n.currency, n.db_currency) end as differs
        from narrow as n
        offset 0
    ), classed as (
        select j.*, case
            when j.is_unclear then 'duplicate key'
            when j.line is not null and j.invoice_id is null then 'missing in the database'
            when j.nth > 1 then j.class_apart
            when j.line is null and j.invoice_id in (select u.invoice_id from unclear as u) then 'duplicate key'
            when j.line is null then case when j.db_status in ('draft', 'void') then 'no receivable' else 'missing in the ledger' end
            when j.differs is not null then j.differs[1] || ' differs'
            when not j.by_id then 'matched by number only'
            else 'identical'
        end as class
        from judged as j
        offset 0
    ), found as (
        -- A row for each that is not identical; the identical ones as one row of each currency.
        select c.class, c.currency, c.db_currency, case when c.class <> 'identical' then c.line end as line,
            case when c.class <> 'identical' and c.nth = 1 then c.invoice_id end as invoice_id,
            sum(c.lines) as lines, sum(c.cents) as cents, count(c.invoice_id) filter (where c.nth = 1) as invoices,
            sum(c.db_cents) filter (where c.nth = 1) as db_cents,
            coalesce(sum(abs(c.cents - c.db_cents)) filter (
                where c.nth = 1 and c.currency = c.db_currency and array_position(c.differs, 'amount') is null
            ), 0) as apart,
            min(c.differs) filter (where c.class <> 'identical') as differs,
            bool_or(c.by_id) filter (where c.class <> 'identical') as by_id,
            min(c.entry_date) filter (where c.class <> 'identical') as entry_date,
            min(c.status) filter (where c.class <> 'identical') as status,
            min(c.invoice_number) filter (where c.class <> 'identical' and c.nth = 1) as db_number,
            min(c.db_date) filter (where c.class <> 'identical' and c.nth = 1) as db_date,
            min(c.db_status) filter (where c.class <> 'identical' and c.nth = 1) as db_status
        from classed as c
        group by c.class, c.currency, c.db_currency, case when c.class <> 'identical' then c.line end,
            case when c.class <> 'identical' and c.nth = 1 then c.invoice_id end
    )
    select f.class, coalesce(f.differs, '{}'), case when f.line is not null and f.invoice_id is not null
            then case when f.by_id then 'id' else 'number' end end,
        f.line, coalesce(f.lines, 0)::bigint, l.ledger_id, f.invoice_id, f.invoices, l.invoice_number, f.db_number, f.cents, f.db_cents, f.apart,
        f.entry_date, f.db_date, f.status, f.db_status, f.currency, case when f.invoices > 0 then f.db_currency end, l.invoice_id
    from found as f
    left join staging.finance_ledger_line as l on l.file_sha256 = p_file and l.line = f.line;
end;
$$;

comment on function staging.ledger_comparison(text, numeric, date, date, uuid, date) is
'A ledger (its sha256) against the invoices: one row for each entry (all lines of one invoice), invoice, or pair of both that is not identical,
with all columns that differ, and one row of each currency that counts the identical ones. Amounts in minor units of their currency; apart: by
how much pairs are apart that count as equal. Tolerance in whole units. From, to: what has its line or its invoice dated within. Company: only its
invoices, and no lines of others''. As of: in place of to, with statuses as they were on that day and no line after it. Refuses (BF032) a tolerance that is no
amount and a scope without a day. Reads only.';
