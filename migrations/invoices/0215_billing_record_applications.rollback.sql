drop function billing.end_applications(uuid[], text, date);
drop function billing.record_applications(text[], uuid[], uuid[], bigint[], text, date, text);
drop function billing.follow_sources(uuid[]);
