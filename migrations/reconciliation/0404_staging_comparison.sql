-- Ledger against invoices, both ways: every line and every invoice ends in exactly one class.
-- Safe: functions and a temporary table of the session; the comparison runs in a read-only transaction.
-- depends: 0402_staging_finance_ledger_intake 0403_billing_profiles

create function staging.begin_comparison() returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set client_min_messages = 'warning'
as $$
begin
    drop table if exists pg_temp.finance_ledger_comparison;
    create temp table finance_ledger_comparison (
        class text,
        matched_by text,
        line bigint,
        ledger_id text,
        invoice_id uuid,
        ledger_number text,
        db_number text,
        ledger_cents bigint,
        db_cents bigint,
        ledger_date date,
        db_date date,
        ledger_status text,
        db_status text,
        ledger_currency text,
        db_currency text,
        ledger_invoice_id uuid
    ) on commit drop;
    grant select on finance_ledger_comparison to public;  -- of this session: nobody else sees it
end;
$$;

comment on function staging.begin_comparison() is
'Makes the temporary table of a comparison, which goes with the transaction. Apart from the comparison, because a read-only
transaction can fill a temporary table but not make one.';

create function staging.comparison_class(
    p_by text, p_tolerance bigint, p_ledger_cents bigint, p_db_cents bigint, p_ledger_date date, p_db_date date,
    p_ledger_status text, p_db_status text, p_ledger_currency text, p_db_currency text
) returns text
language sql immutable parallel safe
return case
    when p_ledger_currency is distinct from p_db_currency then 'currency differs'
    when abs(p_ledger_cents - p_db_cents) > p_tolerance then 'amount differs'
    when p_ledger_date is distinct from p_db_date then 'date differs'
    when p_ledger_status is distinct from p_db_status then 'status differs'
    when p_by = 'number' then 'matched by number only'
    else 'identical'
end;

comment on function staging.comparison_class(
    text, bigint, bigint, bigint, date, date, text, text, text, text
) is
'The class of a matched pair: its first difference in this order, since cents of two currencies cannot be compared. Inlined.';

create view staging.numbered_invoice as
select
    i.invoice_id,
    i.invoice_number
from billing.finance_invoices as i
where
    (
        select count(*) < 2
        from billing.companies as c
        where
            exists (
                select 1 from billing.invoices as o
                where o.company_id = c.id
            )
    )
    or i.invoice_number in (
        select o.invoice_number from billing.finance_invoices as o
        group by o.invoice_number
        having count(*) = 1
    );

comment on view staging.numbered_invoice is
'Invoices that are known by their number alone. Numbers are unique within a company only: one that two companies use says of
neither invoice which one is meant.';
comment on column staging.numbered_invoice.invoice_id is 'The invoice.';
comment on column staging.numbered_invoice.invoice_number is 'Its number, borne by no other.';

create function staging.finance_ledger_pairs(p_file text, p_by_number boolean) returns text
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format($sql$
        select b.line, b.ledger_id, b.invoice_number, b.amount_cents, b.entry_date, b.status, b.currency, b.invoice_id,
            b.invoice_id as key, 'id' as matched_by
        from staging.finance_ledger_line as b where b.file_sha256 = %1$L %2$s $sql$, p_file,
        case when p_by_number then format($sql$ and b.invoice_id is not null
        union all
        select b.line, b.ledger_id, b.invoice_number, b.amount_cents, b.entry_date, b.status, b.currency, b.invoice_id,
            n.invoice_id, 'number'
        from staging.finance_ledger_line as b
        left join staging.numbered_invoice as n on n.invoice_number = b.invoice_number
        where b.file_sha256 = %L and b.invoice_id is null $sql$, p_file) end);
$$;

comment on function staging.finance_ledger_pairs(text, boolean) is
'SQL: lines of a ledger with the invoice that each names (key) by its id; by number: also those without an id by their number.
Where few lines have no id that is left to staging.match_numbers(), which gives the same and costs less.';

create function staging.compare_finance_ledger(p_file text, p_tolerance bigint default 0)
returns table (class text, ledger_rows bigint, ledger_money jsonb, db_rows bigint, db_money jsonb)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_ledger_rows bigint;
    v_ledger_money jsonb;
    v_by_number boolean;
    v_db_rows bigint;
    v_db_money jsonb;
begin
    if p_tolerance < 0 then
        raise exception 'the tolerance is % cents: it cannot be below zero', p_tolerance using errcode = 'BF032';
    end if;
    if not exists (
        select from pg_class
        where oid = to_regclass('pg_temp.finance_ledger_comparison') and pg_get_userbyid(relowner) = current_user
    ) then
        raise exception 'no comparison was begun in this transaction' using errcode = 'BF032',
            hint = 'begin; select staging.begin_comparison(); select * from staging.compare_finance_ledger(...); rollback;';
    end if;
    if not exists (select from staging.file where loader = 'finance_ledger' and sha256 = p_file)
        or not exists (select from staging.finance_ledger_line where file_sha256 = p_file) then
        raise exception 'ledger %: no lines of it are staged', left(p_file, 12) using errcode = 'BF031',
            hint = 'Import it: runner reconcile --ledger FILE. An empty ledger is never reconciled.';
    end if;
    if not exists (select from billing.finance_invoices) then
        raise exception 'billing.invoices is empty: there is nothing to reconcile with the ledger' using errcode = 'BF031',
            hint = 'Is this the right database?';
    end if;
    perform backfill.require_sealed_rows('staging.finance_ledger_line', p_file);
    select sum(x.lines), sum(x.by_id) < 0.9 * sum(x.lines), jsonb_object_agg(x.currency, x.cents) into v_ledger_rows, v_by_number, v_ledger_money
    from (
        select l.currency, count(*) as lines, count(l.invoice_id) as by_id, sum(l.amount_cents) as cents
        from staging.finance_ledger_line as l where l.file_sha256 = p_file group by l.currency
    ) as x;
    select sum(x.invoices), jsonb_object_agg(x.currency, x.cents) into v_db_rows, v_db_money
    from (
        select backfill.currency_code(i.currency) as currency, count(*) as invoices, sum(i.cents) as cents
        from billing.finance_invoices as i group by 1
    ) as x;

    perform staging.match_lines(p_file, p_tolerance, v_by_number);
    -- An invoice that was met twice shows: more lines are left to be identical than invoices are.
    if exists (
        select from pg_temp.finance_ledger_comparison as c
        having v_ledger_rows - count(c.line) <> v_db_rows - count(distinct c.invoice_id)
            or count(c.invoice_id) <> count(distinct c.invoice_id)
    ) then
        perform staging.part_duplicates(p_file, p_tolerance, v_by_number);
    end if;
    if exists (select from pg_temp.finance_ledger_comparison as c where c.class = 'missing in the database') then
        perform staging.match_numbers(p_tolerance);
    end if;

    return query
    with side as (
        select c.class, c.ledger_currency as currency, count(*) as lines, sum(c.ledger_cents) as line_cents, 0 as invoices, 0 as invoice_cents
        from pg_temp.finance_ledger_comparison as c where c.line is not null group by 1, 2
        union all
        select c.class, backfill.currency_code(c.db_currency), 0, 0, count(*), sum(c.db_cents)
        from pg_temp.finance_ledger_comparison as c where c.invoice_id is not null group by 1, 2
        -- What is no finding, counted on each side by itself.
        union all
        select 'identical', t.key, 0, t.value::numeric, 0, 0 from jsonb_each_text(v_ledger_money) as t
        union all
        select 'identical', t.key, 0, 0, 0, t.value::numeric from jsonb_each_text(v_db_money) as t
    ), sums as (
        select x.class, x.currency, sum(x.lines) as lines, sum(x.line_cents) as line_cents, sum(x.invoices) as invoices,
            sum(x.invoice_cents) as invoice_cents
        from (
            select s.* from side as s
            union all
            select 'identical', s.currency, -s.lines, -s.line_cents, -s.invoices, -s.invoice_cents from side as s where s.class <> 'identical'
            union all
            select 'identical', 'amounts', v_ledger_rows, 0, v_db_rows, 0
        ) as x
        group by x.class, x.currency
    ), found as (
        select s.class, sum(s.lines) as lines, jsonb_object_agg(s.currency, s.line_cents) filter (where s.line_cents <> 0) as line_money,
            sum(s.invoices) as invoices, jsonb_object_agg(s.currency, s.invoice_cents) filter (where s.invoice_cents <> 0) as invoice_money
        from sums as s group by s.class
    )
    select k.class, coalesce(f.lines, 0)::bigint, coalesce(f.line_money, '{}'), coalesce(f.invoices, 0)::bigint, coalesce(f.invoice_money, '{}')
    from (values ('identical', 1), ('amount differs', 2), ('date differs', 3), ('status differs', 4),
        ('currency differs', 5), ('missing in the database', 6), ('missing in the ledger', 7), ('duplicate key', 8),
        ('matched by number only', 9)) as k (class, place)
    left join found as f on f.class = k.class
    order by k.place;
end;
$$;

comment on function staging.compare_finance_ledger(text, bigint) is
'Fills pg_temp.finance_ledger_comparison with one row for each line, invoice or pair of both that is not identical, and returns rows and
money by currency, by class; those of the class identical are the totals less the findings, on each side by itself. Tolerance
in cents. Refuses (BF031) an empty ledger and an empty database: nothing passes on nothing.';

create function staging.comparison_rows(p_limit bigint default null) returns setof jsonb
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select jsonb_strip_nulls(to_jsonb(c)) - 'nth'
    from (
        select x.*, row_number() over (partition by x.class order by coalesce(x.line, 0), x.db_number, x.invoice_id) as nth
        from pg_temp.finance_ledger_comparison as x
        where x.class <> 'identical'
    ) as c
    where p_limit is null or c.nth <= p_limit
    order by c.class, c.nth;
end;
$$;

comment on function staging.comparison_rows(bigint) is 'The findings of the comparison, at most so many of each class, as JSON.';
