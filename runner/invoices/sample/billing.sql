-- A company with five facilities; its next invoice was 992, and is 993 after its draft.
insert into billing.companies (id, name) values ('00000000-0000-4000-8000-00000000c001', 'Example Staffing');
insert into billing.settings (company_id, next_invoice_number) values ('00000000-0000-4000-8000-00000000c001', 992);
insert into billing.facilities (company_id, name)
select '00000000-0000-4000-8000-00000000c001', name
from unnest(array[
    'Hillside Care Home', 'Lakeview Clinic', 'Northgate Hospital', 'Riverside Rehab', 'St. Mary''s Hospice'
]) as name;
select billing.create_facility_invoice(
    company_id, id, '2024-04-29', '2024-05-05', '[{"description": "Nights", "amount_cents": 42000}]'
) from billing.facilities where name = 'Hillside Care Home';
