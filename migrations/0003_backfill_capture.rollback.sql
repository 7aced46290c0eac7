-- A log that holds runs is evidence: neither it nor the packs are dropped.
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
    v_operation text;
begin
    for v_table in select * from backfill.tracked where active loop
        if to_regclass(v_table.table_name) is not null then
            perform backfill.untrack(v_table.table_name::regclass);
            continue;
        end if;
        delete from backfill.tracked where table_name = v_table.table_name;
        perform backfill.rebuild_change_log();
        execute format('drop table backfill_audit.%I', v_table.pack_name);
        foreach v_operation in array array['insert', 'update', 'delete'] loop
            execute format('drop function backfill_audit.%I()', v_table.pack_name || '_' || v_operation);
        end loop;
    end loop;
end;
$$;
drop view backfill.change_log;
drop function backfill.refresh_tracked();
drop function backfill.untrack(regclass);
drop function backfill.track(regclass, text[], text);
drop function backfill.refuse_untrackable(regclass);
drop function backfill.generate_capture(backfill.tracked);
drop function backfill.retype_images(backfill.tracked, integer, text, text);
drop function backfill.add_images(backfill.tracked, text);
drop function backfill.primary_key(oid);
drop function backfill.rebuild_change_log(boolean);
drop function backfill.refuse_truncate();
drop function backfill.refuse_cascade(oid, text);
drop function backfill.next_statement();
drop function backfill.open_run();
drop function backfill.stored_type(oid);
