do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.by_dimension(uuid, text, boolean), backfill.shown_key(text, jsonb), '
        'backfill.known_as(regclass, text)');
end;
$do$;
drop function backfill.by_dimension(uuid, text, boolean);
drop function backfill.shown_key(text, jsonb);
drop function backfill.known_as(regclass, text);
