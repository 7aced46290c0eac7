drop function staging.record_documents(jsonb);
