-- Backfill "payment_links": unlinked payments get their invoice where there is no doubt; the rest is for review.
-- Safe: views and functions; they write only invoice_id of payments that have none.
-- depends: 0034_billing_profile_backfill

create view billing.uncovered_invoices as
with checks as (
    select
        invoice_id,
        sum(amount_cents) as cents
    from billing.check_payment_applications
    group by invoice_id
),

links as (
    select
        invoice_id,
        sum(amount_cents) as cents
    from billing.payments
    where invoice_id is not null and status in ('pending', 'succeeded')
    group by invoice_id
)

select
    i.id as invoice_id,
    i.company_id,
    i.customer_id,
    i.invoice_number,
    i.currency,
    (coalesce(i.sent_at, i.created_at) at time zone 'UTC')::date as issued_on,
    (i.total_cents - coalesce(a.cents, 0) - coalesce(p.cents, 0))::bigint as uncovered_cents
from billing.invoices as i
left join checks as a on i.id = a.invoice_id
left join links as p on i.id = p.invoice_id
where i.status not in ('draft', 'void');

comment on view billing.uncovered_invoices is
'Issued invoices and what of them no check and no linked payment covers. An application that marks an invoice as paid without
linking the payment leaves it uncovered: that payment is what is looked for.';
comment on column billing.uncovered_invoices.invoice_id is 'The invoice.';
comment on column billing.uncovered_invoices.company_id is 'Its company.';
comment on column billing.uncovered_invoices.customer_id is 'Its customer.';
comment on column billing.uncovered_invoices.invoice_number is 'Its number.';
comment on column billing.uncovered_invoices.currency is 'Its currency.';
comment on column billing.uncovered_invoices.issued_on is 'Day of issue, UTC.';
comment on column billing.uncovered_invoices.uncovered_cents is 'Total less checks applied and payments linked, in cents.';

create view billing.payment_candidates as
with unlinked as (
    select
        id,
        company_id,
        customer_id,
        amount_cents,
        currency,
        reference,
        (paid_at at time zone 'UTC')::date as paid_on
    from billing.payments
    where invoice_id is null and status in ('pending', 'succeeded')
),

named as (
    -- Whole tokens of the reference: INV-14 is not in INV-1499.
    select distinct
        u.id,
        i.invoice_id
    from unlinked as u
    cross join lateral regexp_split_to_table(upper(u.reference), '[\s,;:#()]+') as t (token)
    inner join billing.uncovered_invoices as i
        on u.company_id = i.company_id and btrim(t.token, './-') = upper(i.invoice_number)
),

found as (
    select
        id,
        invoice_id,
        'number' as found_by
    from named
    union all
    select
        u.id,
        i.invoice_id,
        'amount' as found_by
    from unlinked as u
    inner join billing.uncovered_invoices as i
        on
            u.company_id = i.company_id and u.customer_id = i.customer_id and u.currency = i.currency
            and u.amount_cents = i.uncovered_cents
    where
        not exists (
            select 1 from named
            where named.id = u.id and named.invoice_id = i.invoice_id
        )
)

select
    f.id as payment_id,
    f.invoice_id,
    f.found_by,
    i.invoice_number,
    u.amount_cents,
    i.uncovered_cents,
    u.paid_on,
    i.issued_on,
    coalesce(u.currency = i.currency, false) as same_currency,
    coalesce(u.customer_id = i.customer_id, true) as same_customer,
    u.paid_on - i.issued_on between 0 and 92 as in_window,
    count(*) filter (where f.found_by = 'number') over (partition by f.id) as numbers_named,
    count(*) filter (where f.found_by = 'amount' and u.paid_on - i.issued_on between 0 and 92)
        over (partition by f.id) as invoices_of_amount,
    (
        sum(u.amount_cents) filter (where f.found_by = 'number')
            over (partition by f.invoice_id)
    )::bigint as claimed_by_number_cents,
    count(*) filter (where f.found_by = 'number' or u.paid_on - i.issued_on between 0 and 92)
        over (partition by f.invoice_id) as payments_for_invoice
from found as f
inner join unlinked as u on f.id = u.id
inner join billing.uncovered_invoices as i on f.invoice_id = i.invoice_id;

comment on view billing.payment_candidates is
'Unlinked payments (pending, succeeded) and the invoices they may be for: named in the reference, or of the same customer,
currency and open amount. Grain: one row for each payment and invoice.';
comment on column billing.payment_candidates.payment_id is 'The payment.';
comment on column billing.payment_candidates.invoice_id is 'The invoice.';
comment on column billing.payment_candidates.found_by is
'number: its number is a whole token of the reference; amount: customer, currency, open amount.';
comment on column billing.payment_candidates.invoice_number is 'Its number.';
comment on column billing.payment_candidates.amount_cents is 'Amount of the payment.';
comment on column billing.payment_candidates.uncovered_cents is 'What of the invoice is not covered.';
comment on column billing.payment_candidates.paid_on is 'Day of payment, UTC.';
comment on column billing.payment_candidates.issued_on is 'Day of issue, UTC.';
comment on column billing.payment_candidates.same_currency is 'Whether the currencies are the same.';
comment on column billing.payment_candidates.same_customer is 'Whether the customers are the same, or one is not known.';
comment on column billing.payment_candidates.in_window is 'Whether it was paid on the day of issue or up to 92 days later.';
comment on column billing.payment_candidates.numbers_named is 'How many invoices the reference names.';
comment on column billing.payment_candidates.invoices_of_amount is 'How many invoices of the amount there are in the window.';
comment on column billing.payment_candidates.claimed_by_number_cents is 'Sum of the payments whose references name this invoice.';
comment on column billing.payment_candidates.payments_for_invoice is 'How many payments this invoice is a candidate for.';

create view backfill.payment_links_due as
select
    payment_id,
    invoice_id,
    invoice_number,
    found_by,
    amount_cents::bigint as cents
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

create function billing.link_payment(p_payment uuid, p_invoice uuid, p_reason text) returns billing.payments
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment billing.payments;
    v_invoice billing.uncovered_invoices;
    v_why text;
    v_opened boolean;
begin
    if btrim(coalesce(p_reason, '')) = '' then
        raise exception 'linking payment % needs a reason', p_payment using errcode = 'BF033',
            hint = 'select billing.link_payment(payment, invoice, ''why it is this one'');';
    end if;
    perform backfill.take_lock();
    select * into v_payment from billing.payments where id = p_payment for update;
    if not found then
        raise exception 'there is no payment %', p_payment using errcode = 'BF009', hint = 'select * from billing.payment_review;';
    elsif v_payment.invoice_id = p_invoice then
        return v_payment;
    end if;
    perform from billing.invoices where id = p_invoice for update;  -- two payments at once must not exceed it together
    select * into v_invoice from billing.uncovered_invoices where invoice_id = p_invoice;
    v_why := case
        when v_invoice.invoice_id is null then 'there is no such invoice, or it is a draft or void'
        when v_payment.invoice_id is not null then format('it is linked to invoice %s already; reverse that run first', v_payment.invoice_id)
        when v_payment.status not in ('pending', 'succeeded') then format('it is %s', v_payment.status)
        when v_payment.company_id <> v_invoice.company_id then 'they belong to two companies'
        when v_payment.customer_id <> v_invoice.customer_id then 'they belong to two customers'
        when v_payment.currency is distinct from v_invoice.currency
            then format('it is in %s, the invoice in %s', v_payment.currency, coalesce(v_invoice.currency, 'a currency not known'))
        when v_payment.amount_cents > v_invoice.uncovered_cents
            then format('it is of %s cents, and %s cents of the invoice are open', v_payment.amount_cents, v_invoice.uncovered_cents)
    end;
    if v_why is not null then
        raise exception 'payment % cannot be linked to invoice %: %', p_payment, coalesce(v_invoice.invoice_number, p_invoice::text), v_why
            using errcode = 'BF033', hint = 'select * from billing.payment_review where payment_id = ''…'' order by rank;';
    end if;
    v_opened := backfill.ensure_run(format('payment linked to %s: %s', v_invoice.invoice_number, p_reason),
        jsonb_build_object('payment', p_payment, 'invoice', p_invoice, 'reason', p_reason));
    update billing.payments set invoice_id = p_invoice where id = p_payment returning * into v_payment;
    if v_opened then
        perform backfill.finish_run();
    end if;
    return v_payment;
end;
$$;

comment on function billing.link_payment(uuid, uuid, text) is
'Links a payment to an invoice by a person''s decision, as an audited run that can be reversed. Again with the same invoice: a
no-op. Refuses (BF033) another company, customer or currency, a draft or void invoice, and more than is open.';

do $do$
begin
    perform backfill.register(
        'payment_links', 'billing', 'Payments that name or fit exactly one invoice get their link', 310,
        'backfill.payment_links_due', 'backfill.payment_links', '{billing.payments}'
    );
end;
$do$;

revoke execute on all functions in schema backfill from public;
revoke execute on all functions in schema billing from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor',
        'select on billing.uncovered_invoices, billing.payment_candidates, billing.payment_review, backfill.payment_links_due');
    perform backfill.grant_to('backfill_operator', 'execute on function billing.link_payment(uuid, uuid, text)');
end;
$do$;
