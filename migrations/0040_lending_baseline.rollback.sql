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
do $$
begin
    drop schema lending;
exception
    when dependent_objects_still_exist then
        raise notice 'schema lending stays: it is not empty';
end;
$$;
