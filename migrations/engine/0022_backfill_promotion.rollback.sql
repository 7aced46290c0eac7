-- Snapshots and waivers that were given are evidence: they are not dropped.
do $$
begin
    if exists (select from backfill.snapshot) or exists (select from backfill.waiver)
        or exists (select from backfill.stored_failure) then
        raise exception 'backfill.snapshot, backfill.waiver or backfill.stored_failure hold evidence: the rollback would destroy it'
            using errcode = 'BF010', hint = 'Dump them, and drop them by hand if you must.';
    end if;
end;
$$;
drop function backfill.unregister_check(text);
drop function backfill.register_check(text, text, integer, text);
drop table backfill.promotion_check;
drop table backfill.stored_failure;
drop function backfill.record_snapshot(timestamptz, text, text, bigint);
drop function backfill.waive(text, date, text, text);
drop view backfill.active_waivers;
drop table backfill.waiver;
drop table backfill.snapshot;
