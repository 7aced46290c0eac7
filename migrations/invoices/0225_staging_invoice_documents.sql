-- How it is written down which originals of invoices are in the document store.
-- Safe: a function only.
-- depends: 0224_staging_invoice_intake

create function staging.record_documents(p_documents jsonb) returns backfill.backfill_log
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run uuid;
begin
    v_run := backfill.begin_run('invoice documents', p_subject => jsonb_build_object('documents', jsonb_array_length(p_documents)));
    insert into staging.invoice_documents (company_id, invoice_number, file_name, sha256, bytes, stored_path)
    select d.company_id, d.invoice_number, d.file_name, d.sha256, d.bytes, d.stored_path
    from jsonb_to_recordset(p_documents) as d (company_id uuid, invoice_number text, file_name text, sha256 text,
        bytes bigint, stored_path text)
    on conflict (company_id, invoice_number) do nothing;
    update billing.invoices as i
    set pdf_storage_path = d.stored_path
    from jsonb_to_recordset(p_documents) as d (company_id uuid, invoice_number text, stored_path text)
    join staging.invoices as s on s.company_id = d.company_id and s.invoice_number = d.invoice_number
    where i.id = s.invoice_id and i.pdf_storage_path is null;
    return backfill.finish_run();
end;
$$;
comment on function staging.record_documents(jsonb) is
'Writes down, as a run, which originals are in the store and were read back: [{company_id, invoice_number, file_name, sha256,
bytes, stored_path}], and sets the path of the invoices that are there already; those to come get it when they are written.';
