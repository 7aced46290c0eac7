do $do$
begin
    perform backfill.revoke_from('backfill_operator', 'execute on function backfill.analyze_tables(text[])');
end;
$do$;
drop function backfill.analyze_tables(text[]);
drop function backfill.call_backfill(text, jsonb);
