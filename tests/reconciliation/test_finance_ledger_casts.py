"""Finance's ledger is read in three ways, by how plain it is: all make the same of it."""

from __future__ import annotations

import csv
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from runner.reconciliation.finance_ledger import COLUMNS, import_finance_ledger, plain_lines
from runner.settings import Settings
from tests.reconciliation.ledger_files import BAD, FAULTS, INSERT_RAW, UUID, line, staged, write

TEXTS = st.one_of(
    st.text(alphabet="0123456789.,-+eE:TZ /NaInfity", max_size=26),
    st.from_regex(r"\A-?[0-9]{1,16}(\.[0-9]{1,5})?\Z"),
    st.dates().map(str),
    st.datetimes().map(lambda t: t.isoformat() + "Z"),
    st.uuids().map(str),
    st.sampled_from(
        [
            "",
            " ",
            "USD",
            "usd ",
            "ÜSD",
            "JPY",
            "KWD",
            "null",
            "2024-02-29",
            "2023-02-29",
            "10000-01-01",
            "0001-01-01 BC",
        ]
    ),
)


@hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows=st.lists(st.fixed_dictionaries(dict.fromkeys(BAD, TEXTS)), min_size=1, max_size=5))
def test_the_quick_cast_takes_nothing_that_the_rules_reject(
    ledger_conn: psycopg.Connection, rows: list[dict[str, str]]
) -> None:
    """For any texts: what the optimistic cast accepts has no fault, and what has no fault can be cast."""
    conn = ledger_conn
    base = dict(zip(COLUMNS, next(csv.reader([line()])), strict=True))
    for row in [*rows, *({**base, name: row[name]} for row in rows for name in BAD)]:
        row = {**base, **row}
        with conn.transaction(force_rollback=True):
            conn.execute("select staging.begin_finance_ledger()")
            conn.execute(
                INSERT_RAW,
                [row[name] or None for name in COLUMNS],
            )
            found = conn.execute(FAULTS).fetchone()
            assert found is not None
            quick = casts(conn, proved=False)
            if found[0] is None:
                assert casts(conn, proved=True), row
            else:
                assert not quick, (row, found)


def casts(conn: psycopg.Connection, *, proved: bool) -> bool:
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("select staging.cast_finance_ledger('hypothesis', %s, 1)", [proved])
    except (psycopg.DataError, psycopg.errors.CheckViolation):
        return False
    return True


PLAIN = {
    "ledger_id": st.sampled_from(["L-1", " L-1", "L 1", "", "é", 'a"b', "a,b"]),
    "date": st.one_of(st.dates().map(str), TEXTS),
    "description": st.text(alphabet='ab ",\\.\n', max_size=5),
    "invoice_number": st.sampled_from(["", "INV-1", "INV 1", " INV-1", "1 "]),
    "invoice_id": st.one_of(st.uuids().map(str), st.uuids().map(lambda u: str(u).upper()), TEXTS),
    "amount": st.one_of(st.from_regex(r"\A-?[0-9]{1,16}(\.[0-9]{1,5})?\Z"), TEXTS),
    "currency": st.sampled_from(["USD", "usd", "EURO", "", " USD", "JPY", "KWD", "CLF"]),
    "status": st.sampled_from(["paid", "Paid", "part_paid", "", " paid"]),
    "paid_at": st.one_of(
        st.just(""), st.dates().map(str), st.datetimes().map(lambda t: t.isoformat() + "Z"),
        st.from_regex(r"\A2024-0[12]-[0-3][0-9][ T][0-2][0-9](:[0-5][0-9]){1,2} ?(Z|[+-][01][0-9](:?[0-9]{2})?)?\Z"),
    ),
}  # fmt: skip


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows=st.lists(st.fixed_dictionaries(PLAIN), min_size=1, max_size=4), zone=st.sampled_from(["UTC", "Asia/Tokyo"]))
def test_what_is_copied_straight_is_what_the_rules_make_of_it(
    ledger_conn: psycopg.Connection, rows: list[dict[str, str]], zone: str
) -> None:
    """For any texts: a line that fits the plain form has no fault, and the server reads it as the cast would."""
    conn = ledger_conn
    base = dict(zip(COLUMNS, next(csv.reader([line()])), strict=True))
    tried = [{**base, **row} for row in rows] + [{**base, name: row[name]} for row in rows for name in PLAIN]
    form = plain_lines(",", list(COLUMNS))
    assert form.fullmatch((line(**base) + "\n").encode())  # or nothing would be tried
    plain = [row for row in tried if form.fullmatch((line(**row) + "\n").encode())]
    shown = (
        "select to_jsonb(l) - 'file_sha256' from staging.finance_ledger_line as l where file_sha256 = %s order by line"
    )
    with conn.transaction(force_rollback=True):
        conn.execute("select set_config('timezone', %s, true)", [zone])
        conn.execute("select staging.begin_finance_ledger()")
        conn.cursor().executemany(
            INSERT_RAW,
            [[row[name] or None for name in COLUMNS] for row in plain],
        )
        faults = conn.execute(FAULTS).fetchall()
        # A day that is in no calendar has the form: there COPY fails, and the rules have the word.
        good = [row for row, (fault,) in zip(plain, faults, strict=True) if fault is None]
        for row, (fault,) in zip(plain, faults, strict=True):
            assert fault is None or not copied(conn, [row]), (row, fault)
        conn.execute("delete from staging.finance_ledger_raw as r where staging.finance_ledger_fault(r) is not null")
        conn.execute(
            "with n as (select ctid, row_number() over (order by line) as n from staging.finance_ledger_raw)"
            " update staging.finance_ledger_raw as r set line = n.n + 1 from n where r.ctid = n.ctid"
        )
        conn.execute("select staging.cast_finance_ledger('cast', true, %s)", [len(good)])
        assert copied(conn, good)
        assert conn.execute("select current_setting('timezone')").fetchone() == (zone,)
        assert conn.execute(shown, ["copied"]).fetchall() == conn.execute(shown, ["cast"]).fetchall()


def copied(conn: psycopg.Connection, rows: list[dict[str, str]]) -> bool:
    columns = ", ".join("entry_date" if name == "date" else name for name in COLUMNS)
    try:
        with conn.transaction(), conn.cursor() as cursor:
            cursor.execute("select staging.begin_plain_finance_ledger('copied')")
            with cursor.copy(
                f"copy staging.finance_ledger_line ({columns}) from stdin (format csv, force_null ({columns}))"
            ) as copy:
                copy.write("".join(line(**row) + "\n" for row in rows))
            if rows:
                cursor.execute("select staging.take_plain_finance_ledger('copied', %s)", [len(rows)])
            else:
                cursor.execute("select set_config('timezone', current_setting('staging.zone'), true)")
    except (psycopg.DataError, psycopg.errors.CheckViolation):
        return False
    return True


def test_what_writes_past_the_lock_into_a_plain_import_is_found_out(conn: psycopg.Connection) -> None:
    with pytest.raises(psycopg.DataError, match="not numbered one after the other"), conn.transaction():
        conn.execute("select backfill.begin_run('test')")
        conn.execute("select staging.begin_plain_finance_ledger('x')")
        conn.execute("select nextval(pg_get_serial_sequence('staging.finance_ledger_line', 'line'))")
        conn.execute(
            "insert into staging.finance_ledger_line (ledger_id, entry_date, amount, currency, status)"
            " values ('L', '2026-01-01', 1, 'USD', 'paid')"
        )
        conn.execute("select staging.take_plain_finance_ledger('x', 1)")


@pytest.mark.parametrize("sample", ["plain", "one line is not"])
def test_both_ways_number_and_read_the_same(settings: Settings, file: Path, sample: str) -> None:
    lines = [line(ledger_id=f"L-{i}", paid_at="2026-02-01", invoice_id=UUID) for i in range(1, 4)]
    write(file, *lines, line(ledger_id="L-4", status="sent" if sample == "plain" else "Sent"))
    assert import_finance_ledger(settings, file).rows == 4
    assert staged(settings) == [
        (n + 1, f"L-{n}", "2026-01-31", None, 123456, "USD", "sent", "2026-02-01 00:00:00" if n < 4 else None)
        for n in range(1, 5)
    ]


def test_whoever_copies_by_hand_is_told_of_lines_that_were_lost(ledger_conn: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error, match=r"hand\.csv: 4 lines were sent and 2 were read") as caught:
        ledger_conn.execute("select staging.begin_finance_ledger()")
        ledger_conn.execute("insert into staging.finance_ledger_raw (ledger_id) values ('L-1')")
        ledger_conn.execute("select * from staging.take_finance_ledger('x', 'hand.csv', 4)")
    assert caught.value.sqlstate == "BF030"


def test_the_import_needs_an_open_run(conn: psycopg.Connection) -> None:
    for call in ("begin_finance_ledger()", "take_finance_ledger('x', 'x')", "begin_plain_finance_ledger('x')"):
        with pytest.raises(psycopg.Error, match="no run is open") as caught, conn.transaction():
            conn.execute(f"select staging.{call}")
        assert caught.value.sqlstate == "BF001"
