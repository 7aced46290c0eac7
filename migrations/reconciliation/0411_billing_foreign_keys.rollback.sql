do $do$
begin
    perform backfill.unregister_check('constraints');
end;
$do$;
drop function billing.constraints_check();
drop function billing.require_profiles();
drop function billing.validate_constraints();
drop view billing.constraint_offenders;
alter table billing.invoices drop constraint if exists invoices_profile_of_customer;
alter table billing.invoices drop constraint if exists invoices_customer_fk;
alter table billing.invoices drop constraint if exists invoices_billing_profile_fk;
alter table billing.payments drop constraint if exists payments_invoice_fk;
