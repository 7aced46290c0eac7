do $do$
begin
    perform backfill.revoke_from('backfill_operator', 'execute on function backfill.reverse_since(uuid, text)');
    perform backfill.revoke_from('backfill_operator', 'execute on function backfill.abandon_run(uuid, text)');
    perform backfill.revoke_from('backfill_operator', 'execute on function backfill.prove_undo(uuid)');
    perform backfill.revoke_from('backfill_operator', 'execute on function backfill.column_parts(uuid)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.runs_since(uuid)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.stamping_triggers()');
end;
$do$;
drop function backfill.column_parts(uuid);
drop function backfill.rebind(regclass, jsonb, text);
drop function backfill.reverse_since(uuid, text);
drop function backfill.runs_since(uuid);
drop function backfill.abandon_run(uuid, text);
drop function backfill.prove_undo(uuid);
