do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.signed_rows(uuid), backfill.signature(uuid)');
end;
$do$;
drop function backfill.signature(uuid);
drop function backfill.signed_rows(uuid);
