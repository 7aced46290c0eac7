-- Only tables that the baseline created go, and only while they are empty.
do $do$
declare
    v_table text;
begin
    foreach v_table in array array['rent_ledger', 'rent_config', 'tenants'] loop
        perform backfill.untrack(to_regclass('rent.' || v_table));
        perform backfill.drop_baseline('rent.' || v_table);
    end loop;
end;
$do$;
do $do$
begin
    perform backfill.drop_baseline_schema('rent');
end;
$do$;
