drop function billing.create_facility_invoice(uuid, uuid, date, date, jsonb);
