-- Who may do what in the engine: auditors read, operators run and undo backfills, everybody else nothing.
-- Safe: it takes functions from everybody and grants to the engine's own roles; nothing of the applications is granted.
-- depends: 0022_backfill_promotion

revoke execute on all functions in schema backfill from public;
-- The schema may be shared with others.
revoke execute on function staging.land_files(text, jsonb),
staging.forget_files(text, text[]), staging.analyze_tables(regclass[]) from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'usage on schema backfill');
    perform backfill.grant_to('backfill_auditor', 'usage on schema backfill_audit');
    perform backfill.grant_to('backfill_auditor', 'usage on schema staging');
    perform backfill.grant_to('backfill_auditor', 'select on backfill.privilege, backfill.version, backfill.migration_checksum');
    perform backfill.grant_to('backfill_auditor', 'select on backfill.catalog, backfill.backfill_log, backfill.reject, backfill.tracked');
    perform backfill.grant_to('backfill_auditor', 'select on backfill.change_log');
    perform backfill.grant_to('backfill_auditor', 'select on staging.file, staging.file_in_flight');
    perform backfill.grant_to('backfill_auditor',
        'select on backfill.snapshot, backfill.waiver, backfill.active_waivers');
    perform backfill.grant_to('backfill_auditor', 'select on backfill.promotion_check, backfill.stored_failure');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.business_id(text[])');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.is_period(text)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.entry(text)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.as_of()');  -- due views ask it as their reader
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.moment(text)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.readable_json(text)');
    -- As the change log's reader; and those that read its money.
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.minor_digits(text), backfill.minor_factor(text), '
        'backfill.minor_units(numeric, text), backfill.currency_code(text), backfill.add_money(jsonb, jsonb), '
        'backfill.same_money(jsonb, jsonb), backfill.money_text(jsonb)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.untrackable(oid[]), backfill.has_own_cast(oid)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.new_rejects(text)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.due(text[])');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.still_due(text)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.open_run()');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.control_totals(text[])');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.run_totals(uuid)');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.run_digest(uuid)');
    -- Whoever runs backfills asks first whether a migration is pending.
    perform backfill.grant_to('backfill_auditor', format('select on %I.%I', n.nspname, c.relname))
    from pg_class as c inner join pg_namespace as n on c.relnamespace = n.oid
    where c.relname = '_yoyo_migration' and c.relkind = 'r' and c.relpersistence = 'p' and pg_has_role(c.relowner, 'usage');

    perform backfill.grant_to('backfill_operator', 'execute on function backfill.take_lock()');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.set_as_of(timestamptz)');
    perform backfill.grant_to('backfill_operator',
        'execute on function backfill.begin_run(text, jsonb, jsonb, text, text, boolean)');
    -- What these call with the rights of whoever calls them.
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.fire_constraints(), '
        'backfill.run_in_catalog(text, jsonb, integer, text), backfill.undo_run(uuid, text), backfill.mend_tracked(), backfill.tables_to_mend(), '
        'backfill.trigger_statements(regclass), backfill.put_triggers(regclass), backfill.guarded_children(), backfill.guard_children()');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.resume_run(uuid, boolean)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.finish_run(jsonb, jsonb, text)');
    -- What begin_run(), resume_run(), finish_run() and leave_run() call with the rights, and the search_path, of whoever calls them.
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.fire_pending(text)');
    perform backfill.grant_to('backfill_operator',
        'execute on function backfill.open_new_run(text, jsonb, jsonb, text, text, boolean, boolean)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.continue_run(uuid, boolean, boolean)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.fire_deferred(text)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.application_path()');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.close_own_run(jsonb, jsonb, text, boolean)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.leave_transaction(boolean)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.leave_run()');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.ensure_run(text, jsonb)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.run(text, jsonb, integer, text, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.reverse_run(uuid, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.reversal_preview(uuid)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.keep_rejects(jsonb)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.land_files(text, jsonb)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.forget_files(text, text[])');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.analyze_tables(regclass[])');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.waive(text, date, text, text)');
    perform backfill.grant_to('backfill_operator',
        'execute on function backfill.record_snapshot(timestamptz, text, text, bigint)');
end;
$do$;
