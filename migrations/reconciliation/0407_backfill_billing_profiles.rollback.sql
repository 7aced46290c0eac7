do $do$
begin
    perform backfill.unregister('billing_profiles');
end;
$do$;
drop view billing._backfill_profiles;
drop function backfill.billing_profiles(jsonb);
drop view backfill.billing_profiles_rejects;
drop view backfill.billing_profiles_due;
drop view billing.profile_candidates;
