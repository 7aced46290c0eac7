do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.change_hashes(uuid), backfill.written_since(text, text[], pg_snapshot)');
end;
$do$;
drop function backfill.written_since(text, text[], pg_snapshot);
drop function backfill.change_hashes(uuid);
drop function backfill.hashed_images(backfill.backfill_log, backfill.tracked, text, boolean, boolean, integer[]);
