"""The page for Finance: what it says, by month and by whom, on a phone, in the dark, on paper; without a network."""

from __future__ import annotations

import csv
import re
import stat
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import psycopg
import pytest

from runner.result import Dimension, DimensionLine
from runner.terminal.page import MONTHS, VALUES, bars
from tests.engine.words import rows, value
from tests.story import SAMPLE_CHARGES, UNIT, adopt, last_run, run, sql
from tests.terminal.browser import look, needs_browser, printed, screenshot

PAYMENT = """insert into property.payments
    (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period)"""
LONG = "a_name_of_a_tenant_that_no_line_of_a_phone_will_ever_hold_" * 3


class Outline(HTMLParser):
    """Headings, tables with their captions, and what a page must not hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[tuple[str, str]] = []
        self.tables = self.captions = self.scripts = 0
        self.headings_without_scope = 0
        self.links: list[str] = []
        self._tag = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._tag = tag if tag in ("h1", "h2", "h3", "caption") else "lead" if given.get("class") == "lead" else ""
        self.tables += tag == "table"
        self.captions += tag == "caption"
        self.scripts += tag == "script"
        self.headings_without_scope += tag == "th" and given.get("scope") != "col"
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        if self._tag and data.strip():
            self.texts.append((self._tag, " ".join(data.split())))
            self._tag = ""

    def of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


def page_of(url: str, folder: Path, *words: str, code: int = 0) -> Path:
    page = folder / "page.html"
    run(url, *words, "--html", str(page), code=code)
    return page


def test_it_says_in_a_sentence_what_it_comes_to_and_shows_it_by_month_and_tenant(url: str, tmp_path: Path) -> None:
    page = page_of(url, tmp_path, "apply", "charges", "--dry-run")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    text = page.read_text()
    seen = Outline(text)
    [lead] = seen.of("lead")
    assert lead == (
        "144 rows worth 123,501.50 will be written if this is applied: Rent charges for payments that were taken "
        "before charges existed. Nothing is written yet."
    )
    assert seen.of("h3")[:2] == ["By billing period", "By tenant user"]
    assert seen.of("h2")[1:] == ["Control totals", "Checks", "Signature"]
    assert (seen.tables, seen.scripts, seen.links, seen.headings_without_scope) == (seen.captions, 0, [], 0)
    assert "A tenant owes rent twice for one unit and period." in text
    assert "charges_reconciled_on_nothing" not in text
    assert re.search(r"runner apply charges --expect [0-9a-f]{64}", text)
    assert re.search(r"Chain: <code>\d+:[0-9a-f]{64}</code>", text)


def test_the_months_add_up_to_the_whole(url: str) -> None:
    with psycopg.connect(url) as conn:
        run_id = value(conn, "select run_id from backfill.run('charges')")
        by_month = f"backfill.by_dimension('{run_id}', 'billing_period', true)"
        found = rows(conn, f"select sum(row_count), sum(change), bool_and(before + change = after) from {by_month}")
    assert found == [(SAMPLE_CHARGES, Decimal(12_350_150), True)]
    assert sql(url, f"select sum(change) from backfill.by_dimension('{run_id}', 'tenant_user_id')") == [(12_350_150,)]
    assert sql(url, f"select * from backfill.by_dimension('{run_id}', 'nothing')") == []


def test_an_update_takes_away_where_it_was_and_adds_where_it_is(url: str) -> None:
    sql(url, "select backfill.run('charges')")
    [(before,)] = sql(url, "select sum(amount_cents) from property.charges where tenant_user_id = 'bruno'")
    sql(
        url,
        "begin",
        "select backfill.begin_run('ada was bruno')",
        "update property.charges set tenant_user_id = 'bruna' where tenant_user_id = 'bruno'",
        "select backfill.finish_run()",
        "commit",
    )
    found = sql(
        url,
        f"select value, before, change, after from backfill.by_dimension('{last_run(url)}', 'tenant_user_id', true)",
    )
    assert found == [("bruna", 0, before, before), ("bruno", before, -before, 0)]


def test_a_person_reads_names_and_not_uuids(database_url: str) -> None:
    sql(
        database_url,
        "create table customer (id uuid primary key default gen_random_uuid(), name text not null unique)",
        "create table bill (number text primary key, customer uuid references customer (id), at date, cents bigint)",
        "create table line (bill text references bill (number), no integer, customer uuid references customer)",
        "alter table line add primary key (bill, no)",
        "select backfill.track('customer', '{name}')",
        "select backfill.track('bill', p_money => 'cents')",
        "select backfill.track('line', '{customer,no}')",
        "insert into customer (name) values ('Aurora'), ('Borealis')",
    )
    with_run = """
        begin; select backfill.begin_run('bills');
        insert into bill select name, id, '2020-02-03', 500 from customer;
        insert into line select name, 1, id from customer;
        select backfill.finish_run(); commit
    """
    sql(database_url, *(part for part in with_run.split(";")))
    run_id = last_run(database_url)
    by = f"select value, change from backfill.by_dimension('{run_id}', '%s')"
    assert sql(database_url, by % "customer") == [("Aurora", 500), ("Borealis", 500)]
    assert sql(database_url, by % "at") == [("2020-02", 1000)]
    shown = run(database_url, "log", run_id).out
    assert "Aurora / 1" in shown
    assert "Aurora / 1" in run(database_url, "log", run_id, "--all").out


def line(value: str | None, cents: int, currency: str = "EUR") -> DimensionLine:
    return DimensionLine(value, 1, {currency: 0}, {currency: cents}, {currency: cents})


def test_many_months_are_years_and_many_values_are_the_largest_and_the_rest() -> None:
    months = [line(f"{2000 + i // 12}-{i % 12 + 1:02}", 100 + i) for i in range(MONTHS + 1)]
    years = bars(Dimension("period", tuple(months)))
    assert [bar.value for bar in years.lines] == ["2000", "2001", "2002", "2003"]
    assert years.lines[0].change == f"{sum(range(100, 112)) / 100:.2f} EUR"
    people = bars(Dimension("tenant_id", tuple(line(f"t{i}", i) for i in range(VALUES + 5))))
    assert (people.name, len(people.lines), people.lines[0].value, people.lines[0].width) == (
        "tenant",
        VALUES + 1,
        "t24",
        100,
    )
    assert (people.lines[-1].value, people.lines[-1].rows, people.lines[-1].change) == ("5 others", "5", "0.10 EUR")


def test_currencies_have_a_scale_each_and_what_is_taken_away_another_colour() -> None:
    found = bars(Dimension("who", (line("a", -500), line("b", 250), line("c", 100_000, "JPY"), line(None, 0))))
    assert [(bar.value, bar.change, bar.width, bar.minus) for bar in found.lines] == [
        ("a", "-5.00 EUR", 100, True), ("b", "2.50 EUR", 50, False), ("(none)", "0.00 EUR", 0, False),
        ("c", "100,000 JPY", 100, False),
    ]  # fmt: skip


def test_no_currency_crowds_out_another() -> None:
    many = [line(f"t{i}", 1_000_000 + i, "JPY") for i in range(VALUES + 3)]
    found = bars(Dimension("who", (*many, line("one", 5)))).lines
    assert [bar.value for bar in found][:2] == ["one", f"t{VALUES + 2}"]
    assert found[-1].value == "3 others"
    months = bars(Dimension("at", (line("2020-01", 5), line("2020-01", 7, "JPY"), line("2020-02", 5))))
    assert [(bar.value, bar.change) for bar in months.lines] == [
        ("2020-01", "0.05 EUR"), ("2020-02", "0.05 EUR"), ("2020-01", "7 JPY"),
    ]  # fmt: skip


def test_what_a_gate_or_a_reject_stopped_has_its_page(url: str, tmp_path: Path) -> None:
    sql(url, f"""{PAYMENT}
        values ('zoe', '{UNIT}', 77700, 'cash', 'succeeded', 'July 2019')""")  # fmt: skip
    page = page_of(url, tmp_path, "apply", "charges", "--yes", code=3)
    text = page.read_text()
    assert "1 source row cannot be taken, worth 777.00" in text
    assert "July 2019" in text
    assert Outline(text).of("h3") == ["Left out"]
    allowed = page_of(url, tmp_path, "apply", "charges", "--dry-run", "--allow-rejects", "1").read_text()
    assert "Left out" in allowed
    assert "July 2019" in allowed


def test_a_past_run_and_its_undo_have_pages(url: str, tmp_path: Path) -> None:
    run(url, "apply", "charges", "--yes")
    run_id = last_run(url)
    past = page_of(url, tmp_path, "report", run_id).read_text()
    assert Outline(past).of("lead")[0].startswith("144 rows worth 123,501.50 were written by ")
    assert Outline(past).of("h3")[:2] == ["By billing period", "By tenant user"]
    undo = page_of(url, tmp_path, "rollback", run_id, "--dry-run").read_text()
    assert Outline(undo).of("lead") == ["What 1 run wrote would be taken back: 144 rows worth -123,501.50."]
    assert "5,165.50" in undo
    run(url, "rollback", run_id, "--yes")
    assert "was undone by run" in page_of(url, tmp_path, "report", run_id).read_text()
    assert Outline(page_of(url, tmp_path, "promote", code=3).read_text()).of("h1") == ["Promotion to production"]


def test_what_no_page_holds_is_beside_it(url: str, tmp_path: Path) -> None:
    sql(url, f"""{PAYMENT}
        select '=tenant ' || i, '{UNIT}', 100, 'cash', 'succeeded', '2019-07'
        from generate_series(1, 10000) as i""")  # fmt: skip
    page = page_of(url, tmp_path, "apply", "charges", "--dry-run")
    beside = tmp_path / "page.html.csv"
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    with beside.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 10_000 + SAMPLE_CHARGES
    assert lines[-1].keys() == {"table", "row", "operation", "before", "after", "currency"}
    assert not any(line["row"].startswith("=") for line in lines)
    text = page.read_text()
    assert "10,000 of 10,144 rows; all of them are in page.html.csv, beside this file" in text
    assert "9,985 others" in text or "9,986 others" in text


@pytest.mark.parametrize("width", [1280, 800, 390])
def test_nothing_is_cut_off_or_wider_than_the_screen(url: str, tmp_path: Path, width: int) -> None:
    needs_browser()
    sql(url, f"update property.payments set tenant_user_id = '{LONG}' where tenant_user_id = 'ada'")
    page = page_of(url, tmp_path, "apply", "charges", "--dry-run")
    seen = look(page, tmp_path, width)
    assert (seen["width"], seen["cut"]) == (width, [])
    pixels, size = screenshot(page, tmp_path, max(width, 500))  # less wide is no window
    assert (pixels, size > 20_000) == (max(width, 500), True)  # an empty page has a tenth of that
    assert {"Backfill of " + url_name(url), "By tenant user", "Checks", "Signature"} <= set(seen["text"])


def test_it_is_dark_where_the_screen_is(url: str, tmp_path: Path) -> None:
    needs_browser()
    page = page_of(url, tmp_path, "apply", "charges", "--dry-run")
    light, dark = look(page, tmp_path, 1280), look(page, tmp_path, 1280, dark=True)
    assert (light["paper"], dark["paper"]) == ("rgb(255, 255, 255)", "rgb(20, 24, 31)")
    assert light["ink"] != dark["ink"]


def test_on_paper_it_is_whole(url: str, tmp_path: Path) -> None:
    needs_browser()
    text = printed(page_of(url, tmp_path, "apply", "charges", "--dry-run"), tmp_path)
    for words in (
        "property.charges",
        "123,501.50",
        "124,952.00",
        "chiara",
        "33,016.50",
        "34,467.00",
        "Operations",
        "2025-01",
    ):
        assert words in text, text
    assert re.search(r"property\.charges +2 +\+144 +146 +1,450\.50 +123,501\.50 +124,952\.00 +proved", text)


def url_name(url: str) -> str:
    """The database's name."""
    found = re.search(r"dbname=(\S+)", url)
    assert found is not None
    return found[1]
