-- Months of rent: the calculation's, the one lived in after it, the one that a bill is for, and who lives there then.
-- Safe: functions only.
-- depends: 0301_rent_baseline

create function rent.month_start(p_period text) returns date
language sql immutable parallel safe
return make_date(left(p_period, 4)::integer, right(p_period, 2)::integer, 1);

comment on function rent.month_start(text) is 'First day of a period YYYY-MM.';

create function rent.next_period(p_period text, p_months integer default 1) returns text
language sql immutable parallel safe
return to_char(rent.month_start(p_period) + make_interval(months => p_months), 'YYYY-MM');

comment on function rent.next_period(text, integer) is
'The period so many months later: the month lived in is the one after the calculation''s.';

create function rent.bill_period(p_bill_date date) returns text
language sql immutable parallel safe
return to_char(
    p_bill_date - case when extract(day from p_bill_date) >= 25 then interval '0' else interval '1 month' end, 'YYYY-MM'
);

comment on function rent.bill_period(date) is
'Month whose electricity a bill is for: the due month from day 25 on, else the month before.';

create function rent.lives_there(p_start date, p_departure date, p_period text, p_lived text) returns boolean
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select (p_start is null or p_start < rent.month_start(rent.next_period(greatest(p_period, p_lived))))
        and (p_departure is null or p_departure >= rent.month_start(least(p_period, p_lived)));
$$;

comment on function rent.lives_there(date, date, text, text) is
'Did a tenant live there on at least one day of the rent month or of the month lived in?';
