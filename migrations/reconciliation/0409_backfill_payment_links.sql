-- Backfill "payment_links": unlinked payments get their invoice where there is no doubt; the rest is for review.
-- Safe: views and a function; it writes only invoice_id of payments that have none.
-- depends: 0408_billing_payment_candidates

create view backfill.payment_links_due as
select
    payment_id,
    invoice_id,
    invoice_number,
    found_by,
    amount_cents::bigint as cents,
    currency
from billing.payment_candidates
where
    same_currency and same_customer and amount_cents <= uncovered_cents
    and (
        (found_by = 'number' and numbers_named = 1 and claimed_by_number_cents <= uncovered_cents)
        or (
            found_by = 'amount' and numbers_named = 0 and in_window and invoices_of_amount = 1
            and payments_for_invoice = 1
        )
    );

comment on view backfill.payment_links_due is
'Payments that are still to be linked, with the one invoice they are for: the only one that the reference names and that the
payments naming it do not exceed, or where it names none, the only one of the customer, currency and amount in the window.';
comment on column backfill.payment_links_due.payment_id is 'The payment.';
comment on column backfill.payment_links_due.invoice_id is 'The invoice.';
comment on column backfill.payment_links_due.invoice_number is 'Its number.';
comment on column backfill.payment_links_due.found_by is 'number or amount.';
comment on column backfill.payment_links_due.cents is 'Amount of the payment.';
comment on column backfill.payment_links_due.currency is 'Its currency.';

create view billing.payment_review as
select
    p.id as payment_id,
    p.company_id,
    p.customer_id,
    p.amount_cents,
    p.currency,
    p.paid_at,
    row_number() over (
        partition by p.id
        order by
            c.found_by = 'number' desc, c.same_customer desc, c.same_currency desc,
            c.amount_cents = c.uncovered_cents desc,
            c.in_window desc,
            abs(c.paid_on - c.issued_on) asc,
            c.invoice_number asc
    ) as rank,
    c.invoice_id,
    c.invoice_number,
    c.uncovered_cents,
    case
        when c.payment_id is null then 'no invoice is named, and none has this customer, currency and open amount'
        else concat_ws(
                '; ',
                case when c.numbers_named > 1 then format('the reference names %s invoices', c.numbers_named) end,
                case when c.found_by = 'amount' and c.numbers_named > 0 then 'the reference names another invoice' end,
                case when not c.same_currency then 'another currency' end,
                case when not c.same_customer then 'another customer' end,
                case when c.amount_cents > c.uncovered_cents then 'more than is open' end,
                case
                    when c.found_by = 'number' and c.amount_cents <= c.uncovered_cents
                        and c.claimed_by_number_cents > c.uncovered_cents
                        then 'several payments name it and together exceed it'
                end,
                case when c.found_by = 'amount' and not c.in_window then 'not within 92 days of issue' end,
                case
                    when c.found_by = 'amount' and c.invoices_of_amount > 1
                        then format('%s invoices of this amount', c.invoices_of_amount)
                end,
                case
                    when c.found_by = 'amount' and c.payments_for_invoice > 1
                        then format('%s payments could be for it', c.payments_for_invoice)
                end
            )
    end as doubt
from billing.payments as p
left join billing.payment_candidates as c on p.id = c.payment_id
where
    p.invoice_id is null and p.status in ('pending', 'succeeded')
    and not exists (
        select 1 from backfill.payment_links_due as d
        where d.payment_id = p.id
    );

comment on view billing.payment_review is
'Unlinked payments that a person must decide on, with ranked candidates. Decide: select billing.link_payment(payment_id,
invoice_id, ''why''). Grain: one row for each payment and candidate, or one for a payment without any.';
comment on column billing.payment_review.payment_id is 'The payment.';
comment on column billing.payment_review.company_id is 'Its company.';
comment on column billing.payment_review.customer_id is 'Its customer, where known.';
comment on column billing.payment_review.amount_cents is 'Amount in cents.';
comment on column billing.payment_review.currency is 'Currency.';
comment on column billing.payment_review.paid_at is 'When it was paid.';
comment on column billing.payment_review.rank is '1 is the likeliest.';
comment on column billing.payment_review.invoice_id is 'A candidate; null where there is none.';
comment on column billing.payment_review.invoice_number is 'Its number.';
comment on column billing.payment_review.uncovered_cents is 'What of it is not covered.';
comment on column billing.payment_review.doubt is 'Why it was not linked by itself.';

create function backfill.payment_links(p_parameters jsonb default '{}') returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_found jsonb;
    v_number bigint := 0;
    v_amount bigint := 0;
begin
    loop
        -- A link covers an invoice, which may leave another payment with a single candidate.
        with linked as (
            update billing.payments as p
            set invoice_id = d.invoice_id
            from backfill.payment_links_due as d
            where p.id = d.payment_id and p.invoice_id is null
            returning d.found_by
        )
        select jsonb_build_object('number', count(*) filter (where found_by = 'number'),
            'amount', count(*) filter (where found_by = 'amount'))
        into v_found from linked;
        v_number := v_number + (v_found ->> 'number')::bigint;
        v_amount := v_amount + (v_found ->> 'amount')::bigint;
        exit when v_found = '{"number": 0, "amount": 0}';
    end loop;
    return jsonb_build_object('linked_by_number', v_number, 'linked_by_amount', v_amount);
end;
$$;

comment on function backfill.payment_links(jsonb) is
'Links what backfill.payment_links_due shows, and what that makes certain. As a run: select * from backfill.run(''payment_links'');';

do $do$
begin
    perform backfill.register(
        'payment_links', 'reconciliation', 'Payments that name or fit exactly one invoice get their link', 420,
        'backfill.payment_links_due', 'backfill.payment_links', '{billing.payments}', p_settled => 'billing.payments.paid_at', p_dimensions => '{paid_at,customer_id}'
    );
end;
$do$;
