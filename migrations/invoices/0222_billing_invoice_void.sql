-- The other corrections of single invoices: send again, void, delete. Each is an audited run.
-- Safe: functions only.
-- depends: 0221_billing_invoice_correct

create function billing.resend_invoice(
    p_invoice uuid, p_sent_at timestamptz, p_reason text, p_actor text default session_user
) returns billing.invoices
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_action record;
    v_invoice billing.invoices;
begin
    v_action := billing.begin_action('resend', p_invoice, p_actor, jsonb_build_object('reason', p_reason, 'sent_at', p_sent_at));
    v_invoice := v_action.invoice;
    if v_invoice.status not in ('sent', 'partial') then
        raise exception 'invoice % is %: only what is outstanding is sent again', v_invoice.invoice_number, v_invoice.status
            using errcode = 'BF302';
    end if;
    if p_sent_at is null or p_sent_at < coalesce(v_invoice.last_sent_at, v_invoice.sent_at) then
        raise exception 'invoice % was sent at %: it cannot be sent again before that', v_invoice.invoice_number,
            coalesce(v_invoice.last_sent_at, v_invoice.sent_at) using errcode = 'BF302';
    end if;
    update billing.invoices set last_sent_at = p_sent_at where id = p_invoice returning * into v_invoice;
    perform billing.end_action(v_action.opened, 'resending', v_invoice);
    return v_invoice;
end;
$$;

comment on function billing.resend_invoice(uuid, timestamptz, text, text) is
'Records that an outstanding invoice was sent again: last_sent_at. Its issue date and its due date stay, and so does its age. Notifies nobody. A run with
its reason.';

create function billing.void_invoice(
    p_invoice uuid, p_reason text, p_actor text default session_user, p_on date default null
) returns billing.invoices
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_action record;
    v_invoice billing.invoices;
    v_day date := coalesce(p_on, billing.day_of(backfill.run_time()));
begin
    select * into v_invoice from billing.invoices where id = p_invoice;
    if v_invoice.status = 'void' then
        return v_invoice;
    end if;
    v_action := billing.begin_action('void', p_invoice, p_actor, jsonb_build_object('reason', p_reason, 'on', v_day));
    v_invoice := v_action.invoice;
    if v_day < billing.day_of(v_invoice.sent_at) or v_day > billing.day_of(backfill.run_time()) then
        raise exception 'invoice % cannot be void from % on: that is before its issue, or still to come', v_invoice.invoice_number, v_day
            using errcode = 'BF302';
    end if;
    if v_day < (
        select max(r.effective_until) from billing.application_rows as r
        where r.invoice_id = p_invoice and r.effective_until > r.effective_from
    ) then
        raise exception 'invoice % cannot be void from % on: it was paid then', v_invoice.invoice_number, v_day using errcode = 'BF302',
            hint = 'select * from billing.applications where invoice_id = ''...'';';
    end if;
    if billing.covered_cents(p_invoice) <> 0 then
        raise exception 'invoice % has % cents paid: it cannot be void', v_invoice.invoice_number, billing.covered_cents(p_invoice)
            using errcode = 'BF302', hint = 'Take it back first: billing.unapply(application, reason), see billing.applications.';
    end if;
    update billing.invoices set status = 'void', voided_on = v_day where id = p_invoice returning * into v_invoice;
    perform billing.end_action(v_action.opened, 'voiding', v_invoice);
    return v_invoice;
end;
$$;

comment on function billing.void_invoice(uuid, text, text, date) is
'Voids an invoice on which nothing is paid, from a day on (default: today): as of a day before it, it was owed. Its number stays used. Again is harmless. A run
with its reason.';

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
            using errcode = 'BF302', hint = 'Take it back first: billing.unapply(application, reason), see billing.applications.';
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
    if exists (select from billing.application_entries where p_invoice in (invoice_id, source_id)) then
        raise exception 'money was applied to invoice % until it was taken back: it cannot be deleted', v_invoice.invoice_number
            using errcode = 'BF302', hint = 'Void it: billing.void_invoice(invoice, reason).';
    end if;
    delete from billing.application_refusals where invoice_id = p_invoice;
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
