-- A history that holds comparisons is evidence: it is not dropped.
do $$
begin
    if exists (select from backfill.comparison) then
        raise exception 'backfill.comparison holds a history: the rollback would destroy it'
            using errcode = 'BF010', hint = 'Dump them, and drop them by hand if you must.';
    end if;
end;
$$;
drop function billing.reconciliation_samples(integer);
drop function billing.reconciliation_summary();
drop function backfill.keep_comparison(text, jsonb, jsonb);
drop table backfill.comparison_finding;
drop table backfill.comparison;
