-- The three steps of a comparison: lines and invoices by id, lines that name one invoice, what is left over by number.
-- Safe: functions only; they write nothing but the temporary table of the comparison.
-- depends: 0404_staging_comparison

create function staging.match_lines(p_file text, p_tolerance bigint, p_by_number boolean) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '256MB'
as $$
begin
    -- Rows that are identical on both sides are counted by staging.compare_finance_ledger() and not written.
    execute format($sql$
        insert into pg_temp.finance_ledger_comparison
        select c.class, case when l.line is not null and i.invoice_id is not null then l.matched_by end,
            l.line, l.ledger_id, i.invoice_id, l.invoice_number, i.invoice_number, l.amount_cents, i.cents,
            l.entry_date, i.entry_date, l.status, i.status, l.currency, i.currency, l.invoice_id
        from (%s) as l
        full join billing.finance_invoices as i on i.invoice_id = l.key
        cross join lateral (
            select case
                when i.invoice_id is null then 'missing in the database'
                when l.line is null then 'missing in the ledger'
                else staging.comparison_class(l.matched_by, $1, l.amount_cents, i.cents, l.entry_date, i.entry_date,
                    l.status, i.status, l.currency, i.currency)
            end as class
        ) as c
        where c.class <> 'identical'$sql$, staging.finance_ledger_pairs(p_file, p_by_number)) using p_tolerance;
end;
$$;

comment on function staging.match_lines(text, bigint, boolean) is 'First step: lines and invoices in one FULL JOIN.';

create function staging.part_duplicates(p_file text, p_tolerance bigint, p_by_number boolean) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '256MB'
as $$
declare
    v_pairs text := staging.finance_ledger_pairs(p_file, p_by_number);
    v_twice uuid[];
begin
    -- As an array the few keys are few for the planner, too: it would look for all invoices otherwise.
    execute format($sql$
        select array_agg(t.key) from (
            select p.key from (%s) as p where p.key is not null group by p.key having count(*) > 1
        ) as t$sql$, v_pairs)
    into v_twice;
    execute format($sql$
        with known as materialized (
            select i.invoice_id from billing.finance_invoices as i where i.invoice_id = any ($1)
        ), lines as materialized (
            select p.*, row_number() over (partition by p.key order by p.matched_by, p.line) as nth
            from (%s) as p where p.key = any ($1) and p.key in (select k.invoice_id from known as k)
        ), gone as (
            delete from pg_temp.finance_ledger_comparison where line in (select line from lines)
        )
        insert into pg_temp.finance_ledger_comparison
        select c.class, case when l.nth = 1 then l.matched_by end, l.line, l.ledger_id, i.invoice_id, l.invoice_number,
            i.invoice_number, l.amount_cents, i.cents, l.entry_date, i.entry_date, l.status, i.status, l.currency,
            i.currency, l.invoice_id
        from lines as l
        left join billing.finance_invoices as i on i.invoice_id = l.key and l.nth = 1
        cross join lateral (
            select case
                when l.nth > 1 then 'duplicate key'
                else staging.comparison_class(l.matched_by, $2, l.amount_cents, i.cents, l.entry_date, i.entry_date,
                    l.status, i.status, l.currency, i.currency)
            end as class
        ) as c
        where c.class <> 'identical'$sql$, v_pairs) using v_twice, p_tolerance;
end;
$$;

comment on function staging.part_duplicates(text, bigint, boolean) is
'Where several lines name one invoice, the first that has its id, else the first that has its number, keeps it; the others are
duplicate keys.';

create function staging.match_numbers(p_tolerance bigint) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '256MB'
as $$
begin
    -- What is left over on both sides goes out of the table and comes back matched.
    with ledger as (
        delete from pg_temp.finance_ledger_comparison as c where c.class = 'missing in the database' returning c.*
    ), database as (
        delete from pg_temp.finance_ledger_comparison as c
        where c.class = 'missing in the ledger'
            and c.db_number in (select l.ledger_number from ledger as l)
        returning c.*
    ), l as (
        select ledger.*, row_number() over (
            partition by ledger_number order by ledger_invoice_id is not null, line
        ) as nth
        from ledger
    ), d as (
        select database.*, exists (
            select from staging.numbered_invoice as n
            where n.invoice_id = database.invoice_id and n.invoice_number = database.db_number
        ) as known
        from database
    ), j as (
        select l.line, l.ledger_id, d.invoice_id, l.ledger_number, d.db_number, l.ledger_cents, d.db_cents, l.ledger_date,
            d.db_date, l.ledger_status, d.db_status, l.ledger_currency, d.db_currency, l.ledger_invoice_id,
            case
                when l.line is not null and d.invoice_id is not null then 'pair'
                when d.invoice_id is not null then 'invoice'
                when l.ledger_number is not null and (l.nth > 1 or exists (
                    select from billing.finance_invoices as i where i.invoice_number = l.ledger_number
                )) then 'taken'
                else 'line'
            end as kind
        from l
        full join d on case when d.known then d.db_number end = case when l.nth = 1 then l.ledger_number end
    )
    insert into pg_temp.finance_ledger_comparison
    select
        case j.kind
            when 'pair' then staging.comparison_class('number', p_tolerance, j.ledger_cents, j.db_cents, j.ledger_date,
                j.db_date, j.ledger_status, j.db_status, j.ledger_currency, j.db_currency)
            when 'line' then case
                when j.ledger_invoice_id is not null
                    and row_number() over (partition by j.kind, j.ledger_invoice_id order by j.line) > 1
                    then 'duplicate key'
                else 'missing in the database' end
            else 'duplicate key'
        end,
        case j.kind when 'pair' then 'number' end,
        j.line, j.ledger_id, j.invoice_id, j.ledger_number, j.db_number, j.ledger_cents, j.db_cents, j.ledger_date, j.db_date,
        j.ledger_status, j.db_status, j.ledger_currency, j.db_currency, j.ledger_invoice_id
    from j;
end;
$$;

comment on function staging.match_numbers(bigint) is
'Last step: lines that have no id, then lines whose id is unknown, by invoice number. Lines beyond the first for a number, and numbers that several invoices
bear, are duplicate keys.';
