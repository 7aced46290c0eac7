drop function staging.take_aliases(uuid);
drop function billing.keep_facility_aliases(uuid, jsonb);
drop function staging.begin_invoices();
drop function staging.client_key(text);
