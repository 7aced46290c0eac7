-- Backfill "payment_links": unlinked payments get their invoice where there is no doubt; the rest is for review.
-- Safe: views and a function; it writes only invoice_id of payments that have none.
-- depends: 0408_billing_payment_candidates

create view backfill.payment_links_due as
with judged as (
    select
        c.*,
        case
            when c.found_by = 'number' and not c.bare and c.numbers_named = 1
                then c.amount_cents <= c.uncovered_cents and c.claimed_by_number_cents <= c.uncovered_cents
            when c.found_by = 'number' and not c.bare
                then c.all_fit and c.amount_cents = c.named_cents and c.claimed_by_number_cents <= c.uncovered_cents
            when c.found_by = 'number'
                then c.numbers_named = 0 and c.bare_numbers = 1 and c.amount_cents = c.uncovered_cents
                    and c.payments_for_invoice = 1
            else
                c.numbers_named = 0 and c.bare_numbers = 0 and c.in_window and c.invoices_of_amount = 1
                and c.payments_for_invoice = 1
        end as certain
    from billing.payment_candidates as c
    where c.fits and c.uncovered_cents > 0
),

-- Of several that it names all are certain, or none is paid.
whole as (
    select
        j.*,
        count(*) filter (where j.certain) over (partition by j.payment_id) as certain_numbers
    from judged as j
)

select
    w.payment_id,
    w.invoice_id,
    w.invoice_number,
    w.found_by,
    w.claim_cents as cents,
    w.currency
from whole as w
where w.certain and (w.numbers_named <= 1 or w.certain_numbers = w.numbers_named);

comment on view backfill.payment_links_due is
'Payments that are still to be applied, with the invoices they are for. Certain only where customer and currency are known and the same, and: the
reference names one invoice with the letters of its number, and is of its open amount or less; or several that make its amount exactly; or one by
digits alone, of exactly its amount; or names none, and it is the only one of customer, currency and amount in the window. Payments that name an
invoice must not exceed it together.';
comment on column backfill.payment_links_due.payment_id is 'The payment.';
comment on column backfill.payment_links_due.invoice_id is 'The invoice.';
comment on column backfill.payment_links_due.invoice_number is 'Its number.';
comment on column backfill.payment_links_due.found_by is 'number or amount.';
comment on column backfill.payment_links_due.cents is 'What of the payment is applied to it, in the minor unit of its currency.';
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
            c.found_by = 'number' and not c.bare desc, c.same_customer desc, c.same_currency desc,
            c.found_by = 'number' desc,
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
        else coalesce(nullif(concat_ws(
                '; ',
                case when c.refused is not null then format('a person said no: %s', c.refused) end,
                case
                    when c.found_by = 'number' and not c.bare and c.numbers_named > 1
                        and c.amount_cents <> c.named_cents
                        then format(
                                'the reference names %s invoices, of which %s is open', c.numbers_named,
                                billing.amount_text(c.named_cents, c.currency)
                            )
                end,
                case when c.bare then 'digits alone name no invoice' end,
                case when c.ambiguous then 'the number may be another invoice as well' end,
                case
                    when c.found_by = 'amount' and c.numbers_named + c.bare_numbers > 0
                        then 'the reference names another invoice'
                end,
                case when not c.same_currency then 'another currency' end,
                case when not c.same_customer then 'another customer' end,
                case when not c.customers_known then 'the customer of one of them is not known' end,
                case when c.numbers_named <= 1 and c.amount_cents > c.uncovered_cents then 'more than is open' end,
                case when c.bare and c.amount_cents < c.uncovered_cents then 'less than is open' end,
                case
                    when c.found_by = 'number' and not c.bare and c.claim_cents <= c.uncovered_cents
                        and c.claimed_by_number_cents > c.uncovered_cents
                        then 'several payments name it and together exceed it'
                end,
                case
                    when
                        not c.all_fit and c.numbers_named > 1 and c.fits
                        then 'another invoice that it names does not fit'
                end,
                case when c.found_by = 'amount' and not c.in_window then 'not within 92 days of issue' end,
                case
                    when c.found_by = 'amount' and c.invoices_of_amount > 1
                        then format('%s invoices of this amount', c.invoices_of_amount)
                end,
                case
                    when (c.found_by = 'amount' or c.bare) and c.payments_for_invoice > 1
                        then format('%s payments could be for it', c.payments_for_invoice)
                end
            ), ''), 'another invoice that it names is in doubt')
    end as doubt
from billing.payments as p
left join billing.payment_candidates as c on p.id = c.payment_id
where
    p.invoice_id is null and p.status in ('pending', 'succeeded')
    and not exists (
        select from billing.application_entries as e
        where e.source_id = p.id and e.source = 'payment' and e.effective_until is null
    )
    and not exists (
        select 1 from backfill.payment_links_due as d
        where d.payment_id = p.id
    );

comment on view billing.payment_review is
'Payments of which nothing is applied and that a person must decide on, with ranked candidates. Decide: select billing.link_payment(payment_id,
invoice_id, ''why''), or billing.apply() for a part; no: billing.refuse_application(). Grain: one row for each payment and candidate, or one for a payment without any.';
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
    v_reasons jsonb := '{"number": "its reference names the invoice", "amount": "the only invoice of its customer, currency and amount"}';
    v_found record;
    v_short record;
    v_payments uuid[];
    v_invoices uuid[];
    v_count bigint;
    v_counts jsonb := '{"number": 0, "amount": 0, "written_off": 0}';
begin
    loop
        -- A link covers an invoice, which may leave another payment with a single candidate.
        select array_agg(distinct d.payment_id), array_agg(distinct d.invoice_id) into v_payments, v_invoices
        from backfill.payment_links_due as d;
        exit when v_payments is null;
        -- The same order as in an allocation: facilities, invoices, then the money. What is due is judged again behind the locks.
        perform from billing.facilities as f
        where f.id in (select i.facility_id from billing.invoices as i where i.id = any (v_invoices))
        order by f.company_id, f.id
        for no key update;
        perform from billing.invoices as i where i.id = any (v_invoices) order by i.id for no key update;
        perform from billing.payments as p where p.id = any (v_payments) order by p.id for no key update;
        v_count := 0;
        for v_found in
            select d.found_by, count(*) as n, array_agg('payment'::text) as source, array_agg(d.payment_id) as payments,
                array_agg(d.invoice_id) as invoices, array_agg(d.cents) as cents
            from (select * from backfill.payment_links_due order by payment_id, invoice_id) as d
            where d.payment_id = any (v_payments) and d.invoice_id = any (v_invoices)
            group by d.found_by
        loop
            perform billing.record_applications(v_found.source, v_found.payments, v_found.invoices, v_found.cents, v_reasons ->> v_found.found_by);
            v_count := v_count + v_found.n;
            v_counts := jsonb_set(v_counts, array[v_found.found_by], to_jsonb((v_counts ->> v_found.found_by)::bigint + v_found.n));
        end loop;
        exit when v_count = 0;
        -- Paid short: as in an allocation.
        for v_short in
            select b.invoice_id, b.open_cents, max(e.source_id::text)::uuid as payment
            from billing.balances_as_of('infinity', v_invoices) as b
            join billing.write_off_tolerances as t on t.company_id = b.company_id and t.currency = b.currency
            join billing.application_entries as e on e.invoice_id = b.invoice_id and e.source_id = any (v_payments) and e.source = 'payment'
                and e.effective_until is null
            where b.open_cents between 1 and t.tolerance_cents
            group by b.invoice_id, b.open_cents
            order by b.invoice_id
        loop
            if (
                select billing.write_off_room(i.company_id, i.currency, i.facility_id, extract(year from greatest(
                    billing.day_of(p.paid_at), billing.day_of(coalesce(i.sent_at, i.created_at)))::date)::integer, v_short.open_cents)
                from billing.invoices as i, billing.payments as p where i.id = v_short.invoice_id and p.id = v_short.payment
            ) >= v_short.open_cents then
                perform billing.record_applications('{write-off}', array[v_short.payment], array[v_short.invoice_id],
                    array[v_short.open_cents], 'paid short, within the tolerance');
                v_counts := jsonb_set(v_counts, '{written_off}', to_jsonb((v_counts ->> 'written_off')::bigint + 1));
            end if;
        end loop;
    end loop;
    return jsonb_build_object('linked_by_number', v_counts -> 'number', 'linked_by_amount', v_counts -> 'amount',
        'written_off', v_counts -> 'written_off');
end;
$$;

comment on function backfill.payment_links(jsonb) is
'Applies what backfill.payment_links_due shows, and what that makes certain. As a run: select * from backfill.run(''payment_links'');';

do $do$
begin
    perform backfill.register(
        'payment_links', 'reconciliation', 'Payments that name or fit their invoices are applied to them', 420,
        'backfill.payment_links_due', 'backfill.payment_links', '{billing.payments,billing.invoices,billing.application_entries}',
        p_settled => 'billing.payments.paid_at', p_dimensions => '{paid_at,customer_id}'
    );
end;
$do$;
