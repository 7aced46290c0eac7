-- How the loader stages a catalogue: parsed rows come in temporary tables, every row ends in one bucket.
-- Safe: functions only.
-- depends: 0223_staging_invoice_aliases

create function staging.summary_line(p_number text) returns text
language sql immutable parallel safe
return 'Total of invoice ' || p_number || ' as issued';
comment on function staging.summary_line(text) is 'Description of the one line of an invoice whose lines are not known.';

create function staging.take_invoices(
    p_company uuid, p_file text, p_lines_file text, p_actor text, p_time_zone text, p_first_wins boolean
) returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
set jit = off
as $$
declare
    v_buckets jsonb;
begin
    perform backfill.require_load('Invoices are staged by runner load invoices.');
    perform backfill.require_own_temp('incoming_invoices', 'incoming_invoice_lines', 'incoming_unread', 'intake_rejects');
    analyze pg_temp.incoming_invoices;
    analyze pg_temp.incoming_invoice_lines;

    create temporary table intake_lines on commit drop as
    select l.*, upper(l.number) as key, c.id as contractor_id,
        row_number() over (partition by upper(l.number) order by l.line)::integer as line_no
    from pg_temp.incoming_invoice_lines as l
    left join billing.contractors as c on c.company_id = p_company and c.name = l.contractor;

    create temporary table intake on commit drop as
    select i.*, upper(i.number) as key, f.facility_id, backfill.business_id('invoice', p_company::text, i.number) as invoice_id,
        i.sent_on::timestamp at time zone p_time_zone as sent_at, s.invoice_number is not null as staged, null::text as reason,
        row_number() over (partition by upper(i.number) order by i.line) as place,
        array_agg(i.line) over (partition by upper(i.number) order by i.line rows between unbounded preceding and unbounded following) as lines
    from pg_temp.incoming_invoices as i
    left join (
        select k.key, (array_agg(k.facility_id))[1] as facility_id
        from (
            select a.alias as key, a.facility_id from billing.facility_aliases as a where a.company_id = p_company
            union
            select staging.client_key(x.name), x.id from billing.facilities as x
            where x.company_id = p_company and not exists (
                select from billing.facility_aliases as a where a.company_id = p_company and a.alias = staging.client_key(x.name))
        ) as k
        group by k.key
        having count(*) = 1
    ) as f on f.key = staging.client_key(i.client)
    left join staging.invoices as s on s.company_id = p_company and upper(s.invoice_number) = upper(i.number) and s.withdrawn is null;
    grant select on pg_temp.intake to public;
    analyze pg_temp.intake;
    -- A row that cannot be read gives its number all the same: none is taken in its stead.
    if exists (select from pg_temp.incoming_unread) then
        update pg_temp.intake as n
        set lines = u.lines, place = array_position(u.lines, n.line)
        from (
            select b.key, array_agg(b.line order by b.line) as lines
            from (
                select upper(r.number) as key, r.line from pg_temp.incoming_unread as r
                union all
                select upper(i.number), i.line from pg_temp.incoming_invoices as i
                where upper(i.number) in (select upper(r.number) from pg_temp.incoming_unread as r)
            ) as b
            group by b.key
        ) as u
        where u.key = n.key;
    end if;

    update pg_temp.intake as i
    set reason = r.reason
    from (
        select n.line, concat_ws('; ',
            case when n.place > 1 and p_first_wins then format('%s is a duplicate of line %s, which was taken', n.number, n.lines[1])
                when cardinality(n.lines) > 1 and not p_first_wins
                    then format('%s is on lines %s', n.number, array_to_string(n.lines, ' and ')) end,
            case when n.facility_id is null then format('client %s is no facility, or more than one: give an alias (--aliases)', n.client) end,
            case when billing.invoice_ordinal(n.number) is null then format('number %s has no numeric part', n.number) end,
            case when n.total_cents = 0 then 'its total is nothing' end,
            case when not billing.is_currency(n.currency) then format('%s is no currency', quote_literal(n.currency)) end,
            case when n.paid_cents not between 0 and greatest(n.total_cents, 0) then format('%s of it are paid, of a total of %s',
                billing.amount_text(n.paid_cents, n.currency), billing.amount_text(n.total_cents, n.currency)) end,
            case when n.due_date < n.sent_on then format('due on %s, before it was issued on %s', n.due_date, n.sent_on) end,
            case when n.period_end < n.period_start
                then format('its period ends on %s, before it begins on %s', n.period_end, n.period_start) end,
            case when p_lines_file is not null and l.cents is distinct from n.total_cents then format('its total is %s, its lines make %s',
                billing.amount_text(n.total_cents, n.currency), coalesce(billing.amount_text(l.cents, n.currency), 'nothing')) end,
            l.strangers
        ) as reason
        from pg_temp.intake as n
        left join (
            select key, sum(amount_cents) as cents, string_agg(format('contractor %s (line %s of the lines) is unknown in billing.contractors', contractor, line), '; ' order by line)
                filter (where contractor is not null and contractor_id is null) as strangers
            from pg_temp.intake_lines
            group by key
        ) as l on l.key = n.key
    ) as r
    where r.line = i.line and r.reason <> '';

    update pg_temp.intake as i
    set reason = format('it was loaded before with another payload: %s', d.differences)
    from (
        select n.line, backfill.staged_differences(
            row(p_company, n.number, n.invoice_id, n.facility_id, n.period_start, n.period_end, n.sent_at, n.due_date, n.total_cents,
                p_actor, null, null, null, n.currency, n.paid_cents)::staging.invoices,
            case when p_lines_file is not null then l.payload
                else jsonb_build_array(backfill.line_payload(staging.summary_line(n.number), null, null, null, null, n.total_cents)) end
        ) as differences
        from pg_temp.intake as n
        -- The lines of all at once: asked for each invoice, the file would be read as often as it has invoices.
        left join (
            select key, jsonb_agg(backfill.line_payload(description, contractor_id, week_start, hours, rate_cents, amount_cents)
                order by line_no) as payload
            from pg_temp.intake_lines
            where key in (select s.key from pg_temp.intake as s where s.staged and s.reason is null)
            group by key
        ) as l on l.key = n.key
        where n.staged and n.reason is null
    ) as d
    where d.line = i.line and d.differences is not null;

    delete from staging.invoice_documents as d using pg_temp.intake as n
    where d.company_id = p_company and upper(d.invoice_number) = n.key and n.reason is null and not n.staged;
    delete from staging.invoice_lines as l using pg_temp.intake as n
    where l.company_id = p_company and upper(l.invoice_number) = n.key and n.reason is null and not n.staged;
    delete from staging.invoices as s using pg_temp.intake as n  -- withdrawn before
    where s.company_id = p_company and upper(s.invoice_number) = n.key and n.reason is null and not n.staged;
    insert into staging.invoices (company_id, invoice_number, invoice_id, facility_id, period_start, period_end, sent_at,
        due_date, total_cents, actor, file_sha256, line, currency, paid_cents)
    select p_company, n.number, n.invoice_id, n.facility_id, n.period_start, n.period_end, n.sent_at, n.due_date, n.total_cents,
        p_actor, p_file, n.line, n.currency, n.paid_cents
    from pg_temp.intake as n
    where n.reason is null and not n.staged;
    insert into staging.invoice_lines (company_id, invoice_number, line_no, description, contractor_id, week_start, hours,
        rate_cents, amount_cents, currency, file_sha256, line)
    select p_company, n.number, l.line_no, l.description, l.contractor_id, l.week_start, l.hours, l.rate_cents, l.amount_cents, n.currency,
        p_lines_file, l.line
    from pg_temp.intake_lines as l
    join pg_temp.intake as n on n.key = l.key and n.reason is null and not n.staged
    union all
    select p_company, n.number, 1, staging.summary_line(n.number), null, null, null, null, n.total_cents, n.currency, p_file, n.line
    from pg_temp.intake as n
    where n.reason is null and not n.staged and p_lines_file is null;

    perform staging.analyze_tables('staging.invoices', 'staging.invoice_lines');

    insert into pg_temp.intake_rejects (kind, source_key, line, reason, cents, currency)
    select 'invoices', n.number, n.line, n.reason, n.total_cents, n.currency from pg_temp.intake as n where n.reason is not null;
    insert into pg_temp.intake_rejects (kind, source_key, line, reason, cents)
    select 'lines', l.number, l.line, format('there is no invoice %s in the file', l.number), l.amount_cents
    from pg_temp.intake_lines as l
    where not exists (select from pg_temp.intake as n where n.key = l.key);

    select jsonb_object_agg(k.kind, k.buckets)
    from (
        select s.kind, jsonb_object_agg(s.bucket, jsonb_build_object('rows', s.n, 'money', s.money)) as buckets
        from (
            select c.kind, c.bucket, sum(c.n) as n, jsonb_object_agg(c.currency, c.cents) as money
            from (
                select 'invoices' as kind, case when reason is not null then 'rejected' when staged then 'matched' else 'created' end as bucket,
                    currency, count(*) as n, sum(total_cents) as cents
                from pg_temp.intake group by 2, 3
                union all
                select 'lines', case when n.key is null then 'rejected' when n.reason is not null then 'skipped'
                        when n.staged then 'matched' else 'created' end, coalesce(n.currency, 'amounts'), count(*), sum(l.amount_cents)
                from pg_temp.intake_lines as l
                left join (select distinct on (key) key, reason, staged, currency from pg_temp.intake order by key, reason nulls first) as n
                    on n.key = l.key
                group by 2, 3
            ) as c
            group by c.kind, c.bucket
        ) as s
        group by s.kind
    ) as k
    into v_buckets;
    return v_buckets;
end;
$$;
comment on function staging.take_invoices(uuid, text, text, text, text, boolean) is
'Stages the incoming invoices of one file (and of a second one with lines; null: one summary line each). Every row ends in one
bucket: created, matched (staged before, the same), skipped (a line of a rejected invoice) or rejected, with its reason in
intake_rejects. Returns rows and money of the buckets.';
