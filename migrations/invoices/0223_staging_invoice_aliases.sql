-- How a loader begins, and how the names under which clients appear in its file are kept.
-- Safe: functions only.
-- depends: 0222_billing_invoice_void

create function staging.client_key(p_name text) returns text
language sql immutable parallel safe
return lower(btrim(regexp_replace(p_name, '\s+', ' ', 'g')));
comment on function staging.client_key(text) is 'A client''s name as aliases keep it: lower case, blanks collapsed.';

create function staging.begin_invoices() returns void
language sql volatile
security definer
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
        total_cents bigint not null,
        currency text not null,
        paid_cents bigint not null
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
        kind text not null, source_key text not null, line bigint, reason text not null, cents bigint, currency text
    ) on commit drop;
    -- Of this session alone, and of the engine's owner: what hangs on them is his.
    grant insert on incoming_invoices, incoming_invoice_lines, incoming_unread, incoming_aliases to public;
    grant select on intake_rejects to public;
$$;
comment on function staging.begin_invoices() is
'Makes the temporary tables into which a loader copies parsed rows: incoming_invoices, incoming_invoice_lines, incoming_aliases;
and incoming_unread for the company''s rows that cannot be typed: their numbers count as given.';

create function billing.keep_facility_aliases(p_company uuid, p_aliases jsonb) returns bigint
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    with kept as (
        insert into billing.facility_aliases (company_id, alias, facility_id)
        select p_company, g.alias, g.facility_id
        from jsonb_to_recordset(p_aliases) as g (alias text, facility_id uuid)
        on conflict (company_id, alias) do update set facility_id = excluded.facility_id
        where facility_aliases.facility_id <> excluded.facility_id
        returning 1
    )
    select count(*) from kept
$$;
comment on function billing.keep_facility_aliases(uuid, jsonb) is
'Keeps names under which a company''s facilities appear in files, [{alias, facility_id}]; the last one given for a name stands.
How many are new or changed.';

create function staging.take_aliases(p_company uuid) returns bigint
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_kept bigint;
begin
    perform backfill.require_own_temp('incoming_aliases', 'intake_rejects');
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
