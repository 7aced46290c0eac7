drop function billing.statement(uuid, date, date);
drop function billing.aging(date, text);
