-- Who must say yes: a run whose money reaches a policy is committed only where others have approved exactly what it wrote.
-- Safe: new tables and functions, and a role; of no run anything is asked before a row stands in backfill.policy.
-- depends: 0036_backfill_signature

do $$
begin
    if not exists (select from pg_roles where rolname = 'backfill_approver') then
        create role backfill_approver nologin in role backfill_auditor;
        comment on role backfill_approver is 'May approve, or refuse, what runs are going to write: backfill.approve(). Writes nothing else.';
    end if;
exception
    when insufficient_privilege or undefined_object then
        raise notice 'role backfill_approver was not created: %', sqlerrm
            using hint = 'Ask for CREATEROLE, or have it created, in role backfill_auditor, and then: select backfill.regrant();';
    when duplicate_object or unique_violation then
        raise notice 'role backfill_approver is being created by another session';
end;
$$;

create table backfill.policy (
    backfill text not null default '*' check (backfill <> ''),
    currency text not null default '*'
    check (currency in ('*', 'amounts') or (currency = upper(btrim(currency)) and currency <> '')),
    gross_from numeric not null check (gross_from >= 0 and gross_from < 'NaN'),
    approvals integer not null default 1 check (approvals between 1 and 100),
    taken_may_pass boolean not null default false,
    primary key (backfill, currency, gross_from)
);

comment on table backfill.policy is
'From which sum on a run needs approvals. Written by the engine''s owner alone, each change a link of the chain: insert into backfill.policy
(backfill, currency, gross_from, approvals) values (''charges'', ''USD'', 1000000, 1); that is from 10,000.00 USD on.';
comment on column backfill.policy.backfill is
'A backfill of the catalog: its runs, their reversals, and what is done by hand to its tables. * is every run.';
comment on column backfill.policy.currency is 'Of which currency''s sum; amounts: of tables without one; *: of each by itself.';
comment on column backfill.policy.gross_from is
'Minor units: what rows were and what they are, added without their signs (+10 and -10 are 20). 0 with the currency *: every run that changes a row.';
comment on column backfill.policy.approvals is 'By how many logins, each another one than the one that writes.';
comment on column backfill.policy.taken_may_pass is 'May an apply leave rows to the application that wrote them meanwhile (--accept-taken)?';

create table backfill.approval (
    signature text not null check (signature ~ '^[0-9a-f]{64}$'),
    login name not null default session_user,
    decided_at timestamptz not null default clock_timestamp(),
    approved boolean not null,
    remark text not null check (btrim(remark) <> ''),
    expires_at timestamptz not null,
    primary key (signature, login, decided_at)
);

comment on table backfill.approval is 'What people said to the changes that have a signature. Append-only: the newest word of a login is its word.';
comment on column backfill.approval.signature is 'Of the run''s changes: backfill.signature(run), which its rehearsal shows.';
comment on column backfill.approval.login is 'Who logged in to say so, as the server knows it.';
comment on column backfill.approval.decided_at is 'When.';
comment on column backfill.approval.approved is 'False: refused; no run with these changes is committed while that is its word.';
comment on column backfill.approval.remark is 'Why, in words.';
comment on column backfill.approval.expires_at is 'An approval that was not used until then counts no more.';

create table backfill.approval_use (
    signature text not null,
    login name not null,
    decided_at timestamptz not null,
    run_id uuid not null references backfill.backfill_log (run_id),
    primary key (signature, login, decided_at),
    foreign key (signature, login, decided_at) references backfill.approval (signature, login, decided_at)
);

create index approval_use_run on backfill.approval_use (run_id);

comment on table backfill.approval_use is 'Which run an approval was used for: once. Append-only.';
comment on column backfill.approval_use.signature is 'The approval''s.';
comment on column backfill.approval_use.login is 'Who gave it.';
comment on column backfill.approval_use.decided_at is 'When he did.';
comment on column backfill.approval_use.run_id is 'The run that was committed with it.';

create table backfill.unapproved (
    run_id uuid not null,
    xid xid8 not null default pg_current_xact_id(),
    said text not null,
    way_out text not null,
    settled boolean not null default false,
    round integer not null default 0,
    probing boolean not null default false,
    immediate boolean not null default false,
    primary key (xid, run_id)
);

comment on table backfill.unapproved is 'Runs of open transactions that lack approvals. Never committed: see backfill.guard_approval().';
comment on column backfill.unapproved.run_id is 'The run.';
comment on column backfill.unapproved.xid is 'Its transaction.';
comment on column backfill.unapproved.said is 'What it lacks.';
comment on column backfill.unapproved.way_out is 'What to do.';
comment on column backfill.unapproved.settled is 'It was approved together with rows that others have written since: see backfill.leave_to_others().';
comment on column backfill.unapproved.round is 'Counts how often the guard was queued.';
comment on column backfill.unapproved.probing is 'The guard finds out whether constraints are immediate.';
comment on column backfill.unapproved.immediate is 'They are: it was no commit that fired the guard.';

do $do$
begin
    perform backfill.append_only('backfill.approval');
    perform backfill.append_only('backfill.approval_use');
end;
$do$;

create function backfill.guard_approval() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run backfill.unapproved;
begin
    select * into v_run from backfill.unapproved where xid = pg_current_xact_id() and run_id = new.run_id;
    if not found or new.round <> v_run.round or v_run.settled then
        return null;
    elsif v_run.probing then
        update backfill.unapproved set immediate = true where xid = v_run.xid and run_id = v_run.run_id;
        return null;
    end if;
    -- As in guard_commit(): queued once more, it fires at once where somebody made constraints immediate, as a rehearsal does, and at the
    -- end of a commit otherwise.
    update backfill.unapproved set probing = true, immediate = false where xid = v_run.xid and run_id = v_run.run_id;
    update backfill.unapproved set round = round + 1 where xid = v_run.xid and run_id = v_run.run_id;
    update backfill.unapproved set probing = false where xid = v_run.xid and run_id = v_run.run_id returning * into v_run;
    if v_run.immediate then
        set constraints backfill.guard_approval deferred;
        update backfill.unapproved set round = round + 1 where xid = v_run.xid and run_id = v_run.run_id;
        return null;
    end if;
    raise exception '%', v_run.said using errcode = 'BF019', hint = v_run.way_out;
end;
$$;

comment on function backfill.guard_approval() is
'Deferred trigger: refuses (BF019) the commit of a run that lacks approvals. SET CONSTRAINTS does not fire it, so that everything can be rehearsed.';

create constraint trigger guard_approval after insert or update of round on backfill.unapproved
deferrable initially deferred for each row execute function backfill.guard_approval();
create trigger refuse_delete before delete on backfill.unapproved
for each statement execute function backfill.refuse_change();
create trigger refuse_truncate before truncate on backfill.unapproved
for each statement execute function backfill.refuse_change();
alter table backfill.unapproved
enable always trigger guard_approval, enable always trigger refuse_delete, enable always trigger refuse_truncate;

create function backfill.link_policy() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.add_link('policy', null, null, jsonb_strip_nulls(jsonb_build_object(
        'was', case when tg_op <> 'INSERT' then to_jsonb(old) end, 'is', case when tg_op <> 'DELETE' then to_jsonb(new) end)), session_user);
    return null;
end;
$$;

comment on function backfill.link_policy() is 'Trigger: a policy that is made, changed or taken away is a link of the chain.';

create trigger link_policy after insert or update or delete on backfill.policy
for each row execute function backfill.link_policy();
create trigger refuse_truncate before truncate on backfill.policy
for each statement execute function backfill.refuse_change();
alter table backfill.policy enable always trigger link_policy, enable always trigger refuse_truncate;

create function backfill.decide(p_digest text, p_approved boolean, p_remark text, p_valid interval)
returns backfill.approval
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_said backfill.approval;
begin
    if p_digest is null or p_digest !~ '^[0-9a-f]{64}$' then
        raise exception '% is no signature: that has 64 hexadecimal digits', coalesce(quote_literal(left(p_digest, 80)), 'null')
            using errcode = 'BF009', hint = 'The rehearsal shows it: runner apply --dry-run, or select backfill.signature(run) before the rollback.';
    elsif coalesce(btrim(p_remark), '') = '' then
        raise exception 'a decision needs a remark' using errcode = 'BF009', hint = 'select backfill.approve(signature, ''seen with Finance, ticket 4711'');';
    elsif p_valid <= '0' or p_valid > '1 year' then
        raise exception 'an approval holds for some time, and for a year at most' using errcode = 'BF009', hint = 'p_valid => ''7 days''';
    end if;
    insert into backfill.approval (signature, approved, remark, expires_at)
    values (p_digest, p_approved, btrim(p_remark), clock_timestamp() + coalesce(p_valid, '7 days'))
    returning * into v_said;
    perform backfill.add_link('approval', null, null, to_jsonb(v_said), session_user);
    return v_said;
end;
$$;

comment on function backfill.decide(text, boolean, text, interval) is 'What approve() and refuse() share.';

create function backfill.approve(p_digest text, p_remark text, p_valid interval default null)
returns backfill.approval
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
return backfill.decide(p_digest, true, p_remark, p_valid);

comment on function backfill.approve(text, text, interval) is
'Approves the changes that have this signature (64 hexadecimal digits, as a rehearsal shows them), for one run by another login, within
seven days unless it says otherwise: select backfill.approve(signature, ''seen with Finance''). A link of the chain.';

create function backfill.refuse(p_digest text, p_remark text) returns backfill.approval
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
return backfill.decide(p_digest, false, p_remark, null);

comment on function backfill.refuse(text, text) is
'Refuses the changes that have this signature: no run that needs approvals is committed with them, whoever else approved, until the same login approves.';

create function backfill.words_on(p_signature text) returns setof backfill.approval
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select a.* from (
        select distinct on (x.login) x.* from backfill.approval as x where x.signature = p_signature order by x.login, x.decided_at desc
    ) as a
    where not a.approved or (a.expires_at > clock_timestamp() and not exists (
        select from backfill.approval_use as u where u.signature = a.signature and u.login = a.login and u.decided_at = a.decided_at))
    order by a.decided_at;
$$;

comment on function backfill.words_on(text) is 'What counts now for changes of this signature: approvals that are neither used nor over, and refusals.';

revoke execute on function
backfill.guard_approval(),
backfill.link_policy(),
backfill.decide(text, boolean, text, interval),
backfill.approve(text, text, interval),
backfill.refuse(text, text),
backfill.words_on(text)
from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on backfill.policy, backfill.approval, backfill.approval_use');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.words_on(text)');
    perform backfill.grant_to('backfill_approver', 'execute on function backfill.approve(text, text, interval), backfill.refuse(text, text)');
    perform backfill.hand_over(true);
end;
$do$;
