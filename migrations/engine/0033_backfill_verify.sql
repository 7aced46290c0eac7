-- Verification: where the chain breaks, which run's log or images are not what its link says, and what of the engine is not
-- what its migrations made.
-- Safe: functions that read (one makes views for a moment), and a line of the promotion checklist.
-- depends: 0032_backfill_seal

create function backfill.wrong_links(p_anchor text) returns table (link bigint, run_id uuid, wrong text)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_anchor text[] := regexp_match(lower(btrim(p_anchor)), '^(?:([0-9]{1,18}):)?([0-9a-f]{64})$');
    v_found bigint;
begin
    if p_anchor is not null and v_anchor is null then
        raise exception 'an anchor is a hash of the chain, 64 hexadecimal digits, with the number of its link before it or not: % is none', quote_literal(p_anchor)
            using errcode = 'BF009', hint = 'It was printed as 42:9f... by runner apply, in the report and on the sign-off sheet.';
    end if;
    return query
    select c.link, c.run_id, w.wrong
    from (
        select x, x.link, x.run_id, x.previous, x.hash, lag(x.link) over (order by x.link) as link_before, lag(x.hash) over (order by x.link) as hash_before
        from backfill.chain as x
    ) as c
    cross join lateral (
        select format('links %s to %s are missing', coalesce(c.link_before, 0) + 1, c.link - 1) as wrong where c.link <> coalesce(c.link_before, 0) + 1
        union all
        select 'the link was altered: its hash is not that of what it says' where c.hash <> backfill.link_hash(c.x)
        union all
        select format('the chain breaks here: the hash before it is not that of link %s', c.link - 1)
        where c.link = coalesce(c.link_before, 0) + 1 and c.previous <> coalesce(c.hash_before, repeat('0', 64))
    ) as w
    order by c.link;

    if p_anchor is not null then
        select c.link into v_found from backfill.chain as c where c.hash = v_anchor[2];
        if v_found is null then
            return query select v_anchor[1]::bigint, null::uuid, format('the chain does not hold the anchor %s: it was cut off or written anew%s', p_anchor,
                (select format('; it ends with link %s', max(c.link)) from backfill.chain as c having max(c.link) < v_anchor[1]::bigint));
        elsif v_found <> v_anchor[1]::bigint then
            return query select v_found, null::uuid, format('the anchor is of link %s, and its hash is that of link %s', v_anchor[1], v_found);
        end if;
    end if;
end;
$$;

comment on function backfill.wrong_links(text) is
'Links that were altered, that are missing, or that do not follow the one before them; and whether the chain holds an anchor, N:hash or hash.';

create function backfill.run_state(p_run uuid) returns text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select c.kind from backfill.chain as c where c.run_id = p_run order by c.link desc limit 1;
$$;

comment on function backfill.run_state(uuid) is 'The last that happened to a run by the chain: run, export or restore; null where it has no link.';

create function backfill.wrong_run(p_link backfill.chain) returns setof text
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_log backfill.backfill_log;
    v_table backfill.tracked;
    v_part jsonb;
    v_there boolean;
    v_exported boolean := backfill.run_state(p_link.run_id) = 'export';
begin
    select * into v_log from backfill.backfill_log as l where l.run_id = p_link.run_id;
    if not found then
        return next 'its row of the log is missing';
    elsif backfill.log_hash(v_log) <> p_link.log_sha256 then
        return next 'its row of the log was altered';
    end if;
    for v_part in select * from jsonb_array_elements(p_link.detail -> 'tables') loop
        select * into v_table from backfill.tracked where pack_name = v_part ->> 'pack';
        if not found or to_regclass(format('backfill_audit.%I', v_table.images_name)) is null then
            if not v_exported then
                return next format('what kept the images of %s is gone: backfill_audit.%s', v_part ->> 'table', v_part ->> 'pack');
            end if;
        elsif v_exported then
            execute format('select exists (select 1 from backfill_audit.%I where run_id = $1)', v_table.images_name) into v_there using p_link.run_id;
            if v_there then
                return next format('its images were exported, and packs of %s are there', v_part ->> 'table');
            end if;
        else
            return query select w from backfill.wrong_images(p_link.run_id, v_part, format('backfill_audit.%I', v_table.images_name), v_table.stored_types) as w
                where w is not null;
        end if;
    end loop;
    return query select format('packs of %s were added', t.table_name)
        from backfill.tracked as t
        where t.pack_name in (select backfill.written_tables(p_link.run_id))
            and t.pack_name not in (select x ->> 'pack' from jsonb_array_elements(p_link.detail -> 'tables') as x);
end;
$$;

comment on function backfill.wrong_run(backfill.chain) is 'What of a run, its row of the log and its images, is not as the run''s link says.';

create function backfill.wrong_marks() returns table (run_id uuid, wrong text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    -- As backfill.finish_reversal() marks them: of a run and its undos every second generation stands, counted from the last.
    with recursive family as (
        select l.run_id, l.run_id as first_run, 0 as generation from backfill.backfill_log as l where l.reverses is null and l.status <> 'running'
        union all
        select l.run_id, f.first_run, f.generation + 1 from family as f join backfill.backfill_log as l on l.reverses = f.run_id
    ),
    last as (
        select distinct on (f.first_run) f.first_run, f.generation
        from family as f join backfill.chain as c on c.run_id = f.run_id and c.kind = 'run'
        order by f.first_run, c.link desc
    )
    select l.run_id, case when x.stands then format('it is marked as %s, and its link says %s', l.status, c.detail ->> 'status')
        else format('it is marked as %s, and a reversal undid it', l.status) end
    from family as f
    join last as n on n.first_run = f.first_run
    cross join lateral (select (f.generation - n.generation) % 2 = 0 as stands) as x
    join backfill.backfill_log as l on l.run_id = f.run_id
    join backfill.chain as c on c.run_id = f.run_id and c.kind = 'run'
    where (l.status = 'reversed') = x.stands
        -- What was undone and brought back is succeeded or partial again, as its errors say.
        or x.stands and l.status <> c.detail ->> 'status'
            and not (l.status in ('succeeded', 'partial') and exists (select 1 from backfill.backfill_log as r where r.reverses = l.run_id));
$$;

comment on function backfill.wrong_marks() is 'Runs whose status is neither what their link says nor what follows from their reversals.';

create function backfill.unlinked_runs() returns table (run_id uuid, wrong text)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
begin
    return query
    select l.run_id, 'it has no link: the link was removed, or the run was put into the log by hand'
    from backfill.backfill_log as l
    where l.status <> 'running' and not exists (select 1 from backfill.chain as c where c.run_id = l.run_id and c.kind = 'run')
    union all
    select c.run_id, 'it has more than one link' from backfill.chain as c where c.kind = 'run' group by c.run_id having count(*) > 1
    order by 1;
    for v_table in select * from backfill.tracked order by table_name loop
        continue when to_regclass(format('backfill_audit.%I', v_table.images_name)) is null;
        return query execute format('select i.run_id, %L from (select distinct p.run_id from backfill_audit.%I as p) as i '
            'where not exists (select 1 from backfill.backfill_log as l where l.run_id = i.run_id) '
            'and not exists (select 1 from backfill.chain as c where c.run_id = i.run_id and c.kind = ''run'')',
            format('packs of %s are there, and the log has no such run', v_table.table_name), v_table.images_name);
    end loop;
    return query
    select null::uuid, format('table backfill_audit.%I is of no tracked table', c.relname)
    from pg_class as c
    where c.relnamespace = 'backfill_audit'::regnamespace and c.relkind in ('r', 'v')
        and not exists (select 1 from backfill.tracked as t where c.relname in (t.pack_name, t.rows_name, t.images_name));
end;
$$;

comment on function backfill.unlinked_runs() is 'Runs of the log without a link, and images of a run that neither log nor chain knows.';

create function backfill.wrong_engine() returns setof text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select case when c.was is null then format('%s is of no seal: no migration that the runner applied made it', c.object)
        when c.sha256 is null then format('%s is gone: link %s sealed it', c.object, c.link)
        else format('%s is not what link %s sealed', c.object, c.link) end
    from backfill.changed_since_seal() as c
    order by c.object collate "C";
$$;

comment on function backfill.wrong_engine() is 'Functions, triggers and views of the engine that are not what the seals in the chain say.';

create function backfill.verify_chain(p_anchor text default null) returns table (link bigint, run_id uuid, wrong text)
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    -- One statement, and so one moment: what a run does meanwhile is seen whole, or not at all.
    select w.link, w.run_id, w.wrong from backfill.wrong_links(p_anchor) as w
    union all
    select c.link, c.run_id, w from backfill.chain as c cross join lateral backfill.wrong_run(c) as w where c.kind = 'run'
    union all
    select (select min(c.link) from backfill.chain as c where c.run_id = m.run_id and c.kind = 'run'), m.run_id, m.wrong from backfill.wrong_marks() as m
    union all
    select null, u.run_id, u.wrong from backfill.unlinked_runs() as u
    union all
    select null, null, w from (
        select backfill.wrong_engine() union all select backfill.wrong_captures() union all select backfill.wrong_guards()
        union all select backfill.wrong_tables() union all select backfill.wrong_views()
    ) as e (w);
$$;

comment on function backfill.verify_chain(text) is
'Nothing where all of the evidence holds; else, a row each, what does not: with its link and run where it is of one. Recomputes every hash: of the chain,
of each run''s row of the log, of all images; compares the engine with its seals, and what track() wrote with what it would write. Not looked at: owners,
grants, event triggers, and the rows of catalog, tracked and trusted_owner. Anchor: a head of the chain that was kept elsewhere (N:hash or hash), without which a chain that was cut off at its end, or written anew as a whole, looks whole.';

create function backfill.check_chain() returns table (passed boolean, finding text, way_out text)
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    with wrong as materialized (select * from backfill.verify_chain())
    select false, concat_ws(': ', 'link ' || w.link, 'run ' || w.run_id, w.wrong), 'docs/evidence.md says what to do' from wrong as w
    union all
    select true, format('the chain holds; its head, the anchor to keep, is %s', backfill.chain_head()), null where not exists (select 1 from wrong);
$$;

comment on function backfill.check_chain() is 'For the promotion checklist: does the chain hold, and what is the anchor to keep?';

revoke execute on all functions in schema backfill from public;

do $do$
begin
    perform backfill.register_check('evidence', 'engine', 5, 'backfill.check_chain');
end;
$do$;
