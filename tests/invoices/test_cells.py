"""Money and dates as people write them: read exactly, or refused; nothing is guessed."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ConfigurationError, UsageError
from runner.invoices import catalogue as invoices
from runner.invoices import cells
from runner.invoices.catalogue import Format
from runner.load import Reject


@pytest.mark.parametrize(
    ("text", "cents"),
    [
        ("1,234.56", 123_456), ("$1,234.5", 123_450), ("1234", 123_400), ("1 234.56 USD", 123_456), ("€12.00", 1_200),
        ("1'234.50", 123_450), ("(12.00)", -1_200), ("-12", -1_200), ("$ -12.00", -1_200), ("−5", -500), ("0.07", 7),
        ("1,234,567.89", 123_456_789), ("US$3.10", 310), ("1\u00a0234.00", 123_400),
    ],
)  # fmt: skip
def test_amounts(text: str, cents: int) -> None:
    assert cells.cents(text) == cents


@pytest.mark.parametrize(
    "text",
    ["", "NaN", "inf", "1e3", "12.345", "1,23", "1,2345", "12,34.00", "1.234.567", "1,234 567", "12 00", "--1", "12.",
     ".5", "twelve", "12.00.00", "9" * 16, "１２", "0x10", "1_000"],
)  # fmt: skip
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an amount|two decimals|too large"):
        cells.cents(text)


def test_the_decimal_sign_can_be_a_comma() -> None:
    assert cells.cents("1.234,56 EUR", decimal=",") == 123_456
    with pytest.raises(ValueError, match="not an amount"):
        cells.cents("1,234.56", decimal=",")


@given(st.integers(-(10**14), 10**14))
def test_every_amount_survives_being_written(cents: int) -> None:
    sign, whole, part = "-" if cents < 0 else "", abs(cents) // 100, abs(cents) % 100
    for text in (f"{sign}{whole:,}.{part:02}", f"{sign}{whole}.{part:02}", f"{sign}${whole:,}.{part:02}"):
        assert cells.cents(text) == cents


@given(st.text(max_size=12))
def test_no_text_breaks_the_reading_of_amounts(text: str) -> None:
    try:
        read = cells.cents(text)
    except ValueError:
        return
    assert f"{abs(read) % 100:02}"[0] in text or read % 100 == 0


@given(st.dates(min_value=dt.date(1000, 1, 1)))
def test_every_date_survives_being_written(day: dt.date) -> None:
    for text in (day.isoformat(), f"{day.day} {day:%B} {day.year}", f"{day:%b} {day.day}, {day.year}"):
        assert cells.date(text) == day
    assert cells.date(f"{day.month}/{day.day}/{day.year}", "mdy") == day
    assert cells.date(f"{day.day}.{day.month}.{day.year}", "dmy") == day


def test_a_day_and_month_that_could_change_places_are_not_guessed() -> None:
    with pytest.raises(ValueError, match="ambiguous: say date_order"):
        cells.date("03/04/2023")
    assert cells.date("13/04/2023") == cells.date("04/13/2023") == dt.date(2023, 4, 13)
    assert cells.date("04/04/2023") == dt.date(2023, 4, 4)
    with pytest.raises(ValueError, match="is not a date"):
        cells.date("13/04/2023", "mdy")


@pytest.mark.parametrize(
    "text", ["", "5-Jan-23", "2023-02-30", "Ja 5, 2023", "Foo 5, 2023", "20230105", "1/2/23", "soon"]
)
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a date|no month"):
        cells.date(text)


CATALOGUE = "Invoice #,Client,Period Start,Period End,Date,Due,Total,Notes\n"
GOOD = "INV-1,Hillside,2023-01-02,2023-01-08,2023-01-09,2023-02-08,100.00,\n"


def read(tmp_path: Path, text: str, form: Format | None = None) -> list[object]:
    path = tmp_path / "catalogue.csv"
    path.write_text(text, encoding="utf-8")
    return list(invoices.read_invoices(path, form or Format()))


def test_a_row_is_typed(tmp_path: Path) -> None:
    day = dt.date
    assert read(tmp_path, "\ufeff" + CATALOGUE + "\n" + GOOD) == [
        (3, "INV-1", "Hillside", day(2023, 1, 2), day(2023, 1, 8), day(2023, 1, 9), day(2023, 2, 8), 10_000, "USD", 0)
    ]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (("2023-02-08", ""), "due_date is missing"),
        (("2023-01-09", ""), "sent_on is missing"),
        (("100.00", "12.345"), "total: '12.345' has more than two decimals"),
        (("100.00", ""), "total is missing"),
        (("INV-1", ""), "number is missing"),
        (("Hillside", ""), "client is missing"),
        (("100.00,", "100.00,NOT OURS (agency)"), "it is marked as not the company's: 'NOT OURS (agency)'"),
        (("100.00,", "100.00"), "7 cells where the header has 8"),
        (("2023-01-09", "01/02/2023"), "ambiguous"),
        (("2023-01-09", "2999-01-09"), "sent_on: '2999-01-09' is in the future"),
        (("2023-01-09", "0022-01-09"), "sent_on: '0022-01-09' is before 1990-01-01"),
        (("100.00", "kr 100.00"), "currency: 'kr' may be DKK, ISK, NOK, SEK: say which in a column Currency"),
        (("100.00", "\N{YEN SIGN}100"), "currency: '\N{YEN SIGN}' may be CNY, JPY"),
        (("100.00", "EUR 100.00 USD"), "EUR and USD at its amount 'EUR 100.00 USD': they contradict one another"),
        (("100.00", "JPY 100.50"), "total: 'JPY 100.50' has more than no decimals"),
    ],
)
def test_what_cannot_be_taken_is_a_reject_with_its_line(tmp_path: Path, changed: tuple[str, str], reason: str) -> None:
    (reject,) = read(tmp_path, CATALOGUE + GOOD.replace(*changed))
    assert isinstance(reject, Reject)
    assert reject.line == 2
    assert reason in reject.reason


def test_header_names_and_the_mark_come_from_runner_toml(tmp_path: Path) -> None:
    form = Format.of({"headers": {"number": "Nr", "remark": ["Whose"]}, "not_ours": "^theirs$", "date_order": "dmy"})
    text = "Nr;Client;From;To;Date;Due;Total;Whose\n"
    rows = read(tmp_path, text + "7;H;1/2/2023;7/2/2023;8/2/2023;9/3/2023;1,00;ours\n8;H;;;;;;theirs\n", form)
    assert isinstance(rows[0], Reject)
    assert "total" in rows[0].reason
    assert isinstance(rows[1], Reject)
    assert rows[1].reason == "it is marked as not the company's: 'theirs'"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Number,Client\n1,2\n", "has no column for period_start"),
        (CATALOGUE.replace("Notes", "Total") + GOOD, "more than one column for total"),
        ('Invoice #,"Client\n', "cannot be read as CSV"),
        ("", "has no column for number"),
    ],
)
def test_what_is_no_catalogue_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(tmp_path, text)


def test_what_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes((CATALOGUE + GOOD.replace("Hillside", "Caf\u00e9")).encode("latin-1"))
    with pytest.raises(UsageError, match="is not UTF-8"):
        list(invoices.read_invoices(path, Format()))


@pytest.mark.parametrize(
    "values",
    [{"date_order": "ymd"}, {"time_zone": "Mars/Olympus"}, {"decimal": "'"}, {"not_ours": "("}, {"nonsense": 1},
     {"headers": {"colour": "x"}}, {"headers": "x"}, {"storage": {"key": "AKIA", "secret": "hush"}}],
)  # fmt: skip
def test_settings_that_cannot_be_used_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"invoices") as caught:
        Format.of(values)
    assert "hush" not in str(caught.value)


WHOLE = "Number,Client,Period Start,Period End,Date,Due,Total,Currency,Status,Amount Paid\n"
ROW = "INV-1,Hillside,2023-01-02,2023-01-08,2023-01-09,2023-02-08,$100.00,USD,Sent,0.00\n"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ((",Sent,", ",Void,"), "paid: its status is 'Void', so it is not outstanding (--paid-as"),
        ((",Sent,", ",Paid,"), "paid: its status is 'Paid'"),
        ((",0.00\n", ",40.00\n"), "paid: '40.00' of it is paid"),
        (("$100.00,USD", "€100.00,USD"), "currency: USD in its column, € at its amount '€100.00': they contradict"),
        (("$100.00,USD", "$100.00,EUR"), "currency: EUR in its column, $ at its amount '$100.00'"),
        ((",Sent,0.00", ",Paid,40.00"), "its status is 'Paid'"),
    ],
)
def test_what_is_paid_void_or_in_another_currency_is_not_silently_owed(
    tmp_path: Path, changed: tuple[str, str], reason: str
) -> None:
    (reject,) = read(tmp_path, WHOLE + ROW.replace(*changed))
    assert isinstance(reject, Reject)
    assert reason in reject.reason


def test_what_is_paid_is_taken_as_it_was_said(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.csv"
    rows = [
        ROW,
        ROW.replace("INV-1", "INV-2").replace(",Sent,0.00", ",Paid,"),
        ROW.replace("INV-1", "INV-3").replace(",Sent,0.00", ",Partial,40.00"),
        ROW.replace("INV-1", "INV-4").replace(",Sent,0.00", ",Sent,40.00"),
        ROW.replace("INV-1", "INV-5").replace(",Sent,0.00", ",Void,"),
        ROW.replace("INV-1", "INV-6").replace(",Sent,0.00", ",Partial,"),
        ROW.replace("INV-1", "INV-7").replace(",Sent,0.00", ",Paid,99.00"),
    ]
    path.write_text(WHOLE + "".join(rows), encoding="utf-8")

    def paid(meaning: invoices.PaidAs) -> dict[str, int]:
        read = invoices.read_invoices(path, Format(), "USD", meaning)
        return {row[1]: row[9] for row in read if not isinstance(row, Reject)}

    assert paid("reject") == {"INV-1": 0}
    assert paid("paid") == {"INV-1": 0, "INV-2": 10_000, "INV-3": 4_000, "INV-4": 4_000}
    assert paid("outstanding") == dict.fromkeys((f"INV-{number}" for number in range(1, 8)), 0)


@pytest.mark.parametrize(
    ("total", "column", "company", "expected"),
    [
        ('"€1,200.00"', "", "USD", ("EUR", 120_000)),
        ("CAD 900.00", "", "USD", ("CAD", 90_000)),
        ("$900.00", "", "USD", ("USD", 90_000)),
        ("$900.00", "", "CAD", ("CAD", 90_000)),
        ("$900.00", "cad", "USD", ("CAD", 90_000)),
        ("900.00", "eur", "USD", ("EUR", 90_000)),
        ("900.00", "", "EUR", ("EUR", 90_000)),
        ('"JPY 1,200"', "", "USD", ("JPY", 1_200)),
        ('"¥1,200.00"', "", "JPY", ("JPY", 1_200)),
        ("1.234 KWD", "", "USD", ("KWD", 1_234)),
        ("kr 90.00", "", "SEK", ("SEK", 9_000)),
        ("($200.00)", "", "USD", ("USD", -20_000)),
    ],
)
def test_an_amount_is_in_the_currency_that_stands_at_it(
    tmp_path: Path, total: str, column: str, company: str, expected: tuple[str, int]
) -> None:
    path = tmp_path / "catalogue.csv"
    path.write_text(WHOLE + ROW.replace("$100.00,USD", f"{total},{column}"), encoding="utf-8")
    (row,) = invoices.read_invoices(path, Format(), company)
    assert not isinstance(row, Reject), row
    assert (row[8], row[7]) == expected


def test_a_sign_that_no_company_here_means_is_a_reject(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.csv"
    path.write_text(WHOLE + ROW.replace(",USD", ","), encoding="utf-8")
    assert isinstance(next(iter(invoices.read_invoices(path, Format(), "EUR"))), Reject)
    path.write_text(CATALOGUE + GOOD, encoding="utf-8")
    (reject,) = invoices.read_invoices(path, Format(), None)
    assert isinstance(reject, Reject)
    assert "none is named, and the company has none" in reject.reason
    early = Format.of({"earliest": dt.date(2024, 1, 1)})
    assert isinstance(next(iter(invoices.read_invoices(path, early, "USD", "outstanding"))), Reject)


@pytest.mark.parametrize(
    "cell",
    ["\u200bINV-9", "INV-9\ufeff", '="INV-9"', "'INV-9", "\u00a0INV-9\u00a0", "  INV-9 ", '=" INV-9"', "INV\u00ad-9"],
)
def test_what_nobody_sees_in_a_cell_is_not_kept(cell: str) -> None:
    assert cells.cleaned(cell) == "INV-9"


@pytest.mark.parametrize("text", ["O'Hara", "=x", '="', "'", "", "a = b"])
def test_what_is_seen_is_kept(text: str) -> None:
    assert cells.cleaned(text) == text
