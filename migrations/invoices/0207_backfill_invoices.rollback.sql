do $do$
begin
    perform backfill.unregister('invoices');
end;
$do$;
drop function backfill.invoices(jsonb);
drop function backfill.write_invoices(uuid, text);
drop function backfill.raise_watermark(uuid, bigint);
