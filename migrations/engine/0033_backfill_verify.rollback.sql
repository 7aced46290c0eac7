do $do$
begin
    perform backfill.unregister_check('evidence');
end;
$do$;
drop function backfill.check_chain();
drop function backfill.verify_chain(text);
drop function backfill.wrong_engine();
drop function backfill.unlinked_runs();
drop function backfill.wrong_marks();
drop function backfill.wrong_run(backfill.chain);
drop function backfill.run_state(uuid);
drop function backfill.wrong_links(text);
