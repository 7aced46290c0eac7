-- Staging is sealed: rows are written in a load or by functions, and what a load or fetch left is known by a digest of its rows, so that a
-- backfill writes what was loaded, or nothing.
-- Safe: new tables and functions; triggers come onto tables of staging through backfill.seal_table(), which later migrations state.
-- depends: 0025_backfill_rewind

create table backfill.sealed_table (
    relation text primary key,
    owner_column text not null,
    backfills text[] not null,
    by_statement boolean not null
);

comment on table backfill.sealed_table is 'Tables of staging whose rows are sealed, see backfill.seal_table().';
comment on column backfill.sealed_table.relation is 'Schema-qualified, quoted name.';
comment on column backfill.sealed_table.owner_column is 'Column that says which file or fetch a row is of.';
comment on column backfill.sealed_table.backfills is 'Backfills that write what is staged there: they refuse where a seal is broken.';
comment on column backfill.sealed_table.by_statement is 'Each statement renews the seals; false: who fills the table calls backfill.seal_rows() at the end.';

create table backfill.seal (
    relation text not null references backfill.sealed_table (relation),
    owner text not null,
    row_count bigint not null,
    digest numeric not null,
    sealed_by uuid not null references backfill.backfill_log (run_id),
    primary key (relation, owner)
);

comment on table backfill.seal is 'How many rows of a file or fetch are staged, and the sum of their hashes, as runs left them.';
comment on column backfill.seal.relation is 'The sealed table.';
comment on column backfill.seal.owner is 'sha256 of the file, or id of the fetch; empty = rows that were given one by one.';
comment on column backfill.seal.row_count is 'Rows of it.';
comment on column backfill.seal.digest is 'Sum of their 64-bit hashes: it finds what was changed past the engine, and is no proof against who may change seals.';
comment on column backfill.seal.sealed_by is 'The last run that wrote rows of it.';

create function backfill.refuse_unlanded() returns trigger
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    -- As whoever writes. The owner's own hand is not held: past a run it breaks the seal, and the backfill refuses.
    if pg_has_role(current_user, (select c.relowner from pg_class as c where c.oid = tg_relid), 'usage') then
        return null;
    elsif backfill.open_run() is null then
        raise exception '% of %.% is refused: no load is open in this transaction', tg_op, tg_table_schema, tg_table_name
            using errcode = 'BF013', hint = 'Files come by runner load.';
    elsif not exists (select 1 from backfill.backfill_log as l where l.run_id = backfill.open_run() and l.mode = 'load') then
        raise exception '% of %.% is refused: the open run % is no load', tg_op, tg_table_schema, tg_table_name, backfill.open_run()
            using errcode = 'BF013', hint = 'Files come by runner load. What is staged already is corrected by the owner of the table.';
    end if;
    return null;
end;
$$;

comment on function backfill.refuse_unlanded() is
'Trigger of staging: all but the owner write it in a load only (BF013).';

create function backfill.renew_seal() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run uuid := backfill.open_run();
    v_strange text;
begin
    if v_run is null then
        return null;  -- the owner, past any run: the seal is broken, and stays so until it is as it was
    end if;
    if tg_op = 'INSERT' and exists (select 1 from backfill.backfill_log as l where l.run_id = v_run and l.mode = 'load') then
        execute format('select min(r.%1$I::text) from new_rows as r where r.%1$I::text <> $1::text and not exists ('
            'select 1 from staging.file as f where f.run_id = $1 and f.sha256 = r.%1$I::text)', tg_argv[1])
        into v_strange using v_run;
        if v_strange is not null then
            raise exception 'rows of %.% say that they are of %, which the open load % has not landed', tg_table_schema, tg_table_name, v_strange, v_run
                using errcode = 'BF013', hint = 'A load stages its own files: select staging.land_files(loader, files);';
        end if;
    end if;
    execute format('with moved as ('
        'select coalesce(m.owner, '''') as owner, sum(m.n) as n, sum(m.hash) as hash from (%s) as m group by 1) '
        'insert into backfill.seal as s (relation, owner, row_count, digest, sealed_by) '
        'select $1, m.owner, m.n, m.hash, $2 from moved as m '
        'on conflict (relation, owner) do update set row_count = s.row_count + excluded.row_count, '
        'digest = s.digest + excluded.digest, sealed_by = excluded.sealed_by',
        concat_ws(' union all ',
            case when tg_op <> 'DELETE' then format('select r.%I::text as owner, 1 as n, hash_record_extended(r.*, 0)::numeric as hash from new_rows as r', tg_argv[1]) end,
            case when tg_op <> 'INSERT' then format('select r.%I::text as owner, -1 as n, -hash_record_extended(r.*, 0)::numeric as hash from old_rows as r', tg_argv[1]) end))
    using tg_argv[0], v_run;
    delete from backfill.seal as s where s.relation = tg_argv[0] and s.row_count = 0 and s.digest = 0;
    return null;
end;
$$;

comment on function backfill.renew_seal() is
'Trigger of sealed tables: adds what a statement wrote in a run to the seals, and takes off what it replaced; a row that a later load takes
over leaves the seal of the earlier one. A load may stage its own files only (BF013).';

create function backfill.seal_rows(p_relation regclass, p_owner text) returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.sealed_table;
begin
    select t.* into strict v_table from backfill.sealed_table as t where to_regclass(t.relation) = p_relation;
    delete from backfill.seal as s where s.relation = v_table.relation and s.owner = p_owner;
    execute format('insert into backfill.seal (relation, owner, row_count, digest, sealed_by) '
        'select $1, $2, count(*), sum(hash_record_extended(r.*, 0)::numeric), $3 from %s as r where r.%I = $2 having count(*) > 0',
        p_relation, v_table.owner_column)
    using v_table.relation, p_owner, backfill.require_run('Staging is sealed in a run.');
end;
$$;

comment on function backfill.seal_rows(regclass, text) is
'Seals the rows of one file as they are now: for a function that fills a table in one go. Granted to nobody.';

create function backfill.require_sealed_rows(p_relation regclass, p_owner text) returns void
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_table backfill.sealed_table;
    v_found bigint;
    v_digest numeric;
begin
    select t.* into strict v_table from backfill.sealed_table as t where to_regclass(t.relation) = p_relation;
    execute format('select count(*), coalesce(sum(hash_record_extended(r.*, 0)::numeric), 0) from %s as r where r.%I = $1', p_relation, v_table.owner_column)
    into v_found, v_digest using p_owner;
    if not exists (select 1 from backfill.seal as s
        where s.relation = v_table.relation and s.owner = p_owner and s.row_count = v_found and s.digest = v_digest)
    then
        raise exception 'what is staged is not what was loaded: %: % rows of % were staged, % are there', v_table.relation,
            coalesce((select s.row_count from backfill.seal as s where s.relation = v_table.relation and s.owner = p_owner), 0),
            coalesce((select min(f.name) from staging.file as f where f.sha256 = p_owner), p_owner), v_found
            using errcode = 'BF013', hint = 'Somebody changed it past the engine: take the load back with backfill.reverse_run(run) and load the file again.';
    end if;
end;
$$;

comment on function backfill.require_sealed_rows(regclass, text) is 'Refuses (BF013) where the rows of one file are no longer what was loaded.';

create function backfill.broken_seals(p_backfill text default null)
returns table (relation text, owner text, source text, sealed bigint, found bigint)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set row_security = off
set jit = off
as $$
declare
    v_table backfill.sealed_table;
begin
    for v_table in
        select t.* from backfill.sealed_table as t
        where (p_backfill is null or p_backfill = any (t.backfills)) and to_regclass(t.relation) is not null order by t.relation
    loop
        return query execute format('select $1, x.owner, coalesce(l.name, nullif(x.owner, '''')), x.row_count, x.n from ('
            'select coalesce(s.owner, f.owner) as owner, coalesce(s.row_count, 0) as row_count, coalesce(f.n, 0) as n '
            'from (select coalesce(r.%1$I::text, '''') as owner, count(*) as n, sum(hash_record_extended(r.*, 0)::numeric) as hash from %2$s as r group by 1) as f '
            'full join (select * from backfill.seal as s where s.relation = $1) as s on s.owner = f.owner '
            'where (s.row_count, s.digest) is distinct from (f.n, f.hash)) as x '
            'left join lateral (select min(w.name) as name from staging.file as w where w.sha256 = x.owner) as l on true order by 1, 2',
            v_table.owner_column, v_table.relation)
        using v_table.relation;
    end loop;
end;
$$;

comment on function backfill.broken_seals(text) is
'Files and fetches whose staged rows are no longer what runs left (of one backfill, or of all): rows that were sealed, and rows that are there.';

create function backfill.require_seals(p_backfill text) returns void
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_count bigint;
    v_listed text;
begin
    select count(*), string_agg(format('%s: %s rows of %s were staged, %s are there%s', b.relation, b.sealed, coalesce(b.source, 'no file'), b.found,
        case when b.sealed = b.found then ', not the same' else '' end), e'\n' order by b.relation, b.owner)
    into v_count, v_listed
    from (select * from backfill.broken_seals(p_backfill) limit 11) as b;
    if v_count > 0 then
        raise exception 'backfill %: what is staged is not what was loaded: %', p_backfill, v_listed
            using errcode = 'BF013', hint = 'Nothing was written. Somebody changed it past the engine: put the rows back as they were, and take the load '
                'back with backfill.reverse_run(run). Who answers for them as they are, as the engine''s owner: '
                'select backfill.reseal(table, reason);';
    end if;
end;
$$;

comment on function backfill.require_seals(text) is 'Refuses (BF013), naming table and file, a backfill whose staged rows are no longer what was loaded.';

create function backfill.reseal(p_relation regclass, p_reason text) returns backfill.backfill_log
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_owner text;
begin
    if coalesce(btrim(p_reason), '') = '' then
        raise exception '% is sealed anew for a reason', p_relation using errcode = 'BF009', hint = 'select backfill.reseal(table, ''why'');';
    end if;
    perform backfill.begin_run(format('reseal %s: %s', p_relation, p_reason));
    for v_owner in select b.owner from backfill.broken_seals() as b where to_regclass(b.relation) = p_relation loop
        if v_owner = '' then
            raise exception '% holds rows that are of no file', p_relation using errcode = 'BF013', hint = 'Remove them, in a run.';
        end if;
        perform backfill.seal_rows(p_relation, v_owner);
    end loop;
    return backfill.finish_run();
end;
$$;

comment on function backfill.reseal(regclass, text) is
'Takes what is staged in a table for what was loaded, as a run of its own with the reason for its title. For the owner alone.';

create function backfill.tie_to_load(p_relation regclass) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('create or replace trigger backfill_landing before insert or update or delete on %s '
        'for each statement execute function backfill.refuse_unlanded()', p_relation);
end;
$$;

comment on function backfill.tie_to_load(regclass) is 'Puts onto a table of staging that all but its owner write it in a load only.';

create function backfill.seal_table(
    p_relation regclass, p_owner_column text, p_backfills text[], p_by_statement boolean default true
) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text := (select format('%I.%I', n.nspname, c.relname) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = p_relation);
    v_operation text;
begin
    insert into backfill.sealed_table (relation, owner_column, backfills, by_statement) values (v_name, p_owner_column, p_backfills, p_by_statement)
    on conflict (relation) do update
    set owner_column = excluded.owner_column, backfills = excluded.backfills, by_statement = excluded.by_statement;
    perform backfill.tie_to_load(p_relation);
    foreach v_operation in array array['insert', 'update', 'delete'] loop
        continue when not p_by_statement;
        execute format('create or replace trigger backfill_seal_%1$s after %1$s on %2$s referencing %3$s for each statement '
            'execute function backfill.renew_seal(%4$L, %5$L)', v_operation, p_relation,
            case v_operation when 'insert' then 'new table as new_rows' when 'delete' then 'old table as old_rows'
                else 'old table as old_rows new table as new_rows' end, v_name, p_owner_column);
    end loop;
end;
$$;

comment on function backfill.seal_table(regclass, text, text[], boolean) is
'Seals a table of staging: its rows are written in runs, and known by a digest for each file or fetch (owner column). The backfills
named refuse to write from it while a seal is broken.';

create function backfill.unseal_table(p_relation text) returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    delete from backfill.seal where relation = p_relation;
    delete from backfill.sealed_table where relation = p_relation;
$$;

comment on function backfill.unseal_table(text) is 'For the rollback of what made a sealed table: forgets its seals.';

revoke execute on function
backfill.refuse_unlanded(),
backfill.renew_seal(),
backfill.seal_rows(regclass, text),
backfill.require_sealed_rows(regclass, text),
backfill.broken_seals(text),
backfill.require_seals(text),
backfill.reseal(regclass, text),
backfill.tie_to_load(regclass),
backfill.seal_table(regclass, text, text[], boolean),
backfill.unseal_table(text)
from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on backfill.sealed_table, backfill.seal');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.broken_seals(text)');
end;
$do$;
