do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.gross(uuid), backfill.taken_may_pass(text)');
end;
$do$;
drop function backfill.taken_may_pass(text);
drop function backfill.weigh_run(uuid, boolean);
drop function backfill.policies_for(backfill.backfill_log, jsonb);
drop function backfill.gross(uuid);
