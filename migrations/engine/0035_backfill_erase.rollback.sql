do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.exportable_runs(timestamptz)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.check_chain()');
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.verify_chain(text)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.run_state(uuid)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.chain_head()');
    perform backfill.revoke_from('backfill_auditor', 'select on backfill.chain');
end;
$do$;
drop function backfill.refuse_without_images(uuid);
drop function backfill.erase(text, text, text[], text, text);
drop function backfill.erase_pack(backfill.tracked, integer[], jsonb);
drop function backfill.find_images(backfill.tracked);
drop function backfill.restore_run(text, text);
