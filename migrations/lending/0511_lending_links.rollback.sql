-- The role belongs to the whole cluster: it goes only when no database needs it any more.
drop view lending.runs;
drop function lending.unlink_schedule(bigint, text, boolean);
drop function lending.link_schedule(bigint, text, text);
drop function lending.mortgage(text);
drop index backfill.backfill_log_mortgage;
do $$
begin
    drop role if exists lending_admin;
exception
    when dependent_objects_still_exist or insufficient_privilege or object_in_use then
        raise notice 'role lending_admin stays: %', sqlerrm;
end;
$$;
