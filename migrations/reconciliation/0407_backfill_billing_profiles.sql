-- Backfill "billing_profiles": an invoice gets the one billing profile of its customer that fits it.
-- Safe: views and a function; it writes only invoices whose billing_profile_id is null.
-- depends: 0406_backfill_comparison

create view billing.profile_candidates as
select
    i.id as invoice_id,
    count(p.id) as candidates,
    min(p.id::text)::uuid as billing_profile_id,
    coalesce(
        jsonb_agg(
            jsonb_build_object(
                'profile', p.name, 'id', p.id, 'currency', p.currency, 'valid_from', p.valid_from,
                'valid_to', p.valid_to
            ) order by p.valid_from, p.id
        ) filter (where p.id is not null), '[]'
    ) as fitting
from billing.invoices as i
left join billing.billing_profiles as p
    on
        i.customer_id = p.customer_id and i.company_id = p.company_id and i.currency = p.currency
        and (coalesce(i.sent_at, i.created_at) at time zone 'UTC')::date >= p.valid_from
        and (coalesce(i.sent_at, i.created_at) at time zone 'UTC')::date <= coalesce(p.valid_to, 'infinity')
where i.billing_profile_id is null and i.customer_id is not null and i.created_at < (select backfill.as_of())
group by i.id;

comment on view billing.profile_candidates is
'Invoices of a customer without a billing profile, and the profiles of that customer that fit: same currency, valid on the
day of issue (UTC).';
comment on column billing.profile_candidates.invoice_id is 'The invoice.';
comment on column billing.profile_candidates.candidates is 'How many profiles fit.';
comment on column billing.profile_candidates.billing_profile_id is 'The profile, where exactly one fits.';
comment on column billing.profile_candidates.fitting is 'All that fit.';

create view backfill.billing_profiles_due as
select
    i.id as invoice_id,
    i.company_id,
    i.invoice_number,
    i.customer_id,
    c.billing_profile_id,
    i.total_cents::bigint as cents,
    i.currency
from billing.profile_candidates as c
inner join billing.invoices as i on c.invoice_id = i.id
where c.candidates = 1;

comment on view backfill.billing_profiles_due is 'Invoices that still have to get their billing profile.';
comment on column backfill.billing_profiles_due.invoice_id is 'The invoice.';
comment on column backfill.billing_profiles_due.company_id is 'Its company.';
comment on column backfill.billing_profiles_due.invoice_number is 'Its number.';
comment on column backfill.billing_profiles_due.customer_id is 'Its customer.';
comment on column backfill.billing_profiles_due.billing_profile_id is 'The one profile that fits.';
comment on column backfill.billing_profiles_due.cents is 'Total of the invoice.';
comment on column backfill.billing_profiles_due.currency is 'Its currency.';

create view backfill.billing_profiles_rejects as
select
    'billing.invoices'::text as source,
    i.id::text as source_key,
    null::bigint as line,
    case
        when c.candidates > 1 then format('%s billing profiles fit invoice %s', c.candidates, i.invoice_number)
        when i.currency is null then format('the currency of invoice %s is not known', i.invoice_number)
        else format(
                'no billing profile of the customer fits invoice %s (%s, issued %s)', i.invoice_number, i.currency,
                (coalesce(i.sent_at, i.created_at) at time zone 'UTC')::date
            )
    end as reason,
    i.total_cents::bigint as cents,
    jsonb_build_object(
        'invoice', i.invoice_number, 'customer', i.customer_id, 'candidates', case
            when c.candidates > 1 then c.fitting
            else (
                select
                    coalesce(
                        jsonb_agg(
                            jsonb_build_object(
                                'profile', p.name, 'id', p.id, 'currency', p.currency, 'valid_from', p.valid_from,
                                'valid_to', p.valid_to
                            ) order by p.valid_from, p.id
                        ), '[]'
                    )
                from billing.billing_profiles as p
                where p.customer_id = i.customer_id and p.company_id = i.company_id
            )
        end
    ) as payload,
    i.currency
from billing.profile_candidates as c
inner join billing.invoices as i on c.invoice_id = i.id
where c.candidates <> 1;

comment on view backfill.billing_profiles_rejects is
'Invoices of a customer for which no billing profile fits, or several do. An invoice without a customer is none of these: nobody
could say whose profile it should have.';
comment on column backfill.billing_profiles_rejects.source is 'Always billing.invoices.';
comment on column backfill.billing_profiles_rejects.source_key is 'The invoice''s id.';
comment on column backfill.billing_profiles_rejects.line is 'Null: the source is a table.';
comment on column backfill.billing_profiles_rejects.reason is 'Why.';
comment on column backfill.billing_profiles_rejects.currency is 'Its currency.';
comment on column backfill.billing_profiles_rejects.cents is 'Total of the invoice.';
comment on column backfill.billing_profiles_rejects.payload is
'Candidates: the profiles that fit, or where none does, all profiles of the customer.';

create function backfill.billing_profiles(p_parameters jsonb default '{}') returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
    update billing.invoices as i
    set billing_profile_id = d.billing_profile_id
    from backfill.billing_profiles_due as d
    where i.id = d.invoice_id and i.billing_profile_id is null;
    return '{}';
end;
$$;

comment on function backfill.billing_profiles(jsonb) is
'Writes what backfill.billing_profiles_due shows. Run it as a run: select * from backfill.run(''billing_profiles'');';

create view billing._backfill_profiles as
select
    (c.after ->> 'id')::uuid as invoice_id,
    c.after ->> 'invoice_number' as invoice_number,
    (c.after ->> 'billing_profile_id')::uuid as billing_profile_id,
    c.run_id,
    l.started_at as assigned_at,
    l.actor,
    format(
        'the only profile of customer %s in %s valid on %s', c.after ->> 'customer_id', c.after ->> 'currency',
        (coalesce(c.after ->> 'sent_at', c.after ->> 'created_at')::timestamptz at time zone 'UTC')::date
    ) as reason
from backfill.change_log as c
inner join backfill.backfill_log as l on c.run_id = l.run_id
-- What somebody has changed since, also by hand, stands no longer.
inner join billing.invoices as i
    on (c.after ->> 'id')::uuid = i.id and (c.after ->> 'billing_profile_id')::uuid = i.billing_profile_id
where
    l.backfill = 'billing_profiles' and l.mode = 'apply' and l.status in ('succeeded', 'partial')
    and c.table_name = 'billing.invoices' and c.operation = 'UPDATE'
    and c.before ->> 'billing_profile_id' is null;

comment on view billing._backfill_profiles is
'Every automated assignment of a billing profile that stands, from the audit. To take them back in the SQL editor: see
docs/reconciliation.md, or backfill.reverse_run(run_id).';
comment on column billing._backfill_profiles.invoice_id is 'The invoice.';
comment on column billing._backfill_profiles.invoice_number is 'Its number.';
comment on column billing._backfill_profiles.billing_profile_id is 'The profile that it got.';
comment on column billing._backfill_profiles.run_id is 'The run that gave it.';
comment on column billing._backfill_profiles.assigned_at is 'When.';
comment on column billing._backfill_profiles.actor is 'On whose behalf.';
comment on column billing._backfill_profiles.reason is 'Why this profile.';

do $do$
begin
    perform backfill.register(
        'billing_profiles', 'reconciliation', 'Billing profiles of invoices that were issued without one', 410,
        'backfill.billing_profiles_due', 'backfill.billing_profiles', '{billing.invoices}',
        'backfill.billing_profiles_rejects', p_settled => 'billing.invoices.created_at', p_dimensions => '{created_at,billing_profile_id}'
    );
end;
$do$;
