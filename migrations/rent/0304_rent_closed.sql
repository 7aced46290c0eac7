-- The rent ledger becomes immutable, and a month can be closed.
-- Safe: triggers only. What they refuse from now on: changing or deleting what was billed, other than by reversing
-- the run that wrote it, and every change of a closed month.
-- depends: 0303_rent_audit

create function rent.guard_ledger() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_what text;
begin
    if backfill.in_reversal() then
        return coalesce(new, old);
    end if;
    if tg_op = 'DELETE' then
        v_what := 'the row';
    elsif (new.id, new.tenant, new.period, new.amount_due, new.currency)
        is distinct from (old.id, old.tenant, old.period, old.amount_due, old.currency) then
        v_what := 'what was billed';
    elsif (new.days_stayed, new.room_adjustment, new.base_monthly_rent, new.calculation_title, new.calculation_date,
            new.calculation_version)
        is distinct from (old.days_stayed, old.room_adjustment, old.base_monthly_rent, old.calculation_title,
            old.calculation_date, old.calculation_version) then
        if old.calculation_date is not null then
            v_what := 'the audit fields, which are written once';
        elsif backfill.open_run() is null then
            v_what := 'the audit fields outside a run';
        end if;
    end if;
    if v_what is not null then
        raise exception '% of rent.rent_ledger is refused (%, %): % cannot be changed', tg_op, old.tenant, old.period, v_what
            using errcode = 'BF020',
                hint = 'The ledger is immutable; amount_paid and payment_date are not. Reverse the run that wrote the row.';
    end if;
    return coalesce(new, old);
end;
$$;

comment on function rent.guard_ledger() is
'Trigger: what was billed is never updated or deleted (BF020) but by a reversal in a run. Paying stays possible.';

create function rent.refuse_rewrite() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'TRUNCATE' or not backfill.in_reversal() then
        raise exception '% of %.% is refused: its rows are history', tg_op, tg_table_schema, tg_table_name
            using errcode = 'BF020', hint = 'Reverse the run that wrote the row: select * from backfill.reverse_run(run);';
    end if;
    return coalesce(new, old);
end;
$$;

comment on function rent.refuse_rewrite() is
'Trigger: refuses (BF020) TRUNCATE always, and UPDATE and DELETE but by a reversal in a run.';

create table rent.closed_period (
    period text primary key check (backfill.is_period(period)),
    reason text not null check (length(trim(reason)) > 0),
    closed_by text not null default session_user,
    closed_at timestamptz not null default now()
);

comment on table rent.closed_period is
'Months in which nothing changes any more: no insert, update, delete or reversal. Corrections go to an open month.';
comment on column rent.closed_period.period is 'YYYY-MM.';
comment on column rent.closed_period.reason is 'Why it was closed.';
comment on column rent.closed_period.closed_by is 'Who closed it.';
comment on column rent.closed_period.closed_at is 'When.';

create function rent.refuse_closed() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_periods text[] := array[to_jsonb(old) ->> tg_argv[0], to_jsonb(new) ->> tg_argv[0]];
    v_closed rent.closed_period;
begin
    -- Shared: nobody closes the month while this change is under way (see lock_period).
    perform pg_advisory_xact_lock_shared(hashtextextended('rent.closed_period ' || p.period, 0))
    from (select distinct period from unnest(v_periods) as x (period) where period is not null order by period) as p;
    select * into v_closed from rent.closed_period where period = any (v_periods) order by period limit 1;
    if found and not (tg_op = 'UPDATE' and old is not distinct from new) then
        raise exception '% of %.% is refused: % was closed on % by % (%)', tg_op, tg_table_schema, tg_table_name,
            v_closed.period, to_char(v_closed.closed_at, 'YYYY-MM-DD'), v_closed.closed_by, v_closed.reason
            using errcode = case when backfill.in_reversal() then 'BF023' else 'BF021' end,
                hint = 'Nothing was changed. A correction goes to an open month.';
    end if;
    return coalesce(new, old);
end;
$$;

comment on function rent.refuse_closed() is
'Trigger: refuses (BF021, in a reversal BF023) a change of a row of a closed month; its argument names the month''s column.';

create function rent.lock_period() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('rent.closed_period ' || new.period, 0));
    return new;
end;
$$;

comment on function rent.lock_period() is
'Trigger: closing a month waits for the changes of that month that are under way.';

create function rent.close_period(p_period text, p_reason text) returns rent.closed_period
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_opened boolean;
    v_row rent.closed_period;
begin
    if not coalesce(backfill.is_period(p_period), false) then
        raise exception 'period % is not YYYY-MM', coalesce(quote_literal(p_period), 'null') using errcode = 'BF022';
    end if;
    v_opened := backfill.ensure_run(format('rent: %s closed', p_period), jsonb_build_object('period', p_period));
    insert into rent.closed_period (period, reason) values (p_period, p_reason) on conflict (period) do nothing;
    if v_opened then
        perform backfill.finish_run();
    end if;
    select * into v_row from rent.closed_period where period = p_period;
    return v_row;
end;
$$;

comment on function rent.close_period(text, text) is
'Closes a month; twice is harmless. Only reversing that run opens it again.
Example: select rent.close_period(''2025-02'', ''year end 2025'');';

create trigger a_lock_period before insert on rent.closed_period
for each row execute function rent.lock_period();
create trigger b_refuse_rewrite before update or delete on rent.closed_period
for each row execute function rent.refuse_rewrite();
create trigger c_refuse_truncate before truncate on rent.closed_period
for each statement execute function rent.refuse_rewrite();

do $do$
begin
    perform backfill.track('rent.closed_period');
end;
$do$;

-- Last: from here on whoever writes to these tables waits.
create trigger a_refuse_closed before insert or update or delete on rent.rent_ledger
for each row execute function rent.refuse_closed('period');
create trigger b_guard_ledger before update or delete on rent.rent_ledger
for each row execute function rent.guard_ledger();
create trigger c_refuse_truncate before truncate on rent.rent_ledger
for each statement execute function rent.refuse_rewrite();

create trigger a_refuse_closed before insert or update or delete on rent.rent_config
for each row execute function rent.refuse_closed('period');
create trigger c_refuse_truncate before truncate on rent.rent_config
for each statement execute function rent.refuse_rewrite();

create trigger a_refuse_closed before insert or update or delete on rent.electricity_bills
for each row execute function rent.refuse_closed('bill_period');
create trigger c_refuse_truncate before truncate on rent.electricity_bills
for each statement execute function rent.refuse_rewrite();

create trigger a_refuse_closed before insert or update or delete on rent.calculation
for each row execute function rent.refuse_closed('period');
create trigger b_refuse_rewrite before update or delete on rent.calculation
for each row execute function rent.refuse_rewrite();
create trigger c_refuse_truncate before truncate on rent.calculation
for each statement execute function rent.refuse_rewrite();
