"""Finance's ledger as CSV into staging: Python checks the header and passes the bytes on; the server reads them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from runner.errors import LedgerFileError
from runner.load import SAMPLE, LandedFile, Landing, LoadResult, Reject, load
from runner.settings import Settings

COLUMNS: Final = (
    "ledger_id", "date", "description", "reference_id", "invoice_number", "invoice_id",
    "amount", "currency", "status", "payment_method", "paid_at", "notes",
)  # fmt: skip
LONGEST_LINE: Final = 1 << 20
"""Bytes. A longer line means that line ends were lost; the server would take all of it into memory."""

_CHUNK: Final = 1 << 18
_BOM: Final = b"\xef\xbb\xbf"
_SEPARATORS: Final = ",;\t|"
_COPY_LINE: Final = re.compile(r"^COPY ledger_raw, line (\d+)", re.MULTILINE)


def import_ledger(settings: Settings, path: Path, *, allow_rejects: int = 0) -> LoadResult:
    """Stage one ledger file; a no-op where the same bytes were imported before.

    All or nothing. Raises LedgerFileError for what is no such file, RejectsError (exit 3) naming the lines where more
    than `allow_rejects` cannot be taken.
    """
    return load(settings, loader="ledger", paths=[path], fill=_fill, allow_rejects=allow_rejects)


def read_header(file: LandedFile) -> tuple[str, list[str]]:
    """The separator and the columns in the file's order. Raises LedgerFileError naming what is wrong with them."""
    with file.path.open("rb") as source:
        first = source.readline(_CHUNK).removeprefix(_BOM)
    if first.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first:
        raise LedgerFileError(f"{file.name} is UTF-16: save it as `CSV UTF-8`")
    try:
        header = first.decode().rstrip("\r\n")
    except UnicodeDecodeError as exc:
        raise LedgerFileError(f"{file.name} line 1 is not UTF-8: save it as `CSV UTF-8`") from exc
    if "\r" in header:
        raise LedgerFileError(f"{file.name} ends its lines with CR alone: save it with LF or CR LF")
    separator = max(_SEPARATORS, key=header.count)
    try:
        names = [name.strip().lower() for name in next(csv.reader([header], delimiter=separator), [])]
    except csv.Error as exc:
        raise LedgerFileError(f"{file.name} line 1 is no header: {exc}") from exc
    missing = [name for name in COLUMNS if name not in names]
    unknown = [name or "(no name)" for name in names if name not in COLUMNS]
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if missing or unknown or twice:
        found = "; ".join(
            f"{word}: {', '.join(some[:12])}"
            for word, some in (("missing", missing), ("unknown", [n[:60] for n in unknown]), ("twice", twice))
            if some
        )
        raise LedgerFileError(
            f"{file.name} does not begin with the header of a ledger ({found}). Expected, in any order: "
            f"{','.join(COLUMNS)} - see docs/sample_ledger_template.csv"
        )
    return separator, names


def chunks(file: LandedFile) -> Iterator[bytes]:
    """The bytes, without a byte order mark. Raises LedgerFileError at a line of more than LONGEST_LINE bytes."""
    line = 1
    open_bytes = 0  # of the line that the last chunk ended in
    with file.path.open("rb") as source:
        chunk = source.read(_CHUNK).removeprefix(_BOM)
        while chunk:
            end = chunk.find(b"\n")
            if open_bytes + (len(chunk) if end < 0 else end) > LONGEST_LINE:
                raise LedgerFileError(
                    f"{file.name} line {line} is longer than {LONGEST_LINE:,} bytes: its line ends were lost, or it "
                    "is no ledger"
                )
            line += chunk.count(b"\n")
            open_bytes = open_bytes + len(chunk) if end < 0 else len(chunk) - 1 - chunk.rfind(b"\n")
            yield chunk
            chunk = source.read(_CHUNK)


def _fill(landing: Landing) -> None:
    for file in landing.files:
        separator, names = read_header(file)
        command = sql.SQL(
            "copy staging.ledger_raw ({}) from stdin"
            " (format csv, header, delimiter {}, encoding 'UTF8', force_null ({}))"
        ).format(
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.Literal(separator),
            sql.SQL(", ").join(map(sql.Identifier, names)),
        )
        landing.conn.execute("select staging.begin_ledger()")
        lines, last = 0, b""
        try:
            with landing.conn.cursor() as cursor, cursor.copy(command) as copy:
                for chunk in chunks(file):
                    lines += chunk.count(b"\n")
                    last = chunk[-1:]
                    copy.write(chunk)
        except psycopg.Error as exc:
            raise _explain(exc, file) from exc
        row = landing.conn.execute(
            "select row_count, reject_count from staging.take_ledger(%s, %s, %s)",
            [file.sha256, file.name, lines + (last != b"\n")],
        ).fetchone()
        if row is None or row == (0, 0):
            raise LedgerFileError(f"{file.name} holds no line besides its header: nothing can be reconciled with it")
        landing.rows += row[0]
        landing.rejects += row[1]
        if row[1]:
            landing.sample += _sample(landing)


def _sample(landing: Landing) -> list[Reject]:
    rows = landing.conn.execute(
        "select source, source_key, line, reason, cents, payload from backfill.reject"
        " where run_id = %s order by source, line limit %s",
        [landing.run_id, SAMPLE],
    ).fetchall()
    return [Reject(*row) for row in rows]


def _explain(exc: psycopg.Error, file: LandedFile) -> Exception:
    """What the server could not read, as one message with the line; errors of another kind stay what they are."""
    found = _COPY_LINE.search(exc.diag.context or "")
    where = f"{file.name} line {found[1]}" if found else file.name
    words = exc.diag.message_primary or str(exc)
    if exc.sqlstate in ("22021", "22P05"):
        return LedgerFileError(f"{where} is not UTF-8 ({words}): save it as `CSV UTF-8`. Nothing was imported")
    if "unterminated CSV quoted field" in words or exc.sqlstate == "54000":
        return LedgerFileError(
            f"{file.name}: a quote is opened and never closed; the first field that runs on beyond its line begins in "
            f"line {_first_open_quote(file)}. Nothing was imported"
        )
    if exc.sqlstate == "22P04":
        return LedgerFileError(
            f"{where} has not the {len(COLUMNS)} fields of the header ({words}): a separator inside of a field needs "
            "quotes around the field, and an empty line is none. Nothing was imported"
        )
    return exc


def _first_open_quote(file: LandedFile) -> int:
    with file.path.open("rb") as source:
        for number, line in enumerate(source, start=1):
            if line.count(b'"') % 2:
                return number
    return 1
