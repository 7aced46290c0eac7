-- The way of Finance's ledger into staging: raw text as COPY lands it, one set-wise cast, rejects by line and reason.
-- Safe: functions only; they write nothing but these tables and the rejects of the open run.
-- depends: 0401_staging_finance_ledger

create function staging.begin_finance_ledger() returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.require_run('Finance''s ledger is imported by runner reconcile --ledger FILE, or between backfill.begin_run() and finish_run().');
    truncate staging.finance_ledger_raw restart identity;
end;
$$;

comment on function staging.begin_finance_ledger() is
'Empties staging.finance_ledger_raw for a file. Then: copy staging.finance_ledger_raw (ledger_id, date, ...) from stdin (format csv, header), and
staging.take_finance_ledger().';

create function staging.finance_ledger_fault(p_row staging.finance_ledger_raw) returns text
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with d as (
        select f.field, f.value, f.value is null or case
            when f.value !~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])' or f.value ~ '^0000' then false
            else substr(f.value, 9, 2)::integer
                <= extract(day from make_date(substr(f.value, 1, 4)::integer, substr(f.value, 6, 2)::integer, 1)
                    + interval '1 month - 1 day')
        end as is_day
        from (values ('date', p_row.date), ('paid_at', p_row.paid_at)) as f (field, value)
    )
    select nullif(concat_ws('; ',
        case when btrim(p_row.ledger_id) <> '' then null else 'ledger_id is missing' end,
        case
            when p_row.date is null then 'date is missing'
            when length(p_row.date) <> 10 or not (select is_day from d where field = 'date')
                then format('date is not a day written YYYY-MM-DD: %L', left(p_row.date, 60))
        end,
        case
            when p_row.amount is null then 'amount is missing'
            when p_row.amount !~ '^-?[0-9]{1,14}(\.[0-9]{1,4})?$'
                then format('amount is not a number written like 1234.56: %L', left(p_row.amount, 60))
            when scale(trim_scale(p_row.amount::numeric)) > backfill.minor_digits(upper(btrim(p_row.currency)))
                then format('amount has more decimals than the currency %s: %L', left(upper(btrim(p_row.currency)), 60), p_row.amount)
        end,
        case
            when p_row.currency is null then 'currency is missing'
            when btrim(p_row.currency) !~ '^[A-Za-z]{3}$' then format('currency is not three letters: %L', left(p_row.currency, 60))
        end,
        case when btrim(p_row.status) <> '' then null else 'status is missing' end,
        case when p_row.invoice_id !~ '^[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}$'
            then format('invoice_id is not a UUID: %L', left(p_row.invoice_id, 60)) end,
        case
            when p_row.paid_at is null then null
            when not (select is_day from d where field = 'paid_at')
                or (length(p_row.paid_at) > 10 and substr(p_row.paid_at, 11) !~
                    '^[ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)? ?(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)$')
                then format('paid_at is neither YYYY-MM-DD nor a time with its zone such as 2026-01-31T10:00:00Z: %L',
                    left(p_row.paid_at, 60))
        end
    ), '');
$$;

comment on function staging.finance_ledger_fault(staging.finance_ledger_raw) is
'Why a line of the ledger cannot be taken, all reasons with their values; null where it can.';

create function staging.finance_ledger_rejects(p_name text) returns bigint
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_count bigint;
begin
    with judged as (
        select r.line, staging.finance_ledger_fault(r) as fault, left(r.ledger_id, 100) as ledger_id,
            left(r.invoice_number, 100) as invoice_number, left(r.amount, 60) as amount, upper(left(btrim(r.currency), 60)) as currency
        from staging.finance_ledger_raw as r
    ), bad as (
        select * from judged where fault is not null
    ), gone as (
        delete from staging.finance_ledger_raw as r using bad as b where r.line = b.line
    ), kept as (
        insert into backfill.reject (run_id, backfill, source, source_key, line, reason, amount, payload)
        select backfill.open_run(), 'load finance_ledger', p_name, b.line::text, b.line, b.fault,
            case when b.amount ~ '^-?[0-9]{1,14}(\.[0-9]{1,4})?$'
                and scale(trim_scale(b.amount::numeric)) <= backfill.minor_digits(coalesce(b.currency, 'amounts'))
                then backfill.minor_units(b.amount::numeric, coalesce(b.currency, 'amounts'))::bigint end,
            jsonb_strip_nulls(jsonb_build_object(
                'ledger_id', b.ledger_id, 'invoice_number', b.invoice_number, 'amount', b.amount))
        from bad as b
        returning 1
    )
    select count(*) into v_count from kept;
    return v_count;
end;
$$;

comment on function staging.finance_ledger_rejects(text) is
'Moves the lines of staging.finance_ledger_raw that cannot be taken to backfill.reject (source: the file''s name); returns how many.';

create function staging.cast_finance_ledger(p_sha256 text, p_proved boolean, p_expected bigint) returns bigint
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
as $$
declare
    v_count bigint;
begin
    -- What a cast gives back unchanged was written as we want it: cheaper than a pattern for each field. OFFSET 0
    -- keeps the planner from casting once for the test and once more for the row. Where it is not proved yet, what is
    -- trimmed is only compared: trimming costs as much as a cast.
    insert into staging.finance_ledger_line (file_sha256, line, ledger_id, entry_date, description, reference_id, invoice_number,
        invoice_id, amount, currency, status, payment_method, paid_at, notes)
    select p_sha256, r.line, r.ledger_id, r.day, r.description, r.reference_id, nullif(r.invoice_number, ''), r.id,
        r.value, upper(r.currency collate "C"), lower(r.status collate "C"), r.payment_method,
        case when r.paid_day is not null then r.paid_day::timestamptz else r.paid_at::timestamptz end, r.notes
    from (
        select w.line, btrim(w.ledger_id) as ledger_id, w.date, w.date::date as day, w.description, w.reference_id,
            btrim(w.invoice_number) as invoice_number, w.invoice_id, w.invoice_id::uuid as id,
            w.amount, w.amount::numeric as value,
            case when p_proved then btrim(w.currency) else w.currency end as currency,
            case when p_proved then btrim(w.status) else w.status end as status, w.payment_method,
            w.paid_at, case when octet_length(w.paid_at) = 10 then w.paid_at::date end as paid_day, w.notes
        from staging.finance_ledger_raw as w
        offset 0
    ) as r
    where p_proved or (
        r.ledger_id <> '' and r.status <> '' and strpos(r.status, ' ') = 0
        and octet_length(r.date) = 10 and r.day::text = r.date
        and octet_length(r.amount) <= 14 and r.value::text = r.amount and scale(r.value) <= 4  -- null for NaN and Infinity
        and (r.currency in ('USD', 'EUR', 'CAD', 'GBP', 'SEK') or r.currency ~ '^[A-Za-z]{3}$')  -- a pattern costs more
        and (r.invoice_id is null or r.id::text = r.invoice_id)
        and (r.paid_at is null or r.paid_day::text = r.paid_at)
    );
    get diagnostics v_count = row_count;
    if v_count <> p_expected then
        raise exception 'not every line is written in the plainest form' using errcode = 'data_exception';
    end if;
    return v_count;
end;
$$;

comment on function staging.cast_finance_ledger(text, boolean, bigint) is
'Types staging.finance_ledger_raw, which holds so many lines, into staging.finance_ledger_line in one statement. Not proved: fails (class 22)
unless every field is in its plainest form; proved: staging.finance_ledger_rejects() has taken out what cannot be cast.';

create function staging.number_finance_ledger(p_name text, p_lines bigint) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_read bigint;
begin
    -- Records are not lines where a field holds a line break, so each is moved down by the breaks before it.
    with counted as (
        select ctid as place, line, length(fields) - length(replace(fields, e'\n', '')) as breaks
        from (
            select ctid, line, concat(ledger_id, date, description, reference_id, invoice_number, invoice_id, amount,
                currency, status, payment_method, paid_at, notes) as fields
            from staging.finance_ledger_raw
        ) as w
    ), numbered as (
        select place, line, line + coalesce(sum(breaks) over (
            order by line rows between unbounded preceding and 1 preceding), 0)::bigint as moved, breaks
        from counted
    ), done as (
        update staging.finance_ledger_raw as r set line = n.moved from numbered as n where r.ctid = n.place and n.moved <> n.line
    )
    select coalesce(max(moved + breaks), 1) into v_read from numbered;
    if v_read <> p_lines then
        raise exception '%: % lines were sent and % were read', p_name, p_lines, v_read using errcode = 'BF030',
            hint = 'A line that holds nothing but \. ends the data for the server: take it out. Nothing was imported.';
    end if;
end;
$$;

comment on function staging.number_finance_ledger(text, bigint) is
'Gives the records of staging.finance_ledger_raw the number of the line on which each begins. Refuses (BF030) where lines are missing.';

create function staging.take_finance_ledger(
    p_sha256 text, p_name text, p_lines bigint default null, p_records bigint default null
)
returns table (row_count bigint, reject_count bigint)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_raw bigint;  -- a wrong p_records fails below: each of them is cast or rejected
begin
    perform backfill.require_run('Between staging.begin_finance_ledger() and staging.take_finance_ledger() the run stays open.');
    v_raw := coalesce(p_records, (select count(*) from staging.finance_ledger_raw));
    if p_lines <> v_raw + 1 then
        perform staging.number_finance_ledger(p_name, p_lines);
    end if;
    delete from staging.finance_ledger_line where file_sha256 = p_sha256;  -- of an import that was reversed
    reject_count := 0;
    begin
        row_count := staging.cast_finance_ledger(p_sha256, false, v_raw);
    exception
        when data_exception or check_violation then
            reject_count := staging.finance_ledger_rejects(p_name);
            row_count := staging.cast_finance_ledger(p_sha256, true, v_raw - reject_count);
    end;
    perform backfill.seal_rows('staging.finance_ledger_line', p_sha256);
    truncate staging.finance_ledger_raw;
    return next;
end;
$$;

comment on function staging.take_finance_ledger(text, text, bigint, bigint) is
'Types the lines of staging.finance_ledger_raw and keeps those that cannot be as rejects, in the open run. Lines: how many the file
has, header included; proves that none was left out (BF030). Null = not known: the lines keep the numbers that they have.
Records: how many COPY said it took; null = they are counted.';

create function staging.begin_plain_finance_ledger(p_sha256 text) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.require_run('Finance''s ledger is imported by runner reconcile --ledger FILE, or between backfill.begin_run() and finish_run().');
    delete from staging.finance_ledger_line where file_sha256 = p_sha256;  -- of an import that was reversed
    perform set_config('staging.finance_ledger', p_sha256, true);
    perform setval(pg_get_serial_sequence('staging.finance_ledger_line', 'line'), 2, false);
    perform set_config('staging.zone', current_setting('timezone'), true), set_config('timezone', 'UTC', true);
end;
$$;

comment on function staging.begin_plain_finance_ledger(text) is
'For a file of which every field is known to be in its plainest form, whatever reads it: copy staging.finance_ledger_line (ledger_id,
entry_date, ...) from stdin (format csv, header) casts as it reads and numbers the lines. Then staging.take_plain_finance_ledger(). Until
then the time zone is UTC, so that a date of payment is its midnight there.';

create function staging.take_plain_finance_ledger(p_sha256 text, p_records bigint) returns bigint
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('timezone', current_setting('staging.zone'), true);
    -- A lock keeps other imports away; whoever wrote past it would have taken a number out of these.
    if (select max(line) from staging.finance_ledger_line where file_sha256 = p_sha256) is distinct from p_records + 1 then
        raise exception 'the lines of the ledger are not numbered one after the other' using errcode = 'data_exception';
    end if;
    perform backfill.seal_rows('staging.finance_ledger_line', p_sha256);
    return p_records;
end;
$$;

comment on function staging.take_plain_finance_ledger(text, bigint) is
'Ends what staging.begin_plain_finance_ledger() began: fails (class 22) unless the records that COPY said it took are numbered one after
the other from line 2.';
