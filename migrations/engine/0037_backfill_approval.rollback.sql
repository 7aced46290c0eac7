do $do$
begin
    if exists (select from backfill.policy) or exists (select from backfill.approval) then
        raise exception 'there are policies, or approvals that runs were committed with' using errcode = 'BF010',
            hint = 'They are part of the audit: export what is to be kept, and drop the schema by hand.';
    end if;
    perform backfill.revoke_from('backfill_auditor', 'select on backfill.policy, backfill.approval, backfill.approval_use');
    perform backfill.revoke_from('backfill_auditor', 'execute on function backfill.words_on(text)');
    perform backfill.revoke_from('backfill_approver', 'execute on function backfill.approve(text, text, interval), backfill.refuse(text, text)');
end;
$do$;
drop function backfill.words_on(text);
drop function backfill.refuse(text, text);
drop function backfill.approve(text, text, interval);
drop function backfill.decide(text, boolean, text, interval);
drop table backfill.unapproved;
drop table backfill.approval_use;
drop table backfill.approval;
drop table backfill.policy;
drop function backfill.link_policy();
drop function backfill.guard_approval();
do $$
begin
    drop role if exists backfill_approver;
exception
    when dependent_objects_still_exist or insufficient_privilege or object_in_use then
        raise notice 'role backfill_approver stays: %', sqlerrm;
end;
$$;
