"""Finance's ledger into staging: what is taken, what is rejected with line and reason, what is refused whole."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.load import LandedFile
from runner.reconciliation.finance_ledger import (
    COLUMNS,
    LONGEST_LINE,
    FinanceLedgerError,
    import_finance_ledger,
    misfit,
    records,
)
from runner.settings import Settings
from tests.engine.words import refusal
from tests.reconciliation.ledger_files import BAD, HEADER, UUID, line, nothing_is_left, rejected, staged, write


def test_lines_are_typed(settings: Settings, file: Path) -> None:
    write(
        file,
        line(invoice_number=" INV-0814 ", invoice_id=UUID, currency="usd", status=" Paid ", paid_at="2026-02-01"),
        line(ledger_id="L-2", amount="-5", paid_at="2026-02-01T10:00:00+02:00"),
        line(ledger_id="L-3", amount="007.5"),
    )
    result = import_finance_ledger(settings, file)
    assert (result.rows, result.rejects) == (3, 0)
    assert staged(settings) == [
        (2, "L-1", "2026-01-31", "INV-0814", 123456, "USD", "paid", "2026-02-01 00:00:00"),
        (3, "L-2", "2026-01-31", None, -500, "USD", "sent", "2026-02-01 08:00:00"),
        (4, "L-3", "2026-01-31", None, 750, "USD", "sent", None),
    ]


def test_importing_twice_is_a_no_op(settings: Settings, file: Path) -> None:
    write(file, line())
    assert import_finance_ledger(settings, file).run_id is not None
    again = import_finance_ledger(settings, file)
    assert (again.run_id, again.rows, len(again.skipped)) == (None, 0, 1)
    assert len(staged(settings)) == 1


def test_a_reversed_import_is_out_of_sight_and_can_be_imported_again(settings: Settings, file: Path) -> None:
    write(file, line())
    run = import_finance_ledger(settings, file).run_id
    with psycopg.connect(settings.conninfo) as conn:
        conn.execute("select * from backfill.reverse_run(%s)", [run])
    assert staged(settings) == []
    import_finance_ledger(settings, file)
    assert len(staged(settings)) == 1


def test_each_bad_line_is_rejected_by_line_and_reason_and_nothing_is_imported(settings: Settings, file: Path) -> None:
    cases = [(field, value) for field, values in BAD.items() for value in values]
    write(file, line(), *(line(**{field: value}) for field, value in cases), line())
    with refusal("BF004", match=rf"(?s){len(cases)} of {len(cases) + 2} source rows .*line 3: ledger_id is missing"):
        import_finance_ledger(settings, file)
    assert nothing_is_left(settings)

    result = import_finance_ledger(settings, file, allow_rejects=len(cases))
    assert (result.rows, result.rejects) == (2, len(cases))
    assert [row[0] for row in staged(settings)] == [2, len(cases) + 3]
    found = rejected(settings)
    assert [row[0] for row in found] == list(range(3, len(cases) + 3))
    for (field, value), (_, reason, cents) in zip(cases, found, strict=True):
        assert str(reason).startswith(field)
        assert value.strip() in str(reason)
        assert cents == (None if field == "amount" else 123456)


def test_a_line_with_several_faults_names_all(settings: Settings, file: Path) -> None:
    write(file, line(amount="1.234,56", currency="", date="x"))
    import_finance_ledger(settings, file, allow_rejects=1)
    [(_, reason, _)] = rejected(settings)
    assert reason == (
        "date is not a day written YYYY-MM-DD: 'x'; amount is not a number written like 1234.56: "
        "'1.234,56'; currency is missing"
    )


def test_lines_are_counted_through_line_breaks_inside_of_fields(settings: Settings, file: Path) -> None:
    write(file, line(notes="one\ntwo\nthree"), line(ledger_id="L-2"), line(ledger_id="L-3", amount="x", notes="a\nb"))
    import_finance_ledger(settings, file, allow_rejects=1)
    assert [row[:2] for row in staged(settings)] == [(2, "L-1"), (5, "L-2")]
    assert [row[0] for row in rejected(settings)] == [6]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_exports_of_any_spreadsheet_are_read(settings: Settings, file: Path, separator: str, end: str) -> None:
    names = [*reversed(COLUMNS)]
    good = dict(
        zip(COLUMNS, next(csv.reader([line(amount="1234.56" if separator == "," else "1.234,56")])), strict=True)
    )
    header = separator.join(name.upper() for name in names)
    text = end.join([header, separator.join(good[name] for name in names)])  # no line end at the end
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    result = import_finance_ledger(settings, file, allow_rejects=1)
    assert (result.rows, result.rejects) == ((1, 0) if separator == "," else (0, 1))


def test_the_template_is_the_header(settings: Settings) -> None:
    from tests.place import ROOT

    assert (ROOT / "docs" / "sample_ledger_template.csv").read_text() == HEADER + "\n"
    with pytest.raises(FinanceLedgerError, match="holds no line besides its header"):
        import_finance_ledger(settings, ROOT / "docs" / "sample_ledger_template.csv")


REFUSED = {
    "wrong header": (b"id,when,sum\n1,2,3\n", r"the header .*missing: ledger_id, date.*unknown: id, when"),
    "empty": (b"", "does not begin with the header"),
    "column twice": ((HEADER + ",date\n").encode(), "twice: date"),
    "header only": ((HEADER + "\n").encode(), "holds no line besides its header"),
    "utf-16": ((HEADER + "\n").encode("utf-16"), "UTF-16"),
    "latin-1": ((HEADER + "\n" + line() + "\n" + line(notes="café") + "\n").encode("latin-1"), "line 3 is not UTF-8"),
    "latin-1 in the header": ("é".encode("latin-1") + HEADER.encode(), "line 1 is not UTF-8"),
    "nul": ((HEADER + "\n" + line(notes="a\0b") + "\n").encode(), "line 2 is not UTF-8"),
    "unclosed quote": (
        "\n".join([HEADER, line(), line().replace("L-1", '"L-1'), line(), line(), ""]).encode(),
        r"a quote is opened and never closed; .* begins in line 3",
    ),
    "unclosed quote after a misfit": (
        "\n".join([HEADER, "L-1,2026-01-31", line(), line().replace("L-1", '"L-1'), line(), ""]).encode(),
        r"a quote is opened and never closed; .* begins in line 4",
    ),
    "latin-1 after a misfit": (
        (HEADER + "\nL-1\n" + line(notes="café") + "\n").encode("latin-1"), r"line 2 is not UTF-8|is not UTF-8",
    ),
    "long line after a misfit": (
        (HEADER + "\nL-1\n" + line(notes="x" * (LONGEST_LINE + 1)) + "\n").encode(),
        "line 3 is longer than 1,048,576 bytes",
    ),
    "long line": (
        (HEADER + "\n" + line() + "\n" + line(notes="x" * (LONGEST_LINE + 1)) + "\n").encode(),
        "line 3 is longer than 1,048,576 bytes",
    ),
    "cr alone": ("\r".join([HEADER, line(), ""]).encode(), "CR alone"),
}  # fmt: skip


MISFITS = {
    "too many fields": (line() + ",x", "it has 13 fields, the header 12"),
    "unquoted 1.234,56": (line().replace("1234.56", "1.234,56"), "it has 13 fields, the header 12"),
    "too few fields": ("L-1,2026-01-31", "it has 2 fields, the header 12"),
    "empty line": ("", "the line is empty"),
    "blanks": ("  ", "it has 1 fields"),
    "backslash and point": ("x\\.", "it has 1 fields"),
    "carriage return": (line().replace("L-1", "L\r1"), "a carriage return stands outside of quotes"),
    "separators in quotes only": (line().replace(",", ";") + '",,,,,,,,,,,"', "it has 1 fields"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_of_other_fields_than_the_header_is_one_reject(
    settings: Settings, file: Path, case: str, end: str
) -> None:
    bad, reason = MISFITS[case]
    two = line(ledger_id="L-2", notes='a "b", c\nd', description="x,y")
    write(file, line(), two, bad, line(ledger_id="L-3", amount="x"), line(ledger_id="L-4"), end=end)
    with refusal("BF004", match=r"(?s)2 of 5 source rows cannot be taken.*line 5: .*line 6: amount is not"):
        import_finance_ledger(settings, file)
    assert nothing_is_left(settings)
    result = import_finance_ledger(settings, file, allow_rejects=2)
    assert (result.rows, result.rejects, len(result.sample)) == (3, 2, 2)
    assert [row[:2] for row in staged(settings)] == [(2, "L-1"), (3, "L-2"), (7, "L-4")]
    (first, second) = rejected(settings)
    assert (first[0], str(first[1]).startswith(reason), second[0]) == (5, True, 6)
    with psycopg.connect(settings.conninfo) as conn:
        [kept] = conn.execute("select notes, description from staging.current_finance_ledger where ledger_id = 'L-2'")
    assert kept == ('a "b", c\nd', "x,y")


def test_a_record_over_several_lines_that_does_not_fit_says_which(settings: Settings, file: Path) -> None:
    lost = line(ledger_id="L-2").replace("sent", '"sent')
    write(
        file, line(), lost, line(ledger_id="L-3"), line(ledger_id="L-4").replace("L-4", 'L-4"'), line(ledger_id="L-5")
    )
    import_finance_ledger(settings, file, allow_rejects=1)
    [(at, reason, _)] = rejected(settings)
    assert at == 3
    assert "a record of lines 3 to 5: is a quote not closed?" in str(reason)
    assert [row[:2] for row in staged(settings)] == [(2, "L-1"), (6, "L-5")]


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(text=st.text(alphabet='a",\n\r;x1', max_size=60))
def test_records_are_the_servers(ledger_conn: psycopg.Connection, tmp_path: Path, text: str) -> None:
    """Where the server reads a file of one column without complaint, it reads as many records with as many fields."""
    file = tmp_path / "any.csv"
    file.write_bytes(text.encode() + b"\n")
    landed = LandedFile(file, file.name, "0" * 64, 0)
    try:
        found = [record for _, _, record in records(landed)]
    except FinanceLedgerError:
        found = None
    width = 1 + sum(part.count(b",") for part in (found or [b""])[0].split(b'"')[::2])
    columns = ", ".join(f"c{i} text" for i in range(width))
    with ledger_conn.transaction(force_rollback=True):
        ledger_conn.execute(f"create temp table taken ({columns})")
        try:
            with ledger_conn.transaction(), ledger_conn.cursor() as cursor:
                with cursor.copy("copy taken from stdin (format csv)") as copy:
                    copy.write(file.read_bytes())
        except psycopg.Error:
            return
        taken = ledger_conn.execute("select count(*) from taken").fetchone()
    assert found is not None
    assert taken == (len(found),)
    if width > 1:  # of one column an empty line is a record, too
        assert all(misfit(record, b",", width) == "" for record in found)


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_one_clear_message_and_leaves_nothing(settings: Settings, file: Path, case: str) -> None:
    content, message = REFUSED[case]
    file.write_bytes(content)
    with pytest.raises(FinanceLedgerError, match=message) as caught:
        import_finance_ledger(settings, file)
    assert caught.value.exit_code == 2
    assert str(file.parent) not in str(caught.value)
    assert nothing_is_left(settings)


def test_a_line_that_ends_the_data_early_is_a_reject(settings: Settings, file: Path) -> None:
    # Until PostgreSQL 17 a line of \\. alone ends COPY, and what follows would be lost in silence.
    file.write_bytes("\n".join([HEADER, line(), "\\.", line(ledger_id="L-2"), ""]).encode())
    result = import_finance_ledger(settings, file, allow_rejects=1)
    assert (result.rows, [row[0] for row in rejected(settings)]) == (2, [3])


def test_the_end_of_data_inside_of_quotes_loses_nothing(settings: Settings, file: Path) -> None:
    write(file, line(notes="one\n\\.\ntwo"), line(ledger_id="L-2"))
    assert import_finance_ledger(settings, file).rows == 2
    assert [row[:2] for row in staged(settings)] == [(2, "L-1"), (5, "L-2")]
    with psycopg.connect(settings.conninfo) as conn:
        kept = conn.execute("select notes from staging.current_finance_ledger where line = 2").fetchone()
        assert kept == ("one\n\\.\ntwo",)


def test_a_file_of_one_gigabyte_without_a_line_end_is_refused_at_once(settings: Settings, file: Path) -> None:
    with file.open("wb") as out:
        out.write(HEADER.encode() + b"\n")
        out.truncate(1 << 30)  # sparse: NULs to the end
    tracemalloc.start()
    try:
        with pytest.raises(FinanceLedgerError, match="line 2 is longer than"):
            import_finance_ledger(settings, file)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert nothing_is_left(settings)


def test_memory_stays_flat(settings: Settings, file: Path) -> None:
    with file.open("w") as out:
        out.write(HEADER + "\n")
        out.writelines(line(ledger_id=f"L-{i}", notes="x" * 200) + "\n" for i in range(60_000))
    assert file.stat().st_size > 12 << 20
    tracemalloc.start()
    try:
        assert import_finance_ledger(settings, file).rows == 60_000
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv cannot be read"):
        import_finance_ledger(settings, tmp_path / "none.csv")


def test_amounts_have_the_decimals_of_their_currency(settings: Settings, file: Path) -> None:
    worth = [("1200", "JPY"), ("1200.0", "JPY"), ("1.234", "KWD"), ("1.2345", "CLF"), ("12.3", "EUR")]
    write(file, *(line(amount=amount, currency=currency) for amount, currency in worth))
    assert import_finance_ledger(settings, file).rows == 5
    assert [row[4] for row in staged(settings)] == [1200, 1200, 1234, 12345, 1230]


def test_more_decimals_than_the_currency_has_are_a_reject(settings: Settings, file: Path) -> None:
    worth = [("1200.5", "JPY"), ("1.2345", "KWD"), ("0.001", "USD"), ("1.00", "USD")]
    write(file, *(line(amount=amount, currency=currency) for amount, currency in worth))
    assert import_finance_ledger(settings, file, allow_rejects=3).rows == 1
    assert [row[1:] for row in rejected(settings)] == [
        (f"amount has more decimals than the currency {currency}: '{amount}'", None) for amount, currency in worth[:3]
    ]
