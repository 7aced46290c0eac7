-- How the loader stages a catalogue: parsed rows come in temporary tables, every row ends in one bucket.
-- Safe: functions only.
-- depends: 0016_billing_invoice_actions

create function staging.client_key(p_name text) returns text
language sql immutable parallel safe
return lower(btrim(regexp_replace(p_name, '\s+', ' ', 'g')));
comment on function staging.client_key(text) is 'A client''s name as aliases keep it: lower case, blanks collapsed.';

create function staging.begin_invoices() returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    create temporary table incoming_invoices (
        line bigint not null,
        number text not null,
        client text not null,
        period_start date not null,
        period_end date not null,
        sent_on date not null,
        due_date date not null,
        total_cents bigint not null
    ) on commit drop;
    create temporary table incoming_invoice_lines (
        line bigint not null,
        number text not null,
        description text not null,
        contractor text,
        week_start date,
        hours numeric(9, 2),
        rate_cents bigint,
        amount_cents bigint not null
    ) on commit drop;
    create temporary table incoming_unread (line bigint not null, number text not null) on commit drop;
    create temporary table incoming_aliases (line bigint not null, client text not null, facility text not null) on commit drop;
    create temporary table intake_rejects (
        kind text not null, source_key text not null, line bigint, reason text not null, cents bigint
    ) on commit drop;
$$;
comment on function staging.begin_invoices() is
'Makes the temporary tables into which a loader copies parsed rows: incoming_invoices, incoming_invoice_lines, incoming_aliases;
and incoming_unread for the company''s rows that cannot be typed: their numbers count as given.';

create function staging.take_aliases(p_company uuid) returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_kept bigint;
begin
    insert into pg_temp.intake_rejects (kind, source_key, line, reason)
    select 'aliases', a.client, a.line, case
        when a.client = '' then 'its client is missing'
        when a.facility = '' then format('the facility of %s is missing', a.client)
        else format('there is no facility %s: give its name in billing.facilities, or its id', a.facility)
    end
    from pg_temp.incoming_aliases as a
    where a.client = '' or not exists (
        select from billing.facilities as f
        where f.company_id = p_company
            and (staging.client_key(f.name) = staging.client_key(a.facility) or f.id::text = a.facility)
    );
    -- The domain's table is written by a function of its owner: whoever loads a file need not write it.
    select billing.keep_facility_aliases(p_company, coalesce(jsonb_agg(to_jsonb(g)), '[]')) into v_kept
    from (
        select distinct on (staging.client_key(a.client)) staging.client_key(a.client) as alias, f.id as facility_id
        from pg_temp.incoming_aliases as a
        join billing.facilities as f on f.company_id = p_company
            and (staging.client_key(f.name) = staging.client_key(a.facility) or f.id::text = a.facility)
        where a.client <> ''
        order by staging.client_key(a.client), a.line desc
    ) as g;
    return v_kept;
end;
$$;
comment on function staging.take_aliases(uuid) is
'Takes incoming aliases (client, facility by name or id) over into billing.facility_aliases; the last one given for a name stands.';

create function staging.take_invoices(
    p_company uuid, p_file text, p_lines_file text, p_actor text, p_time_zone text, p_first_wins boolean
) returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
set jit = off
as $$
declare
    v_buckets jsonb;
begin
    analyze pg_temp.incoming_invoices;
    analyze pg_temp.incoming_invoice_lines;

    create temporary table intake_lines on commit drop as
    select l.*, c.id as contractor_id, row_number() over (partition by l.number order by l.line)::integer as line_no
    from pg_temp.incoming_invoice_lines as l
    left join billing.contractors as c on c.company_id = p_company and c.name = l.contractor;

    create temporary table intake on commit drop as
    select i.*, f.facility_id, backfill.business_id('invoice', p_company::text, i.number) as invoice_id,
        i.sent_on::timestamp at time zone p_time_zone as sent_at, s.invoice_number is not null as staged, null::text as reason,
        row_number() over (partition by i.number order by i.line) as place,
        array_agg(i.line) over (partition by i.number order by i.line rows between unbounded preceding and unbounded following) as lines
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
    left join staging.invoices as s on s.company_id = p_company and s.invoice_number = i.number and s.withdrawn is null;
    analyze pg_temp.intake;
    -- A row that cannot be read gives its number all the same: none is taken in its stead.
    if exists (select from pg_temp.incoming_unread) then
        update pg_temp.intake as n
        set lines = u.lines, place = array_position(u.lines, n.line)
        from (
            select b.number, array_agg(b.line order by b.line) as lines
            from (
                select r.number, r.line from pg_temp.incoming_unread as r
                union all
                select i.number, i.line from pg_temp.incoming_invoices as i
                where i.number in (select r.number from pg_temp.incoming_unread as r)
            ) as b
            group by b.number
        ) as u
        where u.number = n.number;
    end if;

    update pg_temp.intake as i
    set reason = r.reason
    from (
        select n.line, concat_ws('; ',
            case when n.place > 1 and p_first_wins then format('%s is on line %s already, which goes first', n.number, n.lines[1])
                when cardinality(n.lines) > 1 and not p_first_wins
                    then format('%s is on lines %s', n.number, array_to_string(n.lines, ' and ')) end,
            case when n.facility_id is null then format('client %s is no facility, or more than one: give an alias (--aliases)', n.client) end,
            case when billing.invoice_ordinal(n.number) is null then format('number %s has no numeric part', n.number) end,
            case when n.total_cents <= 0 then 'its total is not positive' end,
            case when n.due_date < n.sent_on then format('due on %s, before it was issued on %s', n.due_date, n.sent_on) end,
            case when n.period_end < n.period_start
                then format('its period ends on %s, before it begins on %s', n.period_end, n.period_start) end,
            case when p_lines_file is not null and l.cents is distinct from n.total_cents then format('its total is %s, its lines make %s',
                to_char(n.total_cents / 100.0, 'FM999,999,999,990.00'), coalesce(to_char(l.cents / 100.0, 'FM999,999,999,990.00'), 'nothing')) end,
            l.strangers
        ) as reason
        from pg_temp.intake as n
        left join (
            select number, sum(amount_cents) as cents, string_agg(format('contractor %s (line %s of the lines) is unknown in billing.contractors', contractor, line), '; ' order by line)
                filter (where contractor is not null and contractor_id is null) as strangers
            from pg_temp.intake_lines
            group by number
        ) as l on l.number = n.number
    ) as r
    where r.line = i.line and r.reason <> '';

    update pg_temp.intake as i
    set reason = format('it was loaded before with another payload: %s', d.differences)
    from (
        select n.line, backfill.staged_differences(
            row(p_company, n.number, n.invoice_id, n.facility_id, n.period_start, n.period_end, n.sent_at, n.due_date, n.total_cents,
                p_actor, null, null, null)::staging.invoices,
            case when p_lines_file is null then jsonb_build_array(jsonb_build_object('description', staging.summary_line(n.number),
                    'contractor_id', null, 'week_start', null, 'hours', null, 'rate_cents', null, 'amount_cents', n.total_cents))
                else (
                    select jsonb_agg(jsonb_build_object('description', l.description, 'contractor_id', l.contractor_id,
                        'week_start', l.week_start, 'hours', l.hours, 'rate_cents', l.rate_cents, 'amount_cents', l.amount_cents)
                        order by l.line_no)
                    from pg_temp.intake_lines as l where l.number = n.number
                ) end
        ) as differences
        from pg_temp.intake as n
        where n.staged and n.reason is null
    ) as d
    where d.line = i.line and d.differences is not null;

    delete from staging.invoice_documents as d using pg_temp.intake as n
    where d.company_id = p_company and d.invoice_number = n.number and n.reason is null and not n.staged;
    delete from staging.invoice_lines as l using pg_temp.intake as n
    where l.company_id = p_company and l.invoice_number = n.number and n.reason is null and not n.staged;
    delete from staging.invoices as s using pg_temp.intake as n  -- withdrawn before
    where s.company_id = p_company and s.invoice_number = n.number and n.reason is null and not n.staged;
    insert into staging.invoices (company_id, invoice_number, invoice_id, facility_id, period_start, period_end, sent_at,
        due_date, total_cents, actor, file_sha256, line)
    select p_company, n.number, n.invoice_id, n.facility_id, n.period_start, n.period_end, n.sent_at, n.due_date, n.total_cents,
        p_actor, p_file, n.line
    from pg_temp.intake as n
    where n.reason is null and not n.staged;
    insert into staging.invoice_lines (company_id, invoice_number, line_no, description, contractor_id, week_start, hours,
        rate_cents, amount_cents, file_sha256, line)
    select p_company, l.number, l.line_no, l.description, l.contractor_id, l.week_start, l.hours, l.rate_cents, l.amount_cents,
        p_lines_file, l.line
    from pg_temp.intake_lines as l
    join pg_temp.intake as n on n.number = l.number and n.reason is null and not n.staged
    union all
    select p_company, n.number, 1, staging.summary_line(n.number), null, null, null, null, n.total_cents, p_file, n.line
    from pg_temp.intake as n
    where n.reason is null and not n.staged and p_lines_file is null;

    perform staging.analyze_tables('staging.invoices', 'staging.invoice_lines');

    insert into pg_temp.intake_rejects (kind, source_key, line, reason, cents)
    select 'invoices', n.number, n.line, n.reason, n.total_cents from pg_temp.intake as n where n.reason is not null;
    insert into pg_temp.intake_rejects (kind, source_key, line, reason, cents)
    select 'lines', l.number, l.line, format('there is no invoice %s in the file', l.number), l.amount_cents
    from pg_temp.intake_lines as l
    where not exists (select from pg_temp.intake as n where n.number = l.number);

    select jsonb_build_object(
        'invoices', (select jsonb_object_agg(b.bucket, jsonb_build_object('rows', b.n, 'cents', b.cents)) from (
            select case when reason is not null then 'rejected' when staged then 'matched' else 'created' end as bucket,
                count(*) as n, sum(total_cents) as cents
            from pg_temp.intake group by 1) as b),
        'lines', (select jsonb_object_agg(b.bucket, jsonb_build_object('rows', b.n, 'cents', b.cents)) from (
            select case when n.number is null then 'rejected' when n.reason is not null then 'skipped'
                    when n.staged then 'matched' else 'created' end as bucket,
                count(*) as n, sum(l.amount_cents) as cents
            from pg_temp.intake_lines as l
            left join (select distinct on (number) number, reason, staged from pg_temp.intake order by number, reason nulls first) as n
                on n.number = l.number
            group by 1) as b))
    into v_buckets;
    return v_buckets;
end;
$$;
comment on function staging.take_invoices(uuid, text, text, text, text, boolean) is
'Stages the incoming invoices of one file (and of a second one with lines; null: one summary line each). Every row ends in one
bucket: created, matched (staged before, the same), skipped (a line of a rejected invoice) or rejected, with its reason in
intake_rejects. Returns rows and cents of the buckets.';

create function staging.summary_line(p_number text) returns text
language sql immutable parallel safe
return 'Total of invoice ' || p_number || ' as issued';
comment on function staging.summary_line(text) is 'Description of the one line of an invoice whose lines are not known.';

create function staging.record_documents(p_documents jsonb) returns backfill.backfill_log
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run uuid;
begin
    v_run := backfill.begin_run('invoice documents', p_subject => jsonb_build_object('documents', jsonb_array_length(p_documents)));
    insert into staging.invoice_documents (company_id, invoice_number, file_name, sha256, bytes, stored_path)
    select d.company_id, d.invoice_number, d.file_name, d.sha256, d.bytes, d.stored_path
    from jsonb_to_recordset(p_documents) as d (company_id uuid, invoice_number text, file_name text, sha256 text,
        bytes bigint, stored_path text)
    on conflict (company_id, invoice_number) do nothing;
    update billing.invoices as i
    set pdf_storage_path = d.stored_path
    from jsonb_to_recordset(p_documents) as d (company_id uuid, invoice_number text, stored_path text)
    join staging.invoices as s on s.company_id = d.company_id and s.invoice_number = d.invoice_number
    where i.id = s.invoice_id and i.pdf_storage_path is null;
    return backfill.finish_run();
end;
$$;
comment on function staging.record_documents(jsonb) is
'Writes down, as a run, which originals are in the store and were read back: [{company_id, invoice_number, file_name, sha256,
bytes, stored_path}], and sets the path of the invoices that are there already; those to come get it when they are written.';

revoke execute on all functions in schema staging from public;
do $do$
begin
    perform backfill.grant_to('backfill_operator', 'execute on function staging.begin_invoices()');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.client_key(text)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.summary_line(text)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.take_aliases(uuid)');
    perform backfill.grant_to('backfill_operator',
        'execute on function staging.take_invoices(uuid, text, text, text, text, boolean)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.record_documents(jsonb)');
end;
$do$;
