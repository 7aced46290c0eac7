-- A smoke test of the billing flows, as a line of the promotion checklist.
-- Safe: a new function; it writes rows that its caller must roll back.
-- depends: 0225_staging_invoice_documents

create function billing.smoke_test() returns table (passed boolean, finding text, way_out text)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_company uuid := gen_random_uuid();
    v_facility uuid := gen_random_uuid();
    v_check uuid := gen_random_uuid();
    v_paid uuid;
    v_late uuid;
    v_count bigint;
    v_text text;
    v_step text;
begin
    foreach v_step in array '{issue,pay,allocate,accrue,void}'::text[] loop
        begin
            case v_step
                when 'issue' then
                    insert into billing.companies (id, name) values (v_company, 'smoke test ' || v_company);
                    insert into billing.settings (company_id, next_invoice_number, interest_annual_bps) values (v_company, 1, 1000);
                    insert into billing.facilities (id, company_id, name) values (v_facility, v_company, 'smoke test');
                    v_paid := (billing.create_facility_invoice(v_company, v_facility, '2020-01-06', '2020-01-12',
                        '[{"description": "smoke", "amount_cents": 10000}]')).id;
                    v_late := (billing.create_facility_invoice(v_company, v_facility, '2020-01-13', '2020-01-19',
                        '[{"description": "smoke", "amount_cents": 36500}]')).id;
                    update billing.invoices set status = 'sent', sent_at = '2020-02-01 00:00Z', due_date = '2020-02-10' where id = v_paid;
                    update billing.invoices set status = 'sent', sent_at = '2020-02-01 00:00Z', due_date = '2020-03-01' where id = v_late;
                    select count(distinct invoice_number) into v_count from billing.invoices where company_id = v_company;
                    passed := v_count = 2;
                    finding := format('%s invoices with numbers of their own', v_count);
                when 'pay' then
                    insert into billing.check_payments (id, company_id, facility_id, check_number, received_on, amount_cents)
                    values (v_check, v_company, v_facility, 'smoke', '2020-02-05', 10000);
                    passed := v_paid is not null;
                    finding := 'a check of 100.00';
                when 'allocate' then
                    select count(*) into v_count from billing.allocate_check(v_check);
                    select format('%s, %s cents', i.status, i.amount_paid_cents) into v_text from billing.invoices as i where i.id = v_paid;
                    passed := v_text is not distinct from 'paid, 10000 cents' and v_count = 1;
                    finding := format('the oldest invoice is %s', v_text);
                when 'accrue' then
                    perform billing.accrue_invoice_interest(v_late, '2020-03-11');
                    select sum(a.amount_cents) into v_text from billing.interest_accruals as a where a.invoice_id = v_late;
                    passed := v_text is not distinct from '100';  -- 365.00 at 10 % a year for ten days
                    finding := format('%s cents for ten days', coalesce(v_text, 'no'));
                when 'void' then
                    v_text := (billing.void_invoice(v_late, 'smoke test')).status;
                    passed := v_text is not distinct from 'void';
                    finding := format('the other invoice is %s', v_text);
                    begin
                        perform billing.void_invoice(v_paid, 'smoke test');
                        passed := false;
                        finding := 'a paid invoice was voided';
                    exception
                        when others then
                            null;  -- refused, as it must be
                    end;
            end case;
        exception
            when others then
                passed := false;
                finding := sqlerrm;
        end;
        finding := v_step || ': ' || finding;
        return next;
    end loop;
end;
$$;

comment on function billing.smoke_test() is
'Issue, pay, allocate, accrue, void, on a company of its own; each step with what came of it; a promotion check. It writes: call it in a transaction
that is rolled back, as runner promote does.';

do $do$
begin
    perform backfill.register_check('billing flows', 'invoices', 200, 'billing.smoke_test');
end;
$do$;
