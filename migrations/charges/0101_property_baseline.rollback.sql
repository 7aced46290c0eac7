-- Only tables that the baseline created go, and only while they are empty.
do $do$
begin
    perform backfill.untrack(to_regclass('property.charges'));
    perform backfill.untrack(to_regclass('property.payments'));
    perform backfill.untrack(to_regclass('property.units'));
    perform backfill.drop_baseline('property.charges');
    perform backfill.drop_baseline('property.payments');
    perform backfill.drop_baseline('property.units');
end;
$do$;
do $do$
begin
    perform backfill.drop_baseline_schema('property');
end;
$do$;
