drop function billing.lines_of(jsonb);
drop function billing.line_faults(uuid, jsonb);
drop function billing.amount_text(numeric, text);
drop function billing.number_fit(text, text);
drop function billing.is_bare_number(text);
drop function billing.number_key(text);
drop function billing.number_prefix(text);
drop function billing.number_tail(text);
drop function billing.assignment_of_week(uuid, uuid, uuid, date);
drop function billing.invoice_number(bigint);
drop function billing.invoice_ordinal(text);
drop index billing.invoices_number_in_any_case;
drop index billing.invoices_one_backfill_per_period;
alter table billing.invoices
drop constraint invoices_origin_check,
drop constraint invoices_backfilled_is_receivable;
alter table billing.invoices
add constraint invoices_origin_check check (origin in ('app', 'backfill')) not valid,
add constraint invoices_backfilled_is_receivable check (
    origin <> 'backfill' or (
        status <> 'draft' and sent_at is not null and due_date is not null
        and total_cents <> 0 and amount_paid_cents between 0 and greatest(total_cents, 0)
    )
) not valid;
