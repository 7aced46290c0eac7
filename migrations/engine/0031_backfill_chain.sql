-- The chain: each run that ends leaves a link, a sha256 over the link before it, over its row of the log and over its packs.
-- Whoever keeps the newest hash elsewhere has an anchor: what came before it cannot be altered unseen.
-- Safe: a new table and functions; finish_run() adds to it.
-- depends: 0025_backfill_rewind

create table backfill.chain (
    link bigint primary key check (link > 0),
    kind text not null check (kind in ('run', 'engine', 'export', 'restore', 'erase', 'policy', 'approval')),
    run_id uuid,
    at timestamptz not null,
    actor text not null,
    log_sha256 text,
    packs_sha256 text,
    detail jsonb not null check (jsonb_typeof(detail) = 'object'),
    previous text not null check (previous ~ '^[0-9a-f]{64}$'),
    hash text not null check (hash ~ '^[0-9a-f]{64}$'),
    -- What is about one run names it.
    check ((run_id is null) = (kind in ('engine', 'erase', 'policy', 'approval'))),
    check ((log_sha256 is not null) = (kind = 'run'))
);

create index chain_run on backfill.chain (run_id) where run_id is not null;
create index chain_erase on backfill.chain ((detail ->> 'pack')) where kind = 'erase';
create index chain_engine on backfill.chain (link) where kind = 'engine';

comment on table backfill.chain is
'One link for each run that ended, and for whatever took images away or changed the engine. Append-only; see backfill.verify_chain().';
comment on column backfill.chain.link is 'From 1, without a gap.';
comment on column backfill.chain.kind is
'run: it ended; engine: functions and triggers of the engine were made or changed; export, restore: the images of a run went to a file or came back;
erase: values were taken out of images; policy: who must approve was changed; approval: somebody approved changes, or refused them.';
comment on column backfill.chain.run_id is 'The run; null for what is about none.';
comment on column backfill.chain.at is 'When the link was made; its transaction ended later.';
comment on column backfill.chain.actor is 'Who: the session''s user unless a name was given.';
comment on column backfill.chain.log_sha256 is 'Of a run: sha256 of its row of the log, without what changes later (status, reversed_by).';
comment on column backfill.chain.packs_sha256 is 'sha256 of detail -> tables, and so of all images of the run; null where it wrote none.';
comment on column backfill.chain.detail is
'Of a run: status and tables, each with the types in which its images were hashed and their sha256. Of an export: the file. Of an erasure: reason,
columns, and each pack''s sha256 before and after. Of the engine: what was made, with its sha256, and what is gone.';
comment on column backfill.chain.previous is 'Hash of the link before; zeros for the first.';
comment on column backfill.chain.hash is 'sha256 of all of this link but the hash itself: see backfill.link_hash().';

do $do$
begin
    perform backfill.append_only('backfill.chain');
end;
$do$;

-- In plpgsql, here and below, where each run calls them: their plans are kept for the session.
create function backfill.sha256_of(p_value jsonb) returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    -- jsonb writes keys in one order and numbers as they were given, on every version. What is null counts as not there, so
    -- that a column that is added later changes no hash of before.
    return encode(sha256(convert_to(coalesce((
        select jsonb_object_agg(x.key, x.value)::text from jsonb_each(p_value) as x where x.value <> 'null'), '{}'), 'UTF8')), 'hex');
end;
$$;

comment on function backfill.sha256_of(jsonb) is
'sha256, in hex, of an object as jsonb writes it in UTF-8, without the keys whose value is null.';

create function backfill.link_hash(p_link backfill.chain) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
begin
    return backfill.sha256_of(to_jsonb(p_link) - 'hash');
end;
$$;

comment on function backfill.link_hash(backfill.chain) is 'The hash that a link must have: over all of its columns, the hash before it among them.';

create function backfill.log_hash(p_log backfill.backfill_log) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
begin
    -- A reversal marks what it undid; that mark follows from the reversals' own links.
    return backfill.sha256_of(to_jsonb(p_log) - array['status', 'reversed_by']);
end;
$$;

comment on function backfill.log_hash(backfill.backfill_log) is
'sha256 of a run''s row of the log, without status and reversed_by, which a reversal changes later.';

create function backfill.name_in_run(p_log backfill.backfill_log, p_table backfill.tracked) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Renamed since, a table would give an old run another digest. While the run is open it has the name that it has.
    return case when p_log.status = 'running' then p_table.table_name else coalesce((
        select x ->> 'table' from backfill.chain as c cross join lateral jsonb_array_elements(c.detail -> 'tables') as x
        where c.run_id = p_log.run_id and c.kind = 'run' and x ->> 'pack' = p_table.pack_name limit 1), p_table.table_name) end;
end;
$$;

comment on function backfill.name_in_run(backfill.backfill_log, backfill.tracked) is 'What a table was called when a run wrote it.';

create function backfill.add_link(
    p_kind text, p_run uuid, p_log text, p_detail jsonb, p_actor text
) returns backfill.chain
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_link backfill.chain;
begin
    -- Taken last in a transaction, and held until its end: links stand in the order in which they are committed.
    perform pg_advisory_xact_lock(hashtextextended('backfill.chain', 0));
    select c.link + 1, c.hash into v_link.link, v_link.previous from backfill.chain as c order by c.link desc limit 1;
    v_link.link := coalesce(v_link.link, 1);
    v_link.previous := coalesce(v_link.previous, repeat('0', 64));
    v_link.kind := p_kind;
    v_link.run_id := p_run;
    v_link.at := clock_timestamp();
    v_link.actor := p_actor;
    v_link.log_sha256 := p_log;
    v_link.packs_sha256 := case when p_detail ? 'tables' and p_detail -> 'tables' <> '[]'
        then encode(sha256(convert_to((p_detail -> 'tables')::text, 'UTF8')), 'hex') end;
    v_link.detail := p_detail;
    v_link.hash := backfill.link_hash(v_link);
    -- Where the transaction cannot see a link that was committed since its snapshot, this is a serialization failure.
    insert into backfill.chain select (v_link).* on conflict (link) do nothing;
    if not found then
        raise exception 'link % of the chain was made by another transaction', v_link.link using errcode = 'serialization_failure';
    end if;
    return v_link;
end;
$$;

comment on function backfill.add_link(text, uuid, text, jsonb, text) is 'The only way in which a link is made: after the last one. Granted to nobody.';

create function backfill.pack_bytes(p_types text[], p_stored text[]) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    -- record_send() and array_send() are the binary protocol: equal on every version, whatever compresses the arrays. They
    -- contain the types, so a column that was retyped since is hashed as what it was; a name of an object, whose oid is
    -- another one after a restore, as text.
    return (
        select format('record_send(row(p.statement, p.pack, p.operation, p.row_count, %s, %s))',
            string_agg(format('p.a%s%s', t.i, t.cast_as), ', ' order by t.i), string_agg(format('p.b%s%s', t.i, t.cast_as), ', ' order by t.i))
        from (
            select x.i, case when y.typname like 'reg%' and y.typnamespace = 'pg_catalog'::regnamespace then '::text[]'
                when to_regtype(x.stored) is distinct from y.oid then format('::%s[]', format_type(y.oid, -1)) else '' end as cast_as
            from unnest(p_types, p_stored) with ordinality as x (type, stored, i)
            join pg_type as y on y.oid = to_regtype(x.type)
            where x.i <= cardinality(p_types)
        ) as t
    );
end;
$$;

comment on function backfill.pack_bytes(text[], text[]) is
'SQL expression: the canonical bytes of pack p, whose first columns had these types when the run ended and are stored as those now.';

create function backfill.run_packs(p_run uuid) returns jsonb
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set client_encoding = 'UTF8'  -- what record_send() writes texts in
set jit = off
as $$
declare
    v_table backfill.tracked;
    v_part jsonb;
    v_parts jsonb := '[]';
begin
    for v_table in
        select * from backfill.tracked where pack_name in (select backfill.written_tables(p_run)) order by pack_name collate "C"
    loop
        execute format('select jsonb_build_object(''packs'', count(*), ''rows'', sum(p.row_count), ''sha256'', '
            'encode(sha256(string_agg(sha256(%s), '''' order by p.statement, p.pack)), ''hex'')) from backfill_audit.%I as p where p.run_id = $1',
            backfill.pack_bytes(v_table.stored_types, v_table.stored_types), v_table.images_name)
        into v_part using p_run;
        v_parts := v_parts || jsonb_build_array(v_part || jsonb_build_object('table', v_table.table_name, 'pack', v_table.pack_name,
            'columns', v_table.columns, 'types', v_table.stored_types));
    end loop;
    return v_parts;
end;
$$;

comment on function backfill.run_packs(uuid) is
'For each table that a run wrote: its name, its columns and their types as they are now, how many packs and rows, and the sha256 over the
sha256 of each pack, in the order of their statements.';

create function backfill.link_run(p_log backfill.backfill_log) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.add_link('run', p_log.run_id, backfill.log_hash(p_log),
        jsonb_build_object('status', p_log.status, 'tables', backfill.run_packs(p_log.run_id)), p_log.actor);
end;
$$;

comment on function backfill.link_run(backfill.backfill_log) is 'The link of a run that has just ended. finish_run() calls it, and nobody else may.';

create function backfill.chain_head() returns text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select c.link || ':' || c.hash from backfill.chain as c order by c.link desc limit 1;
$$;

comment on function backfill.chain_head() is
'Number and hash of the newest link, 42:9f...: keep a copy elsewhere, it is the anchor for backfill.verify_chain(anchor).';

create function backfill.erased_packs(p_run uuid, p_pack_name text)
returns table (statement bigint, pack integer, before bytea, after bytea)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select x.statement, x.pack, decode((array_agg(x.before order by c.link))[1], 'hex'), decode((array_agg(x.after order by c.link desc))[1], 'hex')
    from backfill.chain as c
    cross join lateral jsonb_to_recordset(c.detail -> 'packs') as x (run uuid, statement bigint, pack integer, before text, after text)
    where c.kind = 'erase' and c.detail ->> 'pack' = p_pack_name and x.run = p_run
    group by x.statement, x.pack;
$$;

comment on function backfill.erased_packs(uuid, text) is
'Packs of a run from which values were erased: the sha256 that each had at first, and the one that it must have since.';

create function backfill.wrong_images(p_run uuid, p_part jsonb, p_from text, p_stored text[]) returns text
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set client_encoding = 'UTF8'
set jit = off
as $$
declare
    v_types text[] := array(select jsonb_array_elements_text(p_part -> 'types'));
    v_packs bigint;
    v_rows bigint;
    v_sha256 text;
    v_more boolean;
begin
    -- A pack from which values were erased stands for what it was, as long as it is what the erasure left.
    execute format('select count(*), coalesce(sum(x.row_count), 0), bool_or(x.more), encode(sha256(coalesce(string_agg('
        'case when x.sha256 = e.after then e.before else x.sha256 end, '''' order by x.statement, x.pack), '''')), ''hex'') '
        'from (select p.statement, p.pack, p.row_count, sha256(%s) as sha256, %s as more from %s as p where p.run_id = $1) as x '
        'left join backfill.erased_packs($1, $2) as e on e.statement = x.statement and e.pack = x.pack',
        backfill.pack_bytes(v_types, p_stored),
        coalesce((select string_agg(format('p.a%1$s is not null or p.b%1$s is not null', i), ' or ')
            from generate_series(cardinality(v_types) + 1, cardinality(p_stored)) as i), 'false'), p_from)
    into v_packs, v_rows, v_more, v_sha256 using p_run, p_part ->> 'pack';
    return case
        when v_packs <> (p_part ->> 'packs')::bigint then format('%s packs of %s were captured, %s are there', p_part ->> 'packs', p_part ->> 'table', v_packs)
        when v_more then format('packs of %s hold columns that they had not', p_part ->> 'table')
        when v_rows <> (p_part ->> 'rows')::bigint or v_sha256 <> p_part ->> 'sha256' then format('packs of %s were altered', p_part ->> 'table') end;
end;
$$;

comment on function backfill.wrong_images(uuid, jsonb, text, text[]) is
'Are the images of a run in a table, or in a file of them, those that its link says? Null, or what is wrong. Images: what stands after FROM, and
the types in which they are stored there.';

revoke execute on all functions in schema backfill from public;
