-- Snapshots and waivers that were given are evidence: they are not dropped.
do $$
begin
    if exists (select from backfill.snapshot) or exists (select from backfill.waiver) then
        raise exception 'backfill.snapshot and backfill.waiver hold what was signed for: the rollback would destroy it'
            using errcode = 'BF010', hint = 'Dump them, and drop them by hand if you must.';
    end if;
end;
$$;
drop function billing.smoke_test();
drop function backfill.promotion_checks();
drop function backfill.record_snapshot(timestamptz, text, text, bigint);
drop function backfill.waive(text, date, text, text);
drop view backfill.active_waivers;
drop table backfill.waiver;
drop table backfill.snapshot;
