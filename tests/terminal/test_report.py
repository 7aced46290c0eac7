"""How results look: money, width, hostile data; on a terminal, as JSON and as a page."""

from __future__ import annotations

import io
import json
import re
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any, get_args

import pytest

from runner.findings import Finding
from runner.gates import GateResult
from runner.log import RunDetail
from runner.money import amount
from runner.result import Attempt, BackfillResult, Change, Lock, Report, Reversal, TableChanges, TableTotals, Verdict
from runner.runs import Run
from runner.terminal.doctor import draw_findings
from runner.terminal.log import draw_run, draw_runs
from runner.terminal.output import change_line, console
from runner.terminal.page import apply_page
from runner.terminal.report import draw_report, strongest
from runner.terminal.rollback import draw_reversal
from runner.text import plain, size, to_json

HOSTILE = "<script>alert(1)</script> [red]x[/] [/] :warning: \x1b[31m\r\n& \"quoted\" 'too'"
SHOWN = "[red]x[/] [/] :warning: \\x1b[31m\\x0d\\x0a"
RUN_ID = uuid.UUID(int=7)
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


def change(key: str = "ada / unit 1 / 2024-01", cents: int = 123_456) -> Change:
    row = {"description": "Rent", "amount_cents": cents}
    return Change("property.charges", "INSERT", key, None, {"amounts": cents}, row)


def result(verdict: Verdict = "rehearsed", key: str = "ada / unit 1 / 2024-01", **more: Any) -> Report:
    """A report with something of everything; `key` is what the data calls a row."""
    backfill = BackfillResult(
        name="charges", description="Rent charges", business_key=("tenant", "unit", "period"), due_rows=3_708,
        due_money={"amounts": 1_593_538_300}, due_after=0, rejects=0, run_id=RUN_ID, digest="ab" * 32, seconds=0.1,
        tables=(TableChanges("property.charges", 3_708, 0, 0, {"amounts": 1_593_538_300}),), sample=(change(key),),
        metrics={},
    )  # fmt: skip
    attempt = Attempt(
        migrations=("0001_backfill_schema",),
        backfills=(backfill,),
        totals=(
            TableTotals(
                "property.charges",
                2,
                3_708,
                3_710,
                0,
                {"amounts": 145_050},
                {"amounts": 1_593_538_300},
                {"amounts": 1_593_683_350},
            ),
        ),
        gates=(
            GateResult("balances", "error", "pass", 0, [], 0.1),
            GateResult("amounts", "error", "fail", 2, [{"tenant": key, "cents": 87_900, "share": None}], 0.1, key),
        ),
        locks=(Lock("property.charges", "RowExclusiveLock", 0.1), Lock("property.charges", "ShareLock", 0.2)),
        triggers=("discount on property.charges",),
        sequences=("public.invoice_number",),
        wal_bytes=2_910_152,
        seconds=1.5,
    )
    return Report(verdict, "dbname=money", "18.4", "Etc/UTC", "2024-01-01T00:00:00+00:00", attempt, 1.5, **more)


def drawn(report: Report) -> str:
    stream = io.StringIO()
    draw_report(report, console(stream))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("cents", "shown"),
    [
        (0, "0.00"), (5, "0.05"), (-5, "-0.05"), (100, "1.00"), (-123_456, "-1,234.56"), (None, ""),
        (1_593_538_300, "15,935,383.00"), (2**63 - 1, "92,233,720,368,547,758.07"),
    ],
)  # fmt: skip
def test_money_has_separators_and_two_decimals(cents: int | None, shown: str) -> None:
    assert amount(cents) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 kB"), (2_910_152, "2.8 MB"), (5 * 1024**4, "5,120.0 GB")],
)
def test_bytes_are_in_the_unit_in_which_they_are_short(count: int, shown: str) -> None:
    assert size(count) == shown


def test_a_change_shows_what_it_does_to_the_money() -> None:
    assert change_line(change()) == ("ada / unit 1 / 2024-01", "insert", "1,234.56")
    assert change_line(replace(change(), operation="UPDATE", money_before={"amounts": 5}))[2] == "0.05 → 1,234.56"
    assert change_line(replace(change(), operation="UPDATE", money_before={"amounts": 123_456}))[2] == "1,234.56"
    removed = replace(change(), operation="DELETE", money_after=None)
    assert change_line(replace(removed, money_before={"amounts": 500}))[2] == "-5.00"
    assert change_line(replace(removed, money_before={"amounts": -500}))[2] == "5.00"  # a credit that goes
    assert change_line(removed)[2] == ""


def test_no_bare_cents_reach_the_terminal_or_the_page() -> None:
    for text in (drawn(result()), apply_page(result()).decode()):
        assert "15,935,383.00" in text
        assert "1,234.56" in text
        assert "879.00" in text
        for bare in ("1593538300", "123456", "87900", "1593683350"):
            assert bare not in text.replace(",", "")


@pytest.mark.parametrize("key", ["ada", "x" * 300, "two words " * 40, HOSTILE, "ü" * 150, "数" * 80])
def test_no_line_is_wider_than_a_hundred_columns(key: str) -> None:
    from rich.cells import cell_len

    for verdict in VERDICTS:
        text = drawn(result(verdict, key, differences=("charges: 1 rows, 2 rows",), not_rehearsable=("0009_x_y",)))
        assert max(cell_len(line) for line in text.splitlines()) <= 100


HEAD = "9f" * 32


def run(title: str) -> Run:
    now = datetime.now(UTC)
    return Run(
        RUN_ID, title, "manual", "succeeded", title, now, now, {"about": title}, {}, {}, [title], "ab", None, None,
        f"7:{HEAD}", None, None, None,
    )  # fmt: skip


def test_data_is_printed_literally_on_a_terminal() -> None:
    """Neither rich's markup nor its emoji nor control characters: what a tenant is called is only text."""
    stream = io.StringIO()
    out = console(stream)
    draw_report(result(key=HOSTILE), out)
    draw_run(RunDetail(run(HOSTILE), (change(HOSTILE),)), out)
    draw_runs([run(HOSTILE)], out)
    counts = (("property.charges", "restored", 1),)
    draw_reversal(Reversal(RUN_ID, HOSTILE, "rehearsed", None, counts, (), (("t", HOSTILE, "restored"),), 0.1), out)
    draw_findings([Finding("lock", "warn", HOSTILE)], out)
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "".join(text.split()).count("".join(SHOWN.split())) >= 7


class Page(HTMLParser):
    """What a page holds: its tags, whether they are closed, what it would load, and its text."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.loads, self.words = list[str](), set[str](), list[str](), ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [
            f"{name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")
        ]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_page_is_whole_and_loads_nothing(verdict: Verdict) -> None:
    text = apply_page(result(verdict, differences=("charges: 1 rows in the rehearsal",))).decode()
    page = Page(text)
    assert page.loads == []
    assert not re.search(r"url\(|@import|https?:", text)
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object"})
    for words in (
        "Control totals",
        "15,936,833.50",
        "balances",
        "amounts",
        "charges: 1 rows",
        "2.8 MB",
        "dbname=money",
    ):
        assert words in page.words
    assert ("runner rollback" in page.words) == (verdict == "applied")


def test_hostile_data_is_text_on_the_page() -> None:
    text = apply_page(result(key=HOSTILE)).decode()
    page = Page(text)
    assert "script" not in page.tags
    assert "<script>" not in text
    assert page.words.count("<script>alert(1)</script> [red]x[/]") >= 2


def test_a_reports_json_is_plain_whatever_a_gate_selects() -> None:
    odd = {
        "id": RUN_ID, "day": date(2024, 1, 2), "at": datetime(2024, 1, 2, tzinfo=UTC), "for": timedelta(days=1),
        "amount": Decimal("1.50"), "bytes": b"\x00", "list": [Decimal(1)], "map": {1: None}, "yes": True,
    }  # fmt: skip
    assert json.loads(to_json(odd)) == {
        "schema_version": 1,
        "id": str(RUN_ID), "day": "2024-01-02", "at": "2024-01-02T00:00:00+00:00", "for": "1 day, 0:00:00",
        "amount": "1.50", "bytes": "b'\\x00'", "list": ["1"], "map": {"1": None}, "yes": True,
    }  # fmt: skip
    assert plain(result())["attempt"]["backfills"][0]["run_id"] == str(RUN_ID)


def test_only_the_strongest_lock_of_a_table_is_shown() -> None:
    locks = [Lock("a", mode, 1.0) for mode in ("ShareLock", "AccessExclusiveLock", "RowExclusiveLock")]
    assert strongest([*locks, Lock("b", "RowShareLock", 2.0)]) == [locks[1], Lock("b", "RowShareLock", 2.0)]
    assert "ShareRowExclusive" not in drawn(result())
