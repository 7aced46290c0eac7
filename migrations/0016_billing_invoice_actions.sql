-- Corrections of single invoices after the load, each an audited run: correct, resend, void, delete.
-- Each does its work and then looks for faults: what breaks an invariant is refused, and nothing of it stays.
-- Safe: functions and a view only.
-- depends: 0015_billing_checks

create view billing.invoice_faults as
with line_totals as (
    select
        invoice_id,
        sum(amount_cents) as cents
    from billing.invoice_lines
    group by invoice_id
),

applied as (
    select
        invoice_id,
        sum(amount_cents) as cents
    from billing.check_payment_applications
    group by invoice_id
)

select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'its total is not the sum of its lines' as fault
from billing.invoices as i
left join line_totals as l on i.id = l.invoice_id
where i.total_cents <> coalesce(l.cents, 0)
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'checks paid more than is said to be paid on it' as fault
from billing.invoices as i
inner join applied as a on i.id = a.invoice_id
where i.amount_paid_cents < a.cents
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'more is paid on it than its total' as fault
from billing.invoices as i
where i.amount_paid_cents > greatest(i.total_cents, 0)
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'its status ' || i.status || ' does not fit what is paid on it' as fault
from billing.invoices as i
where
    (i.status in ('draft', 'sent', 'void') and i.amount_paid_cents <> 0)
    or (i.status = 'partial' and (i.amount_paid_cents = 0 or i.amount_paid_cents = i.total_cents))
    or (i.status = 'paid' and i.amount_paid_cents <> i.total_cents)
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'its number is not below the next one of the company' as fault
from billing.invoices as i
left join billing.settings as s on i.company_id = s.company_id
where i.origin = 'backfill' and billing.invoice_ordinal(i.invoice_number) >= coalesce(s.next_invoice_number, 0)
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'its number has no numeric part' as fault
from billing.invoices as i
where i.origin = 'backfill' and billing.invoice_ordinal(i.invoice_number) is null
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'it is due before it was issued' as fault
from billing.invoices as i
where i.origin = 'backfill' and i.due_date < (i.sent_at at time zone 'UTC')::date - 1
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'it bears interest and was backfilled' as fault
from billing.invoices as i
where
    i.origin = 'backfill'
    and exists (
        select from billing.interest_accruals as a
        where a.invoice_id = i.id
    )
union all
select
    i.company_id,
    i.id as invoice_id,
    i.invoice_number,
    'its facility also has ' || o.invoice_number || ' for its period' as fault
from billing.invoices as i
inner join billing.invoices as o
    on
        i.company_id = o.company_id and i.facility_id = o.facility_id
        and i.period_start = o.period_start and i.period_end = o.period_end
where i.id <> o.id and i.status <> 'void' and o.status <> 'void' and 'backfill' in (i.origin, o.origin);

comment on view billing.invoice_faults is
'Invoices that break an invariant, one row each and fault. Empty when all is well; the row actions refuse to leave one behind.';
comment on column billing.invoice_faults.company_id is 'Company of the invoice.';
comment on column billing.invoice_faults.invoice_id is 'The invoice.';
comment on column billing.invoice_faults.invoice_number is 'Its number.';
comment on column billing.invoice_faults.fault is 'What is wrong, in words.';

create function billing.refuse_second_by_reversal() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_came_back uuid[];
    v_listed text;
begin
    select array_agg(c.primary_key::uuid) into v_came_back
    from backfill.change_log as c
    where c.run_id = new.run_id and c.table_name = 'billing.invoices' and case c.operation
        when 'INSERT' then true
        when 'UPDATE' then (c.before ->> 'status' = 'void' and c.after ->> 'status' <> 'void')
            or (c.before -> 'facility_id', c.before -> 'period_start', c.before -> 'period_end')
            <> (c.after -> 'facility_id', c.after -> 'period_start', c.after -> 'period_end')
        else false
    end;
    if v_came_back is null then
        return null;
    end if;
    -- The same lock as everywhere: who issues or backfills an invoice meanwhile waits, or was first and is seen.
    perform backfill.raise_watermark(s.company_id, 0)
    from (select distinct company_id from billing.invoices where id = any (v_came_back) order by company_id) as s;
    select string_agg(d.pair, e'\n' order by d.pair) into v_listed
    from (
        select format('%s beside %s (%s, origin %s) for %s to %s', i.invoice_number, o.invoice_number, o.status, o.origin,
            i.period_start, i.period_end) as pair
        from billing.invoices as i
        join billing.invoices as o on o.company_id = i.company_id and o.facility_id = i.facility_id
            and o.period_start = i.period_start and o.period_end = i.period_end
        where i.id = any (v_came_back) and o.id <> i.id and i.status <> 'void' and o.status <> 'void'
            and 'backfill' in (i.origin, o.origin)
        limit 10
    ) as d;
    if v_listed is not null then
        raise exception 'run % cannot be reversed: a facility would have two invoices for one period', new.reverses
            using errcode = 'BF005', detail = v_listed,
                hint = 'Nothing was changed. Void the one that stands first: billing.void_invoice(invoice, reason).';
    end if;
    return null;
end;
$$;

comment on function billing.refuse_second_by_reversal() is
'Trigger of the log, at the end of a reversal: refuses (BF005) to bring back an invoice whose facility has another one for its period
by now, one of them backfilled. The row actions see to that themselves.';

-- On the log and not on the invoices: there, every writer would pay for it, and a reversal could not go at once.
create trigger refuse_second_invoice after update of status on backfill.backfill_log
for each row when (new.mode = 'reversal' and old.status = 'running' and new.status <> 'running')
execute function billing.refuse_second_by_reversal();

create function billing.begin_action(
    p_action text, p_invoice uuid, p_actor text, p_parameters jsonb, out opened boolean, out invoice billing.invoices
) returns record
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(btrim(p_parameters ->> 'reason'), '') = '' then
        raise exception '% of invoice % needs a reason: it is kept in the log', p_action,
            coalesce((select invoice_number from billing.invoices where id = p_invoice), p_invoice::text) using errcode = 'BF302';
    end if;
    select * into invoice from billing.invoices where id = p_invoice;
    if not found then
        raise exception 'there is no invoice %', p_invoice using errcode = 'BF009',
            hint = 'select id from billing.invoices where company_id = … and invoice_number = …;';
    end if;
    opened := backfill.open_run() is null;
    if opened then
        perform backfill.begin_run(format('%s %s', p_action, invoice.invoice_number), p_parameters, p_actor => p_actor,
            p_subject => jsonb_build_object('company', invoice.company_id, 'invoice', invoice.invoice_number));
    else
        -- The open run has a title of its own; beside it the log keeps what was done in it, to what, why, and in whose name.
        perform backfill.note_action(jsonb_build_object('action', p_action, 'company', invoice.company_id,
            'invoice', invoice.invoice_number, 'actor', p_actor) || p_parameters);
    end if;
    -- The same order of locks as everywhere: settings, then facility, then invoice.
    perform backfill.raise_watermark(invoice.company_id, 0);
    perform from billing.facilities where id = invoice.facility_id for no key update;
    select * into invoice from billing.invoices where id = p_invoice for update;
    if not found then
        raise exception 'invoice % was deleted meanwhile', p_invoice using errcode = 'BF009';
    end if;
end;
$$;

comment on function billing.begin_action(text, uuid, text, jsonb) is
'Begins a row action: opens a run with its reason, or adds both to the actions among the parameters of the run that is open; locks
the invoice.';

create function billing.end_action(p_opened boolean, p_action text, p_invoice billing.invoices) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_faults text;
begin
    select string_agg(f.fault, '; ' order by f.fault) into v_faults
    from billing.invoice_faults as f
    where f.invoice_id = p_invoice.id;
    if v_faults is not null then
        raise exception '% of invoice % is refused: %', p_action, p_invoice.invoice_number, v_faults
            using errcode = 'BF302', hint = 'Nothing was changed.';
    end if;
    if p_opened then
        perform backfill.finish_run();
    end if;
end;
$$;

comment on function billing.end_action(boolean, text, billing.invoices) is
'Ends a row action: refuses (BF302) what left the invoice with a fault, else finishes the run that it opened.';

create function billing.covered_cents(p_invoice uuid) returns bigint
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_linked bigint := 0;
begin
    -- The table of payments comes with a later migration.
    if to_regclass('billing.payments') is not null then
        execute 'select coalesce(sum(p.amount_cents), 0) from billing.payments as p '
            'where p.invoice_id = $1 and p.status in (''pending'', ''succeeded'')' into v_linked using p_invoice;
    end if;
    return (
        select greatest(i.amount_paid_cents, v_linked + coalesce(sum(a.amount_cents), 0))
        from billing.invoices as i
        left join billing.check_payment_applications as a on a.invoice_id = i.id
        where i.id = p_invoice
        group by i.id, i.amount_paid_cents
    );
end;
$$;

comment on function billing.covered_cents(uuid) is
'What is paid on an invoice: as it says itself, or by its checks and the payments linked to it, whichever is more.';

create function billing.correct_invoice(
    p_invoice uuid, p_changes jsonb, p_reason text, p_actor text default session_user
) returns billing.invoices
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_action record;
    v_old billing.invoices;
    v_new billing.invoices;
    v_unknown text;
    v_faults text;
begin
    select string_agg(k.key, ', ' order by k.key) into v_unknown
    from jsonb_object_keys(case when jsonb_typeof(p_changes) = 'object' then p_changes else '{}' end) as k (key)
    where k.key <> all ('{invoice_number,period_start,period_end,sent_at,due_date,total_cents,lines}');
    if v_unknown is not null or jsonb_typeof(p_changes) is distinct from 'object' or p_changes = '{}' then
        raise exception 'a correction changes invoice_number, period_start, period_end, sent_at, due_date, total_cents, lines, not %',
            coalesce(v_unknown, case when jsonb_typeof(p_changes) <> 'object' then p_changes::text end, 'nothing')
            using errcode = 'BF302', hint = 'For example {"due_date": "2023-02-28"}.';
    end if;
    -- The session's DateStyle and TimeZone must not decide which day is meant.
    select string_agg(format('%s %s', c.key, c.value), ', ' order by c.key) into v_faults
    from jsonb_each_text(p_changes - 'lines') as c
    where (c.key in ('period_start', 'period_end', 'due_date') and c.value !~ '^\d{4}-\d\d-\d\d$')
        or (c.key = 'sent_at' and c.value !~ '^\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$');
    if v_faults is not null then
        raise exception 'a correction takes dates as 2023-02-28 and sent_at as 2023-02-28T00:00:00Z, with its time zone, not %', v_faults
            using errcode = 'BF302';
    end if;
    v_action := billing.begin_action('correct', p_invoice, p_actor, jsonb_build_object('reason', p_reason, 'changes', p_changes));
    v_old := v_action.invoice;
    if v_old.origin <> 'backfill' or v_old.status = 'void' then
        raise exception 'invoice % is % and of origin %: only backfilled invoices that stand are corrected here',
            v_old.invoice_number, v_old.status, v_old.origin using errcode = 'BF302';
    end if;
    v_faults := billing.line_faults(v_old.company_id, p_changes -> 'lines');
    if v_faults is not null then
        raise exception 'correction of invoice % is refused: %', v_old.invoice_number, v_faults using errcode = 'BF302';
    end if;
    v_new := jsonb_populate_record(v_old, p_changes - 'lines');
    if v_new.invoice_number is distinct from v_old.invoice_number then
        if billing.invoice_ordinal(v_new.invoice_number) is null or v_new.invoice_number <> btrim(v_new.invoice_number) then
            raise exception 'invoice % cannot become %: a number has a numeric part and no blanks around it', v_old.invoice_number,
                quote_nullable(v_new.invoice_number) using errcode = 'BF302';
        end if;
        select format('%s, for %s to %s', i.status, i.period_start, i.period_end) into v_faults
        from billing.invoices as i
        where i.company_id = v_old.company_id and i.invoice_number = v_new.invoice_number;
        if found then
            raise exception 'invoice % cannot become %: that number is taken (%)', v_old.invoice_number, v_new.invoice_number, v_faults
                using errcode = 'BF302', hint = 'Correct or delete that one first.';
        end if;
        perform backfill.raise_watermark(v_old.company_id, billing.invoice_ordinal(v_new.invoice_number));
    end if;
    if p_changes ? 'lines' then
        delete from billing.invoice_lines where invoice_id = p_invoice;
        insert into billing.invoice_lines (id, company_id, invoice_id, line_no, description, contractor_id, assignment_id,
            week_start, hours, rate_cents, amount_cents, variance_flagged)
        select backfill.business_id('invoice line', p_invoice::text, l.place::text), v_old.company_id, p_invoice, l.place,
            l.description, l.contractor_id, billing.assignment_of_week(
                v_old.company_id, l.contractor_id, v_old.facility_id, coalesce(l.week_start, v_new.period_start)
            ), l.week_start, l.hours, l.rate_cents, l.amount_cents, false
        from rows from (jsonb_to_recordset(p_changes -> 'lines') as (description text, contractor_id uuid, week_start date,
            hours numeric(9, 2), rate_cents bigint, amount_cents bigint)) with ordinality
            as l (description, contractor_id, week_start, hours, rate_cents, amount_cents, place);
    end if;
    if v_new.sent_at is null or v_new.due_date is null or v_new.period_start is null or v_new.period_end is null
        or v_new.total_cents is null or v_new.period_end < v_new.period_start or v_new.total_cents <= 0 then
        raise exception 'invoice % needs an issue date, a due date, a period that ends after it begins, and a positive total',
            v_old.invoice_number using errcode = 'BF302', detail = format('issued %s, due %s, period %s to %s, total %s cents',
                v_new.sent_at, v_new.due_date, v_new.period_start, v_new.period_end, v_new.total_cents);
    end if;
    if v_new.total_cents < billing.covered_cents(p_invoice) then
        raise exception 'invoice % has % cents paid, more than the new total of %', v_old.invoice_number,
            billing.covered_cents(p_invoice), v_new.total_cents
            using errcode = 'BF302', hint = 'Unapply its checks first: billing.unapply_check(check). Undo the runs that linked payments.';
    end if;
    begin
        update billing.invoices
        set invoice_number = v_new.invoice_number, period_start = v_new.period_start, period_end = v_new.period_end,
            sent_at = v_new.sent_at, due_date = v_new.due_date, total_cents = v_new.total_cents,
            status = case when amount_paid_cents = 0 then 'sent' when amount_paid_cents = v_new.total_cents then 'paid' else 'partial' end
        where id = p_invoice
        returning * into v_new;
    exception
        when unique_violation then  -- invoices_one_backfill_per_period: nobody can slip in between
            raise exception 'correction of invoice % is refused: its facility also has % for its period', v_old.invoice_number, (
                select string_agg(i.invoice_number, ', ' order by i.invoice_number)
                from billing.invoices as i
                where i.company_id = v_old.company_id and i.facility_id = v_old.facility_id and i.status <> 'void'
                    and i.period_start = v_new.period_start and i.period_end = v_new.period_end
            ) using errcode = 'BF302', hint = 'Nothing was changed.';
    end;
    perform billing.end_action(v_action.opened, 'correction', v_new);
    return v_new;
end;
$$;

comment on function billing.correct_invoice(uuid, jsonb, text, text) is
'Corrects a backfilled invoice: number, dates, and lines with the total, e.g. {"due_date": "2023-02-28"} or {"total_cents": 100,
"lines": [...]} (all lines anew). A run with its reason. Refuses (BF302) what would break an invariant.';

create function billing.resend_invoice(
    p_invoice uuid, p_sent_at timestamptz, p_reason text, p_due_date date default null,
    p_actor text default session_user
) returns billing.invoices
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_action record;
    v_invoice billing.invoices;
begin
    v_action := billing.begin_action('resend', p_invoice, p_actor,
        jsonb_build_object('reason', p_reason, 'sent_at', p_sent_at, 'due_date', p_due_date));
    v_invoice := v_action.invoice;
    if v_invoice.status not in ('sent', 'partial') then
        raise exception 'invoice % is %: only what is outstanding is sent again', v_invoice.invoice_number, v_invoice.status
            using errcode = 'BF302';
    end if;
    if p_sent_at is null or p_sent_at < v_invoice.sent_at then
        raise exception 'invoice % was sent at %: it cannot be sent again before that', v_invoice.invoice_number, v_invoice.sent_at
            using errcode = 'BF302';
    end if;
    update billing.invoices
    set sent_at = p_sent_at, due_date = coalesce(p_due_date, greatest(due_date, (p_sent_at at time zone 'UTC')::date))
    where id = p_invoice
    returning * into v_invoice;
    perform billing.end_action(v_action.opened, 'resending', v_invoice);
    return v_invoice;
end;
$$;

comment on function billing.resend_invoice(uuid, timestamptz, text, date, text) is
'Records that an outstanding invoice was sent again, with its new due date (default: the old one, or the day of sending where
that is later). Notifies nobody; the sending before it stays in backfill.change_log. A run with its reason.';

create function billing.void_invoice(
    p_invoice uuid, p_reason text, p_actor text default session_user
) returns billing.invoices
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_action record;
    v_invoice billing.invoices;
begin
    select * into v_invoice from billing.invoices where id = p_invoice;
    if v_invoice.status = 'void' then
        return v_invoice;
    end if;
    v_action := billing.begin_action('void', p_invoice, p_actor, jsonb_build_object('reason', p_reason));
    v_invoice := v_action.invoice;
    if billing.covered_cents(p_invoice) <> 0 then
        raise exception 'invoice % has % cents paid: it cannot be void', v_invoice.invoice_number, billing.covered_cents(p_invoice)
            using errcode = 'BF302', hint = 'Unapply its checks first: billing.unapply_check(check). Undo the runs that linked payments.';
    end if;
    update billing.invoices set status = 'void' where id = p_invoice returning * into v_invoice;
    perform billing.end_action(v_action.opened, 'voiding', v_invoice);
    return v_invoice;
end;
$$;

comment on function billing.void_invoice(uuid, text, text) is
'Voids an invoice on which nothing is paid; its number stays used. Again is harmless. A run with its reason.';

create function billing.delete_invoice(
    p_invoice uuid, p_reason text, p_owner_confirmation text default null, p_actor text default session_user
) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_action record;
    v_invoice billing.invoices;
begin
    v_action := billing.begin_action('delete', p_invoice, p_actor,
        jsonb_build_object('reason', p_reason, 'owner_confirmation', p_owner_confirmation));
    v_invoice := v_action.invoice;
    if billing.covered_cents(p_invoice) <> 0 then
        raise exception 'invoice % has % cents paid: it cannot be deleted', v_invoice.invoice_number, billing.covered_cents(p_invoice)
            using errcode = 'BF302', hint = 'Unapply its checks first: billing.unapply_check(check). Undo the runs that linked payments.';
    end if;
    if v_invoice.origin = 'app' then
        if v_invoice.status <> 'draft' or not exists (
            select from staging.invoices as s
            where s.company_id = v_invoice.company_id and s.invoice_number = v_invoice.invoice_number and s.withdrawn is null
        ) then
            raise exception 'invoice % is the application''s (%) and holds no number of the catalogue',
                v_invoice.invoice_number, v_invoice.status
                using errcode = 'BF302', hint = 'Only a draft under a number that was loaded is deleted here: runner load invoices first. Void others.';
        end if;
        if coalesce(btrim(p_owner_confirmation), '') = '' then
            raise exception 'draft % is the application''s: deleting it needs its owner''s confirmation', v_invoice.invoice_number
                using errcode = 'BF302', hint = 'p_owner_confirmation => ''name, when and where it was said''.';
        end if;
    end if;
    delete from billing.invoice_lines where invoice_id = p_invoice;
    delete from billing.invoices where id = p_invoice;
    -- What was deleted on purpose must not come back with the next run.
    update staging.invoices set withdrawn = p_reason where invoice_id = p_invoice;
    if v_action.opened then
        perform backfill.finish_run();
    end if;
end;
$$;

comment on function billing.delete_invoice(uuid, text, text, text) is
'Deletes a backfilled invoice on which nothing is paid (its staged row is withdrawn, so that it does not come back), or, with
the owner''s confirmation, a draft of the application that holds a number of the catalogue. A run; its reversal brings it back.';

revoke execute on all functions in schema billing from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on billing.invoice_faults');
    perform backfill.grant_to('backfill_operator', 'execute on function billing.correct_invoice(uuid, jsonb, text, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function billing.resend_invoice(uuid, timestamptz, text, date, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function billing.void_invoice(uuid, text, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function billing.delete_invoice(uuid, text, text, text)');
end;
$do$;
