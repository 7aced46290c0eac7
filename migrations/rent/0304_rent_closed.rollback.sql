-- A month that is closed stays closed: the rollback is refused then.
do $do$
begin
    if exists (select from rent.closed_period) then
        raise exception 'rent.closed_period holds rows: the migration cannot be rolled back'
            using errcode = 'BF010', hint = 'Undo the runs that closed the months first.';
    end if;
    perform backfill.untrack('rent.closed_period');
end;
$do$;
drop trigger c_refuse_truncate on rent.calculation;
drop trigger b_refuse_rewrite on rent.calculation;
drop trigger a_refuse_closed on rent.calculation;
drop trigger c_refuse_truncate on rent.electricity_bills;
drop trigger a_refuse_closed on rent.electricity_bills;
drop trigger c_refuse_truncate on rent.rent_config;
drop trigger a_refuse_closed on rent.rent_config;
drop trigger c_refuse_truncate on rent.rent_ledger;
drop trigger b_guard_ledger on rent.rent_ledger;
drop trigger a_refuse_closed on rent.rent_ledger;
drop function rent.close_period(text, text);
drop table rent.closed_period;
drop function rent.lock_period();
drop function rent.refuse_closed();
drop function rent.refuse_rewrite();
drop function rent.guard_ledger();
