drop view property.tenant_balance;
