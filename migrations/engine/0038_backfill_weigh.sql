-- What a run that ends is weighed by: the money that it moved, the policies that it comes under, the approvals that it has.
-- Safe: functions only; finish_run() calls them.
-- depends: 0037_backfill_approval

create function backfill.gross(p_run uuid) returns jsonb
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_table backfill.tracked;
    v_one jsonb;
    v_all jsonb := '{}';
begin
    for v_table in
        select t.* from backfill.tracked as t where t.money is not null and t.pack_name in (select backfill.written_tables(p_run))
    loop
        execute format('select money from (%s) as m', backfill.changed_money(v_table.images_name, array_position(v_table.columns, v_table.money),
            v_table.stored_types[array_position(v_table.columns, v_table.money)], array_position(v_table.columns, v_table.currency_column),
            v_table.currency, null, null, true))
        into v_one using p_run;
        v_all := backfill.add_money(v_all, v_one);
    end loop;
    return v_all;
end;
$$;

comment on function backfill.gross(uuid) is
'How much money a run moved, in minor units by currency: what its rows were and what they are, added without their signs, void or not.';

create function backfill.policies_for(p_log backfill.backfill_log, p_gross jsonb) returns setof backfill.policy
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with written as (
        select t.table_name from backfill.tracked as t where t.pack_name in (select backfill.written_tables(p_log.run_id))
    )
    select p.* from backfill.policy as p
    where (p.backfill in ('*', p_log.backfill) or (p_log.mode <> 'apply' and exists (
            select from backfill.catalog as c where c.backfill = p.backfill and exists (select from written as w where w.table_name = any (c.tables)))))
        and (exists (select from jsonb_each_text(p_gross) as g
                where (p.currency = g.key or p.currency = '*') and g.value::numeric >= p.gross_from)
            or (p.currency = '*' and p.gross_from = 0 and exists (select from written)));
$$;

comment on function backfill.policies_for(backfill.backfill_log, jsonb) is 'The policies that a run of so much gross money comes under.';

create function backfill.weigh_run(p_run uuid, p_over boolean) returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_log backfill.backfill_log;
    v_gross jsonb;
    v_needed integer;
    v_signature text;
    v_words backfill.approval[];
    v_refused backfill.approval;
    v_given integer;
begin
    if not exists (select from backfill.policy) then
        return null;
    end if;
    select * into v_log from backfill.backfill_log where run_id = p_run;
    -- What a file says is no money yet that anybody owes.
    if v_log.mode in ('load', 'reversal') and not exists (select from backfill.tracked as t
        join pg_class as c on c.oid = t.relation
        where t.pack_name in (select backfill.written_tables(p_run)) and c.relnamespace::regnamespace::text <> 'staging')
    then
        return null;
    end if;
    v_gross := backfill.gross(p_run);
    select max(p.approvals) into v_needed from backfill.policies_for(v_log, v_gross) as p;
    if v_needed is null then
        return null;
    elsif not p_over then
        insert into backfill.unapproved (run_id, said, way_out)
        values (p_run, format('run %s (%s) reaches a policy (gross %s), and what spans transactions cannot be approved as a whole: what '
            'this transaction wrote was not committed',
            p_run, v_log.backfill, backfill.money_text(v_gross)), 'Do it in one transaction, or ask whoever wrote backfill.policy.')
        on conflict do nothing;
        return null;
    end if;
    v_signature := backfill.signature(p_run);
    -- Four eyes: neither whoever began the run nor whoever ends it.
    v_words := array(select w from backfill.words_on(v_signature) as w where w.login not in (v_log.login, session_user));
    select w.* into v_refused from unnest(v_words) as w where not w.approved order by w.decided_at desc limit 1;
    select count(*) into v_given from unnest(v_words) as w where w.approved;
    if v_refused.login is not null or v_given < v_needed then
        insert into backfill.unapproved (run_id, said, way_out)
        values (p_run, case when v_refused.login is not null
                then format('run %s (%s, gross %s) was refused by %s (%s): nothing was committed', p_run, v_log.backfill, backfill.money_text(v_gross), v_refused.login, v_refused.remark)
                else format('run %s (%s, gross %s) needs %s by other logins, and has %s: nothing was committed', p_run, v_log.backfill, backfill.money_text(v_gross),
                    case v_needed when 1 then 'an approval' else v_needed || ' approvals' end, case v_given when 0 then 'none' else v_given::text end) end,
            case when v_refused.login is not null then format('If %s approves it after all', v_refused.login) else 'As another login, in role backfill_approver' end
            || format(': select backfill.approve(%L, ''why''); then do the same again.', v_signature));
    else
        with used as (
            insert into backfill.approval_use (signature, login, decided_at, run_id)
            select w.signature, w.login, w.decided_at, p_run from unnest(v_words) as w
            on conflict do nothing returning 1
        )
        select count(*) into v_given from used;
        if v_given < v_needed then  -- a run that this transaction does not see yet was first
            raise exception 'approvals of run % were used by another run meanwhile', p_run using errcode = 'serialization_failure';
        end if;
    end if;
    return jsonb_build_object('approvals', jsonb_build_object('signature', v_signature, 'gross', v_gross, 'needed', v_needed, 'given', v_given,
        'words', coalesce((select jsonb_agg(jsonb_build_object('login', w.login, 'at', w.decided_at, 'approved', w.approved, 'remark', w.remark)
            order by w.decided_at) from unnest(v_words) as w), '[]')));
end;
$$;

comment on function backfill.weigh_run(uuid, boolean) is
'What a run that ends (over) needs under backfill.policy, and has: for its log, before its link of the chain; null where it needs nothing. What it lacks is
refused at the commit (BF019). Not over: the part of a run that spans transactions.';

create function backfill.taken_may_pass(p_backfill text) returns boolean
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select not exists (select from backfill.policy as p where p.backfill in ('*', p_backfill) and not p.taken_may_pass);
$$;

comment on function backfill.taken_may_pass(text) is 'Does every policy of a backfill let an apply leave rows to the application that wrote them meanwhile?';

create function backfill.leave_to_others(p_run uuid, p_rows jsonb) returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = off
set timezone = 'UTC'
as $$
declare
    v_log backfill.backfill_log;
    v_table backfill.tracked;
    v_part record;
    v_there bigint;
    v_gross jsonb;
    v_needed integer;
    v_signature text;
    v_words backfill.approval[];
begin
    if not exists (select from backfill.unapproved as u where u.xid = pg_current_xact_id() and u.run_id = p_run and not u.settled) then
        return null;
    end if;
    select * into v_log from backfill.backfill_log where run_id = p_run;
    v_gross := backfill.gross(p_run);
    select max(p.approvals) into v_needed from backfill.policies_for(v_log, v_gross) as p having bool_and(p.taken_may_pass);
    v_signature := backfill.signature(p_run, p_rows);
    v_words := array(select w from backfill.words_on(v_signature) as w where w.login not in (v_log.login, session_user));
    if v_needed is null or cardinality(v_words) < v_needed or exists (select from unnest(v_words) as w where not w.approved) then
        return null;
    end if;
    -- What is claimed to be there already must be.
    for v_part in
        select x.table_name, array_agg(x.business_key) as keys from jsonb_to_recordset(p_rows) as x (table_name text, business_key text)
        group by x.table_name
    loop
        select * into v_table from backfill.tracked as t where t.table_name = v_part.table_name and t.active;
        if not found then
            return null;
        end if;
        execute format('select count(distinct k.key) from unnest($1) as k (key) join %s as t on k.key = concat_ws('' / '', %s)',
            v_table.relation::regclass,
            (select string_agg(format('to_jsonb(t.%I) #>> ''{}''', b.name), ', ' order by b.i) from unnest(v_table.business_key) with ordinality as b (name, i)))
        into v_there using v_part.keys;
        if v_there <> cardinality(v_part.keys) then
            return null;
        end if;
    end loop;
    insert into backfill.approval_use (signature, login, decided_at, run_id)
    select w.signature, w.login, w.decided_at, p_run from unnest(v_words) as w;
    update backfill.unapproved set settled = true where xid = pg_current_xact_id() and run_id = p_run;
    perform backfill.add_link('approval', null, null, jsonb_build_object('run', p_run, 'signature', v_signature, 'left_to_others', p_rows), session_user);
    return jsonb_build_object('approvals', jsonb_build_object('signature', v_signature, 'gross', v_gross, 'needed', v_needed,
        'given', cardinality(v_words), 'words', (select jsonb_agg(jsonb_build_object('login', w.login, 'at', w.decided_at, 'approved', true,
            'remark', w.remark) order by w.decided_at) from unnest(v_words) as w)));
end;
$$;

comment on function backfill.leave_to_others(uuid, jsonb) is
'A finished run of this transaction wrote what was approved less these rows ({table_name, business_key, sha256} each, as backfill.signed_rows() had them), which
others have inserted since: with them it has the approved signature, each is in its table, and every policy lets such rows pass. What approves it, else null:
then its commit is refused. A link of the chain names them.';

revoke execute on function
backfill.leave_to_others(uuid, jsonb),
backfill.gross(uuid),
backfill.policies_for(backfill.backfill_log, jsonb),
backfill.weigh_run(uuid, boolean),
backfill.taken_may_pass(text)
from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.gross(uuid), backfill.taken_may_pass(text)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.leave_to_others(uuid, jsonb)');
    perform backfill.hand_over(true);
end;
$do$;
