do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.gross(uuid), backfill.taken_may_pass(text)');
    perform backfill.revoke_from('backfill_operator', 'execute on function backfill.leave_to_others(uuid, jsonb)');
end;
$do$;
drop function backfill.leave_to_others(uuid, jsonb);
drop function backfill.taken_may_pass(text);
drop function backfill.weigh_run(uuid, boolean);
drop function backfill.policies_for(backfill.backfill_log, jsonb);
drop function backfill.gross(uuid);
