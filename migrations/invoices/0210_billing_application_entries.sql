-- Money applied to invoices, in rows: what is kept of it beyond the application's own table of checks, what a person said no to, and
-- up to what a rest is written off by itself.
-- Safe: new tables and views; new columns are nullable and have no default: a table of the application is not rewritten. Writers to
-- billing.payments wait while its index is built.
-- depends: 0209_billing_invoice_forward

create function billing.is_currency(p_code text) returns boolean
language sql immutable parallel safe
return length(p_code) = 3 and strpos(
    'AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF
CHF CLF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD
HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL
LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR
PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP
TRY TTD TWD TZS UAH UGX USD UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG ATS BEF
CYP DEM EEK ESP FIM FRF GRD HRK IEP ITL LTL LUF LVL MTL NLG PTE SIT SKK',
    p_code
) > 0;

comment on function billing.is_currency(text) is
'Whether a code is a currency: ISO 4217, and those that the euro replaced, because files of the past name them.';

do $do$
begin
    perform backfill.create_baseline_column('billing.settings', 'currency', 'text');
    perform backfill.create_baseline_column('billing.check_payments', 'currency', 'text');
    perform backfill.create_baseline_column('billing.check_payments', 'returned_on', 'date');
    perform backfill.create_baseline_column('billing.check_payment_applications', 'effective_from', 'date');
    perform backfill.create_baseline_column('billing.check_payment_applications', 'reason', 'text');
    perform backfill.create_baseline_column('billing.check_payment_applications', 'run_id', 'uuid');
end;
$do$;

create function billing.company_currency(p_company uuid) returns text
language sql stable parallel safe
return coalesce(
    (
        select s.currency from billing.settings as s
        where s.company_id = p_company
    ),
    (
        select (regexp_match(pg_get_expr(d.adbin, d.adrelid), '^''([A-Z]{3})'''))[1]
        from pg_catalog.pg_attrdef as d
        inner join pg_catalog.pg_attribute as a on d.adrelid = a.attrelid and d.adnum = a.attnum
        where d.adrelid = 'billing.invoices'::regclass and a.attname = 'currency'
    )
);

comment on function billing.company_currency(uuid) is
'Currency of a company''s money that names none: billing.settings.currency, else the default of billing.invoices.currency.';

create table billing.application_entries (
    id uuid primary key,
    company_id uuid not null references billing.companies (id),
    source text not null check (source in ('check', 'payment', 'credit', 'write-off')),
    source_id uuid not null,
    invoice_id uuid not null references billing.invoices (id),
    amount_cents bigint not null check (amount_cents > 0),
    currency text,
    said_paid_cents bigint not null default 0,
    effective_from date not null,
    effective_until date,
    reason_code text,
    reason text not null check (btrim(reason) <> ''),
    ended_reason text,
    run_id uuid default backfill.open_run(),
    check (said_paid_cents between 0 and amount_cents),
    constraint not_ended_before_it_began check (effective_until >= effective_from),
    check ((effective_until is null) = (ended_reason is null)),
    -- What a check pays now stands in the application's own table.
    check (source <> 'check' or effective_until is not null),
    check ((source = 'write-off') = (reason_code is not null))
);
create index application_entries_invoice on billing.application_entries (invoice_id);
create index application_entries_source on billing.application_entries (source_id);
create index application_entries_short_pay on billing.application_entries (company_id, currency, effective_from)
where source = 'write-off' and reason_code = 'short-pay' and effective_until is null;
comment on index billing.application_entries_short_pay is 'How much of the limit of a year is used.';
comment on index billing.application_entries_invoice is 'What was applied to an invoice.';
comment on index billing.application_entries_source is 'What was applied of a payment, check or credit.';

comment on table billing.application_entries is
'Money applied to invoices: payments, credits and write-offs, and what checks paid until it was ended. What checks pay now
stands in billing.check_payment_applications. Read both through billing.applications; write through billing.apply() and its kind.';
comment on column billing.application_entries.id is 'Computed from source, invoice and how often it was applied before.';
comment on column billing.application_entries.company_id is 'Company of the invoice.';
comment on column billing.application_entries.source is 'What was applied: check, payment, credit, write-off.';
comment on column billing.application_entries.source_id is
'Id of the check, the payment, the credit (an invoice). Of a write-off: what paid short, or the invoice where a person wrote off.';
comment on column billing.application_entries.invoice_id is 'The invoice that it was applied to.';
comment on column billing.application_entries.amount_cents is 'How much, in the currency''s minor unit.';
comment on column billing.application_entries.currency is 'Currency of the source and of the invoice; null where neither says one.';
comment on column billing.application_entries.said_paid_cents is
'How much of it the invoice said was paid already, without a row: amount_paid_cents rose by the rest only.';
comment on column billing.application_entries.effective_from is
'From which day it counts: the day on which the money was received or the invoice issued, whichever is later.';
comment on column billing.application_entries.effective_until is
'From which day it counts no longer; null: it stands. The same as effective_from: it never should have been.';
comment on column billing.application_entries.reason_code is 'Of a write-off: short-pay where it was written by itself, else a person''s.';
comment on column billing.application_entries.reason is 'Why it was applied.';
comment on column billing.application_entries.ended_reason is 'Why it was ended.';
comment on column billing.application_entries.run_id is 'The run that applied it; null: it was applied outside a run.';

create table billing.application_refusals (
    company_id uuid not null references billing.companies (id),
    source text not null check (source in ('check', 'payment', 'credit')),
    source_id uuid not null,
    invoice_id uuid not null references billing.invoices (id),
    reason text not null check (btrim(reason) <> ''),
    withdrawn text check (btrim(withdrawn) <> ''),
    primary key (source_id, invoice_id)
);
comment on table billing.application_refusals is
'What a person said no to: this money is not for this invoice. Nothing applies it there by itself until the no is withdrawn.';
comment on column billing.application_refusals.company_id is 'Company of the invoice.';
comment on column billing.application_refusals.source is 'check, payment or credit.';
comment on column billing.application_refusals.source_id is 'Its id.';
comment on column billing.application_refusals.invoice_id is 'The invoice that it is not for.';
comment on column billing.application_refusals.reason is 'Why not.';
comment on column billing.application_refusals.withdrawn is 'Why that is no longer so; null: it holds.';

create table billing.write_off_tolerances (
    company_id uuid not null references billing.companies (id),
    currency text not null check (billing.is_currency(currency)),
    tolerance_cents bigint not null default 0 check (tolerance_cents >= 0),
    limit_cents bigint check (limit_cents >= 0),
    primary key (company_id, currency)
);
comment on table billing.write_off_tolerances is
'What a company writes off by itself where an invoice is paid short. Without a row: nothing.';
comment on column billing.write_off_tolerances.company_id is 'The company.';
comment on column billing.write_off_tolerances.currency is 'For invoices in this currency.';
comment on column billing.write_off_tolerances.tolerance_cents is 'The largest rest of one invoice that is written off by itself, in minor units.';
comment on column billing.write_off_tolerances.limit_cents is
'The largest sum of such rests on the invoices of one facility and calendar year, in minor units; null: no limit in sum.';

do $do$
begin
    -- A column of ours holds what is a currency; one that was here before is looked at where money is applied.
    if exists (select from backfill.baseline where relation = 'billing.check_payments.currency') then
        alter table billing.check_payments
        add constraint check_payments_currency_is_known check (billing.is_currency(currency)) not valid;
        alter table billing.check_payments validate constraint check_payments_currency_is_known;
    end if;
    perform backfill.track('billing.check_payments', p_currency => 'currency');
    -- By which run is not what a plan can say before it is applied.
    perform backfill.track('billing.check_payment_applications', p_stamped => '{run_id}');
    perform backfill.track('billing.application_entries', '{source,source_id,invoice_id,effective_from}', 'amount_cents', 'currency',
        '{run_id}');
    perform backfill.track('billing.application_refusals', '{source_id,invoice_id}', null);
    perform backfill.track('billing.write_off_tolerances', '{currency}', null);
end;
$do$;

create function billing.day_of(p_moment timestamptz) returns date
language sql immutable parallel safe
return (p_moment at time zone 'UTC')::date;

comment on function billing.day_of(timestamptz) is 'The day of a moment, by UTC.';

create index payments_invoice on billing.payments (invoice_id) where invoice_id is not null;
comment on index billing.payments_invoice is 'What was paid on an invoice.';

create view billing.application_rows as
select
    e.id,
    e.company_id,
    e.source,
    e.source_id,
    e.invoice_id,
    e.amount_cents,
    e.effective_from,
    e.effective_until,
    e.reason_code,
    e.reason,
    e.ended_reason,
    e.run_id,
    false as linked,
    e.said_paid_cents
from billing.application_entries as e
union all
select
    a.id,
    a.company_id,
    'check' as source,
    a.check_payment_id as source_id,
    a.invoice_id,
    a.amount_cents::bigint as amount_cents,
    coalesce(
        a.effective_from, greatest(c.received_on, billing.day_of(coalesce(i.sent_at, i.created_at)))
    ) as effective_from,
    null::date as effective_until,
    null as reason_code,
    a.reason,
    null as ended_reason,
    a.run_id,
    false as linked,
    0::bigint as said_paid_cents
from billing.check_payment_applications as a
left join billing.check_payments as c on a.check_payment_id = c.id
left join billing.invoices as i on a.invoice_id = i.id
union all
-- A link that the application itself made: the whole payment.
select
    p.id,
    p.company_id,
    'payment' as source,
    p.id as source_id,
    p.invoice_id,
    p.amount_cents::bigint as amount_cents,
    greatest(billing.day_of(p.paid_at), billing.day_of(coalesce(i.sent_at, i.created_at))) as effective_from,
    null::date as effective_until,
    null as reason_code,
    'linked by the application' as reason,
    null as ended_reason,
    null::uuid as run_id,
    true as linked,
    0::bigint as said_paid_cents
from billing.payments as p
left join billing.invoices as i on p.invoice_id = i.id
where
    p.invoice_id is not null and p.status in ('pending', 'succeeded')
    and not exists (
        select from billing.application_entries as e
        where e.source_id = p.id and e.source = 'payment' and e.effective_until is null
    );

comment on view billing.application_rows is
'Every row of money applied to an invoice, wherever it is kept, without what invoices only say to be paid: see billing.applications.';
comment on column billing.application_rows.id is 'Names the row: for billing.unapply(). Of a link it is the payments id, of an opening the invoices.';
comment on column billing.application_rows.company_id is 'The company.';
comment on column billing.application_rows.source is 'check, payment or credit; of an application also write-off or opening.';
comment on column billing.application_rows.source_id is 'Id of the check, the payment or the credit.';
comment on column billing.application_rows.invoice_id is 'The invoice.';
comment on column billing.application_rows.amount_cents is 'The amount, in the minor unit of its currency.';
comment on column billing.application_rows.effective_from is 'From which day it counts.';
comment on column billing.application_rows.effective_until is 'From which day it counts no longer; null: it stands.';
comment on column billing.application_rows.reason_code is 'Of a write-off: short-pay, or a persons.';
comment on column billing.application_rows.reason is 'Why it was applied.';
comment on column billing.application_rows.ended_reason is 'Why it was ended.';
comment on column billing.application_rows.run_id is 'The run that applied it; null: outside a run, or not by us.';
comment on column billing.application_rows.linked is 'The application itself linked the payment.';
comment on column billing.application_rows.said_paid_cents is 'How much of it the invoice said was paid already.';
