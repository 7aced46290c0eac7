-- A comparison as runner reconcile makes it: kept for its transaction, counted by class and by column.
-- Safe: functions and a temporary table of the session; the comparison runs in a read-only transaction.
-- depends: 0404_staging_comparison

create function staging.begin_comparison() returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set client_min_messages = 'warning'
as $$
begin
    drop table if exists pg_temp.finance_ledger_comparison;
    create temp table finance_ledger_comparison on commit drop as
    select * from staging.ledger_comparison(null) limit 0;
    grant select on finance_ledger_comparison to public;  -- of this session: nobody else sees it
end;
$$;

comment on function staging.begin_comparison() is
'Makes the temporary table of a comparison, which goes with the transaction. Apart from the comparison, because a read-only
transaction can fill a temporary table but not make one.';

create function staging.require_comparison() returns void
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Whatever else has this name is its maker's: a view of theirs would run their functions with the rights of whoever reads it here.
    if not exists (
        select from pg_class
        where oid = to_regclass('pg_temp.finance_ledger_comparison') and relkind = 'r' and pg_get_userbyid(relowner) = current_user
    ) then
        raise exception 'no comparison was begun in this transaction' using errcode = 'BF032',
            hint = 'begin; select staging.begin_comparison(); select * from staging.compare_finance_ledger(...); rollback;';
    end if;
end;
$$;

comment on function staging.require_comparison() is
'Refuses (BF032) unless pg_temp.finance_ledger_comparison is the table that staging.begin_comparison() made.';

create function staging.compare_finance_ledger(
    p_file text, p_tolerance numeric default 0, p_from date default null, p_to date default null,
    p_company uuid default null, p_as_of date default null
)
returns table (
    class text, ledger_rows bigint, ledger_money jsonb, db_rows bigint, db_money jsonb, pairs bigint, apart_money jsonb
)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_company is not null and not exists (select from billing.companies as c where c.id = p_company) then
        raise exception 'there is no company %', p_company using errcode = 'BF032', hint = 'select id, name from billing.companies;';
    end if;
    perform staging.require_comparison();
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
    insert into pg_temp.finance_ledger_comparison
    select * from staging.ledger_comparison(p_file, p_tolerance, p_from, p_to, p_company, p_as_of);
    if not exists (select from pg_temp.finance_ledger_comparison as c where c.lines > 0)
        or not exists (select from pg_temp.finance_ledger_comparison as c where c.invoices > 0) then
        raise exception 'one of the sides holds nothing of what was asked%: nothing passes on nothing', concat(
            ', from ' || p_from, ', to ' || coalesce(p_as_of, p_to), ', of company ' || p_company
        ) using errcode = 'BF031',
            hint = (
                select format('The ledger is dated %s to %s.', min(l.entry_date), max(l.entry_date))
                from staging.finance_ledger_line as l where l.file_sha256 = p_file
            );
    end if;

    return query
    with sums as (
        select x.class, x.currency, sum(x.lines) as lines, sum(x.line_cents) as line_cents, sum(x.invoices) as invoices,
            sum(x.invoice_cents) as invoice_cents, sum(x.apart) as apart, sum(x.pairs) as pairs
        from (
            select c.class, c.ledger_currency as currency, c.lines, c.ledger_cents as line_cents, 0 as invoices, 0 as invoice_cents,
                c.apart_cents as apart, case when c.lines > 0 then c.invoices else 0 end as pairs
            from pg_temp.finance_ledger_comparison as c where c.lines > 0
            union all
            select c.class, backfill.currency_code(c.db_currency), 0, 0, c.invoices, c.db_cents, 0, 0
            from pg_temp.finance_ledger_comparison as c where c.invoices > 0
        ) as x
        group by x.class, x.currency
    ), found as (
        select s.class, sum(s.lines) as lines, jsonb_object_agg(s.currency, s.line_cents) filter (where s.line_cents <> 0) as line_money,
            sum(s.invoices) as invoices, jsonb_object_agg(s.currency, s.invoice_cents) filter (where s.invoice_cents <> 0) as invoice_money,
            sum(s.pairs) as pairs, jsonb_object_agg(s.currency, s.apart) filter (where s.apart <> 0) as apart_money
        from sums as s group by s.class
    )
    select k.class, coalesce(f.lines, 0)::bigint, coalesce(f.line_money, '{}'), coalesce(f.invoices, 0)::bigint, coalesce(f.invoice_money, '{}'),
        coalesce(f.pairs, 0)::bigint, coalesce(f.apart_money, '{}')
    from (values ('identical', 1), ('matched by number only', 2), ('no receivable', 3), ('number differs', 4), ('currency differs', 5),
        ('amount differs', 6), ('date differs', 7), ('status differs', 8), ('missing in the database', 9), ('missing in the ledger', 10),
        ('duplicate key', 11)) as k (class, place)
    left join found as f on f.class = k.class
    order by k.place;
end;
$$;

comment on function staging.compare_finance_ledger(text, numeric, date, date, uuid, date) is
'Fills pg_temp.finance_ledger_comparison from staging.ledger_comparison(), and returns by class: lines, invoices and pairs, their money by currency, and
by how much pairs are apart that count as equal. Refuses (BF031) an empty ledger, an empty database, and a scope in which one
is empty: nothing passes on nothing.';

create function staging.comparison_columns() returns table (differs text, pairs bigint)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform staging.require_comparison();
    return query
    select k.differs, count(c.differs)
    from unnest('{number,currency,amount,date,status}'::text[]) with ordinality as k (differs, place)
    left join pg_temp.finance_ledger_comparison as c on k.differs = any(c.differs)
    group by k.differs, k.place
    order by k.place;
end;
$$;

comment on function staging.comparison_columns() is
'In how many pairs of the comparison each column differs: a pair that differs in two is counted with both, and is in the class of the first.';

create function staging.comparison_rows(p_limit bigint default null) returns setof jsonb
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform staging.require_comparison();
    return query
    select jsonb_strip_nulls(to_jsonb(c)) - '{nth,invoices,apart_cents}'::text[]
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
