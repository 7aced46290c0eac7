do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.signed_rows(uuid), backfill.signature(uuid, jsonb)');
end;
$do$;
drop function backfill.signature(uuid, jsonb);
drop function backfill.signed_rows(uuid);
