"""`runner verify`: is every value of the files in the database? Only then may they be deleted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from runner.database import Connection, connect
from runner.errors import UsageError
from runner.rent.electricity import parse as parse_bills
from runner.rent.files import BadFileError, read
from runner.rent.history import Calculation, load_document
from runner.rent.history import parse as parse_calculation
from runner.rent.load import calculation_paths
from runner.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """A value of a file that is not in the database (missing), is there as another one (differs), or cannot be read."""

    file: str
    where: str
    state: Literal["missing", "differs", "unreadable"]
    in_file: str
    in_database: str


@dataclass(frozen=True, slots=True)
class Verification:
    """How many values were compared, and each that is not proved. `ignored` files were not looked at."""

    files: tuple[str, ...]
    values: int
    findings: tuple[Finding, ...]
    ignored: tuple[str, ...] = ()

    @property
    def proved(self) -> bool:
        """Whether every value is in the database."""
        return self.values > 0 and not self.findings

    @property
    def exit_code(self) -> int:
        """3 where a value is not in the database."""
        return 0 if self.proved else 3


class _Comparison:
    """Counts values and keeps those that are not the same."""

    def __init__(self) -> None:
        self.values = 0
        self.findings: list[Finding] = []

    def same(self, file: str, where: str, in_file: object, in_database: object) -> None:
        self.values += 1
        if in_file != in_database or isinstance(in_file, bool) is not isinstance(in_database, bool):
            self.findings.append(Finding(file, where, "differs", _shown(in_file), _shown(in_database)))

    def missing(self, file: str, where: str, in_file: object) -> None:
        self.values += 1
        self.findings.append(Finding(file, where, "missing", _shown(in_file), ""))

    def unreadable(self, file: str, where: str, reason: object) -> None:
        self.values += 1
        self.findings.append(Finding(file, where, "unreadable", _shown(reason), ""))


def verify_rent_history(settings: Settings, directory: Path) -> Verification:
    """Compare every calculation with rent.calculation, value by value, and the counting ones with rent.rent_ledger too.

    Raises UsageError for a directory without calculations.
    """
    paths, ignored = calculation_paths(directory)
    compared = _Comparison()
    with connect(settings, application_name="runner verify rent-history") as conn:
        conn.execute("set transaction isolation level repeatable read, read only")
        for path in paths:
            try:
                content = read(path)
                calculation = parse_calculation(path.name, content)
            except BadFileError as exc:
                compared.unreadable(path.name, "", exc)
            except OSError as exc:
                raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
            else:
                _compare_calculation(conn, calculation, hashlib.sha256(content).hexdigest(), compared)
        conn.rollback()
    return Verification(tuple(path.name for path in paths), compared.values, tuple(compared.findings), ignored)


def verify_electricity(settings: Settings, path: Path) -> Verification:
    """Compare every line of the file with rent.electricity_bills. Raises UsageError for a file that cannot be read."""
    compared = _Comparison()
    try:
        bills, bad = parse_bills(read(path))
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    except BadFileError as exc:
        compared.unreadable(path.name, "", exc)
        return Verification((path.name,), compared.values, tuple(compared.findings))
    for line in bad:
        compared.unreadable(path.name, f"line {line.line}", line.reason)
    with connect(settings, application_name="runner verify electricity") as conn:
        conn.execute("set transaction isolation level repeatable read, read only")
        kept = {
            (provider, day): (amount, period, currency, expected)
            for provider, day, amount, period, currency, expected in conn.execute(
                "select provider, bill_date, amount, bill_period, currency, rent.bill_period(bill_date)"
                " from rent.electricity_bills"
            )
        }
        conn.rollback()
    for bill in bills:
        where = f"line {bill.line}: {bill.provider} {bill.bill_date}"
        found = kept.get((bill.provider, bill.bill_date))
        if found is None:
            compared.missing(path.name, where, f"{bill.amount} öre")
        else:
            compared.same(path.name, f"{where} amount in öre", bill.amount, found[0])
            compared.same(path.name, f"{where} month", found[3], found[1])
            compared.same(path.name, f"{where} currency", "SEK", found[2])
    return Verification((path.name,), compared.values, tuple(compared.findings))


def _compare_calculation(conn: Connection, calculation: Calculation, sha256: str, compared: _Comparison) -> None:
    name = calculation.name
    row = conn.execute(
        "select calculation_month, title, calculated_at, inputs::text, roommates::text, results::text, file_name,"
        " file_sha256, version = (select max(version) from rent.calculation where period = c.period)"
        " from rent.calculation as c where period = %s and version = %s",
        [calculation.period, calculation.version],
    ).fetchone()
    if row is None:
        compared.missing(name, f"version {calculation.version} of {calculation.period}", "the whole file")
        return
    document = load_document(calculation.text)
    for where, in_file, in_database in (
        ("calculation month", calculation.calculation_month, row[0]),
        ("metadata.title", calculation.title, row[1]),
        ("metadata.calculation_date", calculation.calculated_at, row[2]),
        ("file name", name, row[6]),
        ("sha256", sha256, row[7]),
    ):
        compared.same(name, where, in_file, in_database)
    for key, text in (("constants", row[3]), ("roommates", row[4]), ("final_results", row[5])):
        _compare_values(name, key, document[key], load_document(text), compared)
    _compare_staged(conn, calculation, sha256, document, compared)
    if row[8]:
        _compare_ledger(conn, calculation, compared)


def _compare_staged(
    conn: Connection, calculation: Calculation, sha256: str, document: dict[str, Any], compared: _Comparison
) -> None:
    """What rent.calculation has no column for (ruby_version, …) is in the whole document."""
    row = conn.execute("select document::text from staging.rent_history where file_sha256 = %s", [sha256]).fetchone()
    if row is None:
        compared.missing(calculation.name, "the whole document in staging.rent_history", sha256[:12])
        return
    _compare_values(calculation.name, "document", document, load_document(row[0]), compared)


def _compare_ledger(conn: Connection, calculation: Calculation, compared: _Comparison) -> None:
    rows = conn.execute(
        "select tenant, amount_due, days_stayed, coalesce(room_adjustment, 0), base_monthly_rent, calculation_title,"
        " calculation_date, calculation_version, currency from rent.rent_ledger where period = %s",
        [calculation.period],
    )
    ledger = {row[0]: row[1:] for row in rows}
    for share in calculation.shares:
        where = f"ledger {share.tenant} {calculation.period}"
        found = ledger.get(share.tenant)
        if found is None:
            compared.missing(calculation.name, where, f"{share.amount} öre")
            continue
        expected = (
            ("amount_due in öre", share.amount),
            ("days_stayed", share.days),
            ("room_adjustment in öre", share.room_adjustment),
            ("base_monthly_rent in öre", calculation.base_monthly_rent),
            ("calculation_title", calculation.title),
            ("calculation_date", calculation.calculated_at),
            ("calculation_version", calculation.version),
            ("currency", "SEK"),
        )
        for (what, in_file), in_database in zip(expected, found, strict=True):
            compared.same(calculation.name, f"{where} {what}", in_file, in_database)


def _compare_values(file: str, where: str, in_file: Any, in_database: Any, compared: _Comparison) -> None:
    """Leaf by leaf, so that a finding names the path."""
    if isinstance(in_file, dict) and isinstance(in_database, dict):
        for key in [*in_file, *(key for key in in_database if key not in in_file)]:
            if key not in in_database:
                compared.missing(file, f"{where}.{key}", in_file[key])
            else:
                _compare_values(file, f"{where}.{key}", in_file.get(key, "(not there)"), in_database[key], compared)
    elif isinstance(in_file, list) and isinstance(in_database, list) and len(in_file) == len(in_database):
        for number, (one, other) in enumerate(zip(in_file, in_database, strict=True)):
            _compare_values(file, f"{where}[{number}]", one, other, compared)
    else:
        compared.same(file, where, in_file, in_database)


def _shown(value: object) -> str:
    if value is None:
        return "null"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)[:200]
