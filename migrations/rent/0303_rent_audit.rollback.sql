-- Refused while these tables hold rows: they are history that nothing else keeps.
do $do$
declare
    v_table text;
    v_rows boolean;
begin
    foreach v_table in array array['electricity_bills', 'calculation', 'accepted_finding'] loop
        execute format('select exists (select from rent.%I)', v_table) into v_rows;
        if v_rows then
            raise exception 'rent.% holds rows: the migration cannot be rolled back', v_table
                using errcode = 'BF010', hint = 'Undo the runs that wrote them first: runner log, runner rollback RUN.';
        end if;
    end loop;
    if exists (select from rent.rent_ledger where calculation_date is not null) then
        raise exception 'rent.rent_ledger holds audit fields: the migration cannot be rolled back'
            using errcode = 'BF010', hint = 'Undo the runs that wrote them first: runner log, runner rollback RUN.';
    end if;
    perform backfill.untrack('rent.electricity_bills');
    perform backfill.untrack('rent.calculation');
    perform backfill.untrack('rent.accepted_finding');
    perform backfill.untrack('rent.rent_ledger');
    perform backfill.untrack('rent.rent_config');
end;
$do$;
drop function rent.accept_finding(text, text, text);
drop table rent.accepted_finding;
drop table rent.calculation;
drop table rent.electricity_bills;
alter table rent.rent_config drop column currency;
alter table rent.rent_ledger
drop column currency,
drop column days_stayed,
drop column room_adjustment,
drop column base_monthly_rent,
drop column calculation_title,
drop column calculation_date,
drop column calculation_version;
drop index rent.rent_ledger_one_row;
drop index rent.rent_config_one_value;
drop index rent.tenants_one_name;
do $do$
begin
    perform backfill.track('rent.rent_config', '{key,period}', 'value', 'SEK');
    perform backfill.track('rent.rent_ledger', '{tenant,period}', 'amount_due', 'SEK');
end;
$do$;
