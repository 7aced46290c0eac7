-- What is unlinked, schedules and mortgages, with suggestions for people.
-- Safe: views only; nothing is ever linked by them.
-- depends: 0509_ledger_balances

create view lending.link_suggestions as
with pairs as (
    select
        s.id as schedule_id,
        m.id as mortgage_id
    from staging.rotessa_schedule as s
    inner join lending.borrowers as b on s.customer_id = b.rotessa_customer_id
    inner join lending.mortgages as m on b.id = m.borrower_id
    union
    select
        s.id as schedule_id,
        m.id as mortgage_id
    from staging.rotessa_schedule as s
    inner join lending.mortgages as m on s.amount_cents = m.payment_cents
),

judged as (
    select
        s.id as schedule_id,
        m.id as mortgage_id,
        m.number as mortgage_number,
        coalesce(b.rotessa_customer_id = s.customer_id, false) as same_customer,
        m.payment_cents = s.amount_cents as same_amount,
        coalesce(lower(m.frequency) = lower(s.frequency), false) as same_frequency,
        s.amount_cents - m.payment_cents as difference_cents
    from pairs as p
    inner join staging.rotessa_schedule as s on p.schedule_id = s.id and not s.gone
    inner join lending.mortgages as m on p.mortgage_id = m.id and m.rotessa_schedule_id is null
    inner join lending.borrowers as b on m.borrower_id = b.id
    where
        not exists (
            select from lending.mortgages as l
            where l.rotessa_schedule_id = s.id
        )
)

select
    schedule_id,
    mortgage_id,
    mortgage_number,
    same_customer and same_amount as exact,
    same_customer,
    same_amount,
    same_frequency,
    difference_cents,
    row_number() over (
        partition by schedule_id
        order by
            same_customer desc, same_amount desc, same_frequency desc, abs(difference_cents) asc, mortgage_number asc
    ) as rank
from judged;

comment on view lending.link_suggestions is
'For people: which mortgage without a schedule an unlinked schedule may belong to, by customer and amount. Nothing is ever linked by
it. Grain: one row for each schedule and mortgage.';
comment on column lending.link_suggestions.schedule_id is 'The schedule.';
comment on column lending.link_suggestions.mortgage_id is 'The mortgage.';
comment on column lending.link_suggestions.mortgage_number is 'Its number.';
comment on column lending.link_suggestions.exact is 'Same customer and same amount.';
comment on column lending.link_suggestions.same_customer is 'The schedule''s customer is the mortgage''s borrower.';
comment on column lending.link_suggestions.same_amount is 'The amounts are equal to the cent.';
comment on column lending.link_suggestions.same_frequency is 'The frequencies are known and equal.';
comment on column lending.link_suggestions.difference_cents is 'Amount of the schedule less that of the mortgage.';
comment on column lending.link_suggestions.rank is '1 is the likeliest for this schedule: customer, then amount, then frequency.';

create view lending.unlinked_schedules as
with suggested as (
    select
        schedule_id,
        count(*) filter (where exact) as exact_suggestions,
        jsonb_agg(
            jsonb_build_object(
                'rank', rank, 'mortgage', mortgage_number, 'mortgage_id', mortgage_id, 'exact', exact,
                'same_customer', same_customer, 'same_amount', same_amount, 'difference_cents', difference_cents
            ) order by rank
        ) filter (where rank <= 5) as suggestions
    from lending.link_suggestions
    group by schedule_id
)

select
    s.id as schedule_id,
    s.customer_id,
    c.name as customer_name,
    s.amount_cents,
    s.frequency,
    s.next_process_date,
    coalesce(g.exact_suggestions, 0) as exact_suggestions,
    coalesce(g.suggestions, '[]') as suggestions
from staging.rotessa_schedule as s
left join staging.rotessa_customer as c on s.customer_id = c.id
left join suggested as g on s.id = g.schedule_id
where
    not s.gone
    and not exists (
        select from lending.mortgages as m
        where m.rotessa_schedule_id = s.id
    );

comment on view lending.unlinked_schedules is
'Schedules that are linked to no mortgage, with the five likeliest mortgages. Grain: one row for each schedule.';
comment on column lending.unlinked_schedules.schedule_id is 'Rotessa''s id.';
comment on column lending.unlinked_schedules.customer_name is 'Name of its customer.';
comment on column lending.unlinked_schedules.exact_suggestions is 'How many mortgages have the same customer and amount; one leaves little doubt.';
comment on column lending.unlinked_schedules.suggestions is
'Up to five, likeliest first: rank, mortgage (number), mortgage_id, exact, same_customer, same_amount, difference_cents.';

create view lending.mortgages_without_schedule as
select
    m.id as mortgage_id,
    m.number as mortgage_number,
    b.name as borrower_name,
    b.rotessa_customer_id,
    m.payment_cents::bigint as payment_cents,
    m.frequency,
    count(g.schedule_id) filter (where g.exact) as exact_suggestions,
    coalesce(
        jsonb_agg(
            g.schedule_id order by g.exact desc, g.same_customer desc, g.rank asc, g.schedule_id asc
        ) filter (where g.rank <= 5), '[]'
    ) as suggested_schedules
from lending.mortgages as m
inner join lending.borrowers as b on m.borrower_id = b.id
left join lending.link_suggestions as g on m.id = g.mortgage_id
where m.rotessa_schedule_id is null
group by m.id, b.id;

comment on view lending.mortgages_without_schedule is 'Mortgages that no schedule is linked to. Grain: one row for each mortgage.';
comment on column lending.mortgages_without_schedule.mortgage_id is 'The mortgage.';
comment on column lending.mortgages_without_schedule.mortgage_number is 'Its number.';
comment on column lending.mortgages_without_schedule.borrower_name is 'Name of its borrower.';
comment on column lending.mortgages_without_schedule.rotessa_customer_id is 'The borrower at Rotessa, where known.';
comment on column lending.mortgages_without_schedule.payment_cents is 'What is due each time.';
comment on column lending.mortgages_without_schedule.frequency is 'How often, where known.';
comment on column lending.mortgages_without_schedule.exact_suggestions is 'How many unlinked schedules have the same customer and amount.';
comment on column lending.mortgages_without_schedule.suggested_schedules is 'Unlinked schedules that may belong to it, likeliest first.';
