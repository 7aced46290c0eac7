do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'select on backfill.sealed_table, backfill.seal');
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.broken_seals(text)');
end;
$do$;
drop function backfill.unseal_table(text);
drop function backfill.seal_table(regclass, text, text[], boolean);
drop function backfill.tie_to_load(regclass);
drop function backfill.reseal(regclass, text);
drop function backfill.require_seals(text);
drop function backfill.broken_seals(text);
drop function backfill.require_sealed_rows(regclass, text);
drop function backfill.seal_rows(regclass, text);
drop function backfill.renew_seal();
drop function backfill.refuse_unlanded();
drop table backfill.seal;
drop table backfill.sealed_table;
