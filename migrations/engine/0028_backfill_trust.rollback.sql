do $do$
begin
    perform backfill.revoke_from('backfill_auditor',
        'execute on function backfill.untrusted_code(oid[]), backfill.refuse_untrusted(oid[]), backfill.require_trusted()');
end;
$do$;
drop function backfill.require_trusted();
drop function backfill.refuse_untrusted(oid[]);
drop function backfill.untrusted_code(oid[]);
