drop view lending.transactions;
drop view lending.schedules;
drop function lending.schedule_status(bigint);
