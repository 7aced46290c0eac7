"""Lending: transactions staged in pages, backfilled and posted, against the bare INSERT…SELECTs of the same rows."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from runner import embedded
from tests.benchmarks.harness import Result, fresh_database

ROWS = 100_000
PAGE = 1_000  # what Rotessa sends at most

_BOOK = """
    insert into lending.borrowers (id, name, rotessa_customer_id)
    select backfill.business_id('b', i::text), 'Borrower ' || i, i from generate_series(1, {mortgages}) as i;
    insert into lending.mortgages (id, number, borrower_id, payment_cents, rotessa_schedule_id, rotessa_schedule_status,
        rotessa_last_sync_at)
    select backfill.business_id('m', i::text), 'M-' || i, backfill.business_id('b', i::text), 100000 + i, i,
        'active', now()
    from generate_series(1, {mortgages}) as i;
    create table source_transaction as
    select i::bigint as id, 1 + (i %% {mortgages})::bigint as customer_id,
        1 + (i %% {mortgages})::bigint as schedule_id,
        100000::bigint + i %% {mortgages} as amount_cents, 'Approved'::text as status, null::text as status_reason,
        date '2016-01-01' + (i %% 3000)::integer as process_date,
        date '2016-01-03' + (i %% 3000)::integer as settlement_date,
        1 as version, gen_random_uuid() as fetch_id, now() as changed_at
    from generate_series(1, {rows}) as i;
    create table bare_transaction (like staging.rotessa_transaction including all);
    create table bare_payment (like lending.payments including all);
    create table bare_ledger (like ledger.transactions including all);
    create table bare_account (like ledger.accounts including all);
    create table bare_posting (like ledger.postings including all);
    alter table bare_payment add foreign key (mortgage_id) references lending.mortgages (id);
    alter table bare_payment add foreign key (ledger_transaction_id) references bare_ledger (id)
    deferrable initially deferred;
    alter table bare_ledger add foreign key (reverses) references bare_ledger (id);
    alter table bare_posting add foreign key (transaction_id) references bare_ledger (id);
    alter table bare_posting add foreign key (account) references bare_account (account);
"""
_PAGES = """
    select (row_number() over (order by id) - 1) / %s as page, json_build_object('id', id, 'customer_id', customer_id,
        'transaction_schedule_id', schedule_id, 'amount', (amount_cents / 100.0)::numeric(20, 2)::text,
        'status', status, 'status_reason', status_reason, 'process_date', process_date,
        'settlement_date', settlement_date, 'comment', null, 'created_at', '2016-01-01T00:00:00Z')::text
    from source_transaction order by id
"""
# The same rows with the same keys, indexes and foreign keys, and nothing else.
_BARE_STAGING = "insert into bare_transaction select * from source_transaction"
_BARE_BOOKS = (
    """
    insert into bare_payment (id, mortgage_id, source_reference, rotessa_customer_id, amount_cents, status,
        process_date, settlement_date, origin, ledger_transaction_id)
    select gen_random_uuid(), m.id, 'rotessa:tx:' || t.id, t.customer_id, t.amount_cents, 'approved', t.process_date,
        t.settlement_date, 'backfill', gen_random_uuid()
    from bare_transaction as t join lending.mortgages as m on m.rotessa_schedule_id = t.schedule_id
    where t.status = 'Approved'
    """,
    """
    insert into bare_ledger (id, reference, effective_at)
    select ledger_transaction_id, source_reference, settlement_date::timestamp at time zone 'UTC' from bare_payment
    """,
    """
    insert into bare_account (account)
    select distinct a.account from bare_payment as p
    cross join lateral (values ('world'), ('borrower:' || p.rotessa_customer_id || ':rotessa'),
        ('mortgage:' || p.mortgage_id || ':trust')) as a (account)
    """,
    """
    insert into bare_posting (transaction_id, line_no, account, amount)
    select p.ledger_transaction_id, l.line_no, l.account, l.amount
    from bare_payment as p
    cross join lateral (values
        (1, 'world', -p.amount_cents), (2, 'borrower:' || p.rotessa_customer_id || ':rotessa', p.amount_cents),
        (3, 'borrower:' || p.rotessa_customer_id || ':rotessa', -p.amount_cents),
        (4, 'mortgage:' || p.mortgage_id || ':trust', p.amount_cents)) as l (line_no, account, amount)
    """,
)
_RESET = """
    set session_replication_role = replica;
    truncate bare_transaction, bare_payment, bare_ledger, bare_account, bare_posting, staging.rotessa_transaction,
        lending.payments, ledger.push, ledger.postings, ledger.transactions;
    delete from ledger.accounts where account <> 'world';
    reset session_replication_role;
"""


def run(server: embedded.Server, *, scale: float, rounds: int) -> Iterator[Result]:
    """Staged, backfilled and posted: at most 2 as a whole; the halves are told as well."""
    rows = max(1000, int(ROWS * scale))
    url = fresh_database(server, "bench_lending")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_BOOK.format(rows=rows, mortgages=max(10, rows // 100)).replace("%%", "%").encode())
        conn.execute("vacuum analyze")
        # What the client hands over is an array parsed and stripped already: making its text is not what is measured.
        pages: dict[int, list[str]] = {}
        for page, row in conn.execute(_PAGES, [PAGE]):
            pages.setdefault(page, []).append(row)
        texts = [f"[{','.join(page)}]" for page in pages.values()]
        assert sum(len(json.loads(text)) for text in texts) == rows

        def reset() -> None:
            conn.execute(_RESET)
            conn.execute("checkpoint")

        def bare_staging() -> None:
            conn.execute(_BARE_STAGING)

        def staging() -> None:
            fetch = _one(conn, "select fetch_id from staging.begin_rotessa_fetch('2016-01-01', null, 0)")
            for number, text in enumerate(texts, 1):
                conn.execute("select * from staging.take_rotessa_transactions(%s, %s, %s)", [fetch, number, text])
            conn.execute("select staging.finish_rotessa_fetch(%s)", [fetch])

        def bare_books() -> None:
            with conn.transaction():
                conn.execute("set local jit = off")
                for statement in _BARE_BOOKS:
                    conn.execute(statement.encode())

        def books() -> None:
            conn.execute("select from backfill.run('lending_payments')")
            assert _one(conn, "select count(*) from ledger.postings") == 4 * rows

        def bare_all() -> None:
            bare_staging()
            bare_books()

        def ours_all() -> None:
            staging()
            books()

        def staged() -> None:
            reset()
            bare_staging()
            conn.execute("insert into staging.rotessa_transaction select * from source_transaction")
            conn.execute("select backfill.reseal('staging.rotessa_transaction', 'of the benchmark')")

        for name, limit, bare, ours, before in (
            ("lending: staged, backfilled and posted / bare", 2.0, bare_all, ours_all, reset),
            ("lending: staged from pages of 1,000 / bare", None, bare_staging, staging, reset),
            ("lending: backfilled and posted / bare", None, bare_books, books, staged),
        ):
            yield _paired(conn, name, limit, bare, ours, before, rounds)


def _paired(
    conn: psycopg.Connection,
    name: str,
    limit: float | None,
    bare: Callable[[], object],
    ours: Callable[[], object],
    reset: Callable[[], object],
    rounds: int,
) -> Result:
    """The ratio of the server process's CPU time, which other work on the machine does not stretch; both are shown."""
    pairs = []
    for _ in range(rounds + 1):
        taken = []
        for action in (bare, ours):
            reset()
            before, started = cpu(conn), time.perf_counter()
            action()
            taken += [cpu(conn) - before, time.perf_counter() - started]
        pairs.append(taken)
    one, wall_one, two, wall_two = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
    ratio = statistics.median(pair[2] / pair[0] for pair in pairs[1:])
    return Result(
        name,
        ratio,
        limit,
        f"CPU {one:.2f} s bare, {two:.2f} s ours; {wall_one:.1f} s and {wall_two:.1f} s by the clock",
    )


def cpu(conn: psycopg.Connection) -> float:
    """CPU seconds of the connection's server process so far; Linux only."""
    fields = Path(f"/proc/{conn.info.backend_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _one(conn: psycopg.Connection, query: str) -> object:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]
