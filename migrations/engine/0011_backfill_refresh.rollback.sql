-- A log that holds runs is evidence: neither it nor the images are dropped.
do $$
begin
    if exists (select from backfill.backfill_log) then
        raise exception 'backfill.backfill_log holds % runs: the rollback would destroy the audit',
            (select count(*) from backfill.backfill_log)
            using errcode = 'BF010', hint = 'Dump the schemas backfill and backfill_audit, and drop them by hand if you must.';
    end if;
end;
$$;
-- Later migrations untrack their own tables; what somebody tracked by hand, or dropped since, is seen to here.
do $$
declare
    v_table backfill.tracked;
begin
    perform backfill.rebind_tracked();
    for v_table in select * from backfill.tracked where active loop
        if exists (select from pg_class where oid = v_table.relation) then
            perform backfill.untrack(v_table.relation);
        else
            perform backfill.forget_images(v_table);
        end if;
    end loop;
end;
$$;
drop function backfill.table_marks(oid[]);
drop function backfill.refresh_tracked();
drop function backfill.follow_columns(backfill.tracked);
drop function backfill.guard_children();
drop function backfill.guarded_children();
drop function backfill.refuse_cascade();
drop function backfill.mark_cascade();
