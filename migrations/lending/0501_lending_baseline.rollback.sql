-- Only tables that the baseline created go, and only while they are empty.
drop index lending.payments_one_reference;
drop index lending.mortgages_one_schedule;
do $do$
declare
    v_table text;
begin
    foreach v_table in array array['payments', 'mortgages', 'borrowers'] loop
        perform backfill.untrack(to_regclass('lending.' || v_table));
        perform backfill.drop_baseline('lending.' || v_table);
    end loop;
end;
$do$;
do $do$
begin
    perform backfill.drop_baseline_schema('lending');
end;
$do$;
