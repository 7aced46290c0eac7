-- What auditors may see of packs goes with untrack().
do $do$
begin
    perform backfill.revoke_from(role, privileges) from backfill.privilege where privileges !~ '^select on backfill_audit[.]';
end;
$do$;
-- As functions are by default; nobody but the owner may use these schemas any more.
grant execute on all functions in schema backfill to public;
grant execute on function staging.land_files(text, jsonb),
staging.forget_files(text, text[]), staging.analyze_tables(regclass[]) to public;
