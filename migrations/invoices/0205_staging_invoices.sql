-- The invoice catalogue as it was loaded: invoices, their lines, their original documents, and the names
-- under which clients appear in it.
-- Safe: new tables only. A staged invoice cannot be taken out while the invoice made of it stands.
-- depends: 0204_billing_invoice_rules

create table staging.invoices (
    company_id uuid not null,
    -- Text as it was issued; its numeric part is what counts for the watermark.
    invoice_number text not null constraint number_has_a_numeric_part
    check (billing.invoice_ordinal(invoice_number) is not null and invoice_number = btrim(invoice_number)),
    invoice_id uuid not null unique,
    facility_id uuid not null,
    period_start date not null,
    period_end date not null,
    sent_at timestamptz not null,
    due_date date not null,
    total_cents bigint not null constraint total_is_not_nothing check (total_cents <> 0),
    actor text not null check (actor <> ''),
    file_sha256 text,
    line bigint,
    withdrawn text,
    currency text not null,
    paid_cents bigint not null default 0,
    primary key (company_id, invoice_number),
    constraint period_ends_after_it_begins check (period_end >= period_start),
    constraint paid_is_within_the_total check (paid_cents between 0 and greatest(total_cents, 0)),
    -- A day of grace, because sent_at may stand in any time zone.
    constraint not_due_before_it_was_issued check (due_date >= (sent_at at time zone 'UTC')::date - 1)
);
create unique index invoices_number_in_any_case on staging.invoices (company_id, upper(invoice_number));
create index invoices_period on staging.invoices (company_id, facility_id, period_start, period_end);

comment on table staging.invoices is 'Invoices from before the application, as loaded or given; what backfill.invoices writes.';
comment on column staging.invoices.company_id is 'Who issued it.';
comment on column staging.invoices.invoice_number is 'Its own number, unique in the company.';
comment on column staging.invoices.invoice_id is 'The id that its row in billing.invoices has or will have: backfill.business_id(''invoice'', company, number).';
comment on column staging.invoices.facility_id is 'Whom it was issued to.';
comment on column staging.invoices.period_start is 'First day of the billed period.';
comment on column staging.invoices.period_end is 'Last day of the billed period.';
comment on column staging.invoices.sent_at is 'Issue date: its midnight in the time zone named when it was loaded.';
comment on column staging.invoices.due_date is 'When it was due.';
comment on column staging.invoices.total_cents is 'Its total, equal to the sum of its lines, in the minor unit of its currency; below zero: a credit.';
comment on column staging.invoices.currency is 'Its currency, as the file says it or the company''s.';
comment on column staging.invoices.paid_cents is 'What of it the file says was paid, taken so on purpose: --paid-as paid.';
comment on column staging.invoices.actor is 'Who loaded or gave it.';
comment on column staging.invoices.file_sha256 is 'The file it came from, see staging.file; null: given to backfill.backfill_invoice.';
comment on column staging.invoices.line is 'Line in that file.';
comment on column staging.invoices.withdrawn is 'Why it is no longer to be written; null = it stands.';

create table staging.invoice_lines (
    company_id uuid not null,
    invoice_number text not null,
    line_no integer not null check (line_no > 0),
    description text not null,
    contractor_id uuid,
    week_start date,
    hours numeric(9, 2),
    rate_cents bigint,
    amount_cents bigint not null,
    currency text not null,
    file_sha256 text,
    line bigint,
    primary key (company_id, invoice_number, line_no),
    foreign key (company_id, invoice_number) references staging.invoices (company_id, invoice_number)
);
comment on table staging.invoice_lines is 'Lines of staged invoices: those of a second file, or one summary line equal to the total.';
comment on column staging.invoice_lines.company_id is 'Company of the invoice.';
comment on column staging.invoice_lines.invoice_number is 'Its number.';
comment on column staging.invoice_lines.line_no is 'Place on the invoice, from 1.';
comment on column staging.invoice_lines.description is 'What was billed.';
comment on column staging.invoice_lines.contractor_id is 'Who worked; null where the line names nobody.';
comment on column staging.invoice_lines.week_start is 'First day of the week worked; null: the invoice''s period.';
comment on column staging.invoice_lines.hours is 'Hours worked.';
comment on column staging.invoice_lines.rate_cents is 'Cents an hour.';
comment on column staging.invoice_lines.amount_cents is 'Amount in the minor unit of the invoice''s currency; credits are negative.';
comment on column staging.invoice_lines.currency is 'Currency of its invoice.';
comment on column staging.invoice_lines.file_sha256 is 'The file it came from; null: given by hand.';
comment on column staging.invoice_lines.line is 'Line in that file.';

create table staging.invoice_documents (
    company_id uuid not null,
    invoice_number text not null,
    file_name text not null,
    sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    bytes bigint not null check (bytes > 0),
    stored_path text not null,
    stored_at timestamptz not null default now(),
    primary key (company_id, invoice_number),
    foreign key (company_id, invoice_number) references staging.invoices (company_id, invoice_number)
);
comment on table staging.invoice_documents is 'The original PDFs of staged invoices that are in the document store, each read back and found to be right.';
comment on column staging.invoice_documents.company_id is 'Company of the invoice.';
comment on column staging.invoice_documents.invoice_number is 'Its number.';
comment on column staging.invoice_documents.file_name is 'Name of the file as it was given.';
comment on column staging.invoice_documents.sha256 is 'Of its bytes, as given and as read back from the store.';
comment on column staging.invoice_documents.bytes is 'Its size.';
comment on column staging.invoice_documents.stored_path is 'Path in the store: <facility id>/<number>.pdf.';
comment on column staging.invoice_documents.stored_at is 'When that was written down.';

create function staging.refuse_unstaging() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from billing.invoices where id = old.invoice_id) then
        raise exception 'staged invoice % stays: the invoice made of it stands', old.invoice_number
            using errcode = 'BF005', hint = 'Reverse the run that wrote it first, or delete it with billing.delete_invoice.';
    end if;
    return old;
end;
$$;
comment on function staging.refuse_unstaging() is
'Trigger: a staged invoice stays as long as the invoice made of it (BF005), so that a replay can be compared with it.';

create trigger refuse_unstaging before delete on staging.invoices
for each row execute function staging.refuse_unstaging();

create table billing.facility_aliases (
    company_id uuid not null,
    alias text not null check (alias = lower(btrim(regexp_replace(alias, '\s+', ' ', 'g')))),
    facility_id uuid not null,
    primary key (company_id, alias)
);
comment on table billing.facility_aliases is 'Names under which a facility appears in files of the past.';
comment on column billing.facility_aliases.company_id is 'Whose client it is.';
comment on column billing.facility_aliases.alias is 'The name in lower case, blanks collapsed.';
comment on column billing.facility_aliases.facility_id is 'The facility that is meant.';

do $do$
begin
    perform backfill.track('billing.facility_aliases', '{alias}', null);
    perform backfill.track('staging.invoices', '{invoice_number}', 'total_cents', 'currency');
    perform backfill.track('staging.invoice_lines', '{invoice_number,line_no}', 'amount_cents', 'currency');
    perform backfill.track('staging.invoice_documents', '{invoice_number}', null);
    perform backfill.seal_table('staging.invoices', 'file_sha256', '{invoices}');
    perform backfill.seal_table('staging.invoice_lines', 'file_sha256', '{invoices}');
    perform backfill.seal_table('staging.invoice_documents', 'sha256', '{invoices}');
end;
$do$;

-- Last: from here on whoever writes to these tables of the application waits.
alter table staging.invoices
add foreign key (company_id) references billing.companies (id),
add foreign key (facility_id) references billing.facilities (id);
alter table staging.invoice_lines
add foreign key (contractor_id) references billing.contractors (id);
alter table billing.facility_aliases
add foreign key (company_id) references billing.companies (id),
add foreign key (facility_id) references billing.facilities (id);
