do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'select on backfill.metrics');
end;
$do$;
drop view backfill.metrics;
