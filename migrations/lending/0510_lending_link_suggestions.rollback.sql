drop view lending.mortgages_without_schedule;
drop view lending.unlinked_schedules;
drop view lending.link_suggestions;
