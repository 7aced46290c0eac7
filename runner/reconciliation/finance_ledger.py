"""Finance's ledger as CSV into staging: Python checks the header and passes the bytes on; the server reads them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from runner.errors import UsageError
from runner.files import opened
from runner.load import SAMPLE, LandedFile, Landing, LoadResult, Reject, load
from runner.settings import Settings

COLUMNS: Final = (
    "ledger_id", "date", "description", "reference_id", "invoice_number", "invoice_id",
    "amount", "currency", "status", "payment_method", "paid_at", "notes",
)  # fmt: skip
LONGEST_LINE: Final = 1 << 20
"""Bytes. A longer line means that line ends were lost; the server would take all of it into memory."""

LONGEST_RECORD: Final = 1 << 24
"""Bytes, by line breaks inside of quotes, where records have to be looked at one by one."""

_CHUNK: Final = 1 << 18
_TYPED: Final = {"date": "entry_date"}
"""Columns of the file that the typed table calls otherwise."""

_END_OF_DATA: Final = b"\n\\."
"""Until PostgreSQL 17 a line that holds nothing else ends COPY, and what follows would be lost in silence."""

_BAD_FORMAT: Final = "22P04"
_BOM: Final = b"\xef\xbb\xbf"
_SEPARATORS: Final = ",;\t|"
_COPY_LINE: Final = re.compile(r"^COPY finance_ledger_raw, \S+ (\d+)", re.MULTILINE)
"""In whatever language the server speaks."""


class FinanceLedgerError(UsageError):
    """The file cannot be read as Finance's ledger: header, encoding, quotes, line ends."""


def import_finance_ledger(settings: Settings, path: Path, *, allow_rejects: int = 0) -> LoadResult:
    """Stage one ledger file; a no-op where the same bytes were imported before.

    All or nothing. Raises FinanceLedgerError for what is no such file, SqlError BF004 (exit 3) naming the lines where
    more than `allow_rejects` cannot be taken.
    """
    return load(settings, loader="finance_ledger", paths=[path], fill=_fill, allow_rejects=allow_rejects)


def read_header(file: LandedFile) -> tuple[str, list[str]]:
    """The separator and the columns in the file's order. Raises FinanceLedgerError naming what is wrong with them."""
    with opened(file.path) as source:
        first = source.readline(_CHUNK).removeprefix(_BOM)
    if first.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first:
        raise FinanceLedgerError(f"{file.name} is UTF-16: save it as `CSV UTF-8`")
    try:
        header = first.decode().rstrip("\r\n")
    except UnicodeDecodeError as exc:
        raise FinanceLedgerError(f"{file.name} line 1 is not UTF-8: save it as `CSV UTF-8`") from exc
    if "\r" in header:
        raise FinanceLedgerError(f"{file.name} ends its lines with CR alone: save it with LF or CR LF")
    separator = max(_SEPARATORS, key=header.count)
    try:
        names = [name.strip().lower() for name in next(csv.reader([header], delimiter=separator), [])]
    except csv.Error as exc:
        raise FinanceLedgerError(f"{file.name} line 1 is not a header: {exc}") from exc
    missing = [name for name in COLUMNS if name not in names]
    unknown = [name or "(no name)" for name in names if name not in COLUMNS]
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if missing or unknown or twice:
        found = "; ".join(
            f"{word}: {', '.join(some[:12])}"
            for word, some in (("missing", missing), ("unknown", [n[:60] for n in unknown]), ("twice", twice))
            if some
        )
        raise FinanceLedgerError(
            f"{file.name} does not begin with the header of a ledger ({found}). Expected, in any order: "
            f"{','.join(COLUMNS)} - see docs/sample_ledger_template.csv"
        )
    return separator, names


def plain_lines(separator: str, names: list[str]) -> re.Pattern[bytes]:
    """Any number of lines of which every field is in its plainest form.

    Nothing that staging.finance_ledger_fault() rejects fits it, and the server casts what fits as
    staging.cast_finance_ledger() does.
    """
    day = rb"(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    clock = rb"[ T](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?"
    zone = rb"(?:Z|[+-](?:0[0-9]|1[0-4])(?::?[0-5][0-9])?)"
    other = rb"[^\"%b\r\n\0]" % re.escape(separator.encode())
    word = rb"(?! )%b+(?<! )" % other
    forms = {
        "ledger_id": word,
        "date": day,
        "invoice_number": rb"(?:%b)?" % word,
        "invoice_id": rb"(?:[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12})?",
        "amount": rb"-?[0-9]{1,14}(?:\.[0-9]{1,4})?",
        "currency": rb"[A-Z]{3}",
        "status": rb"[a-z_]+",
        "paid_at": rb"(?:%b(?:%b%b)?)?" % (day, clock, zone),
    }
    text = rb'%b*+|"(?:[^"\r\n\0]|"")*+"' % other
    line = re.escape(separator.encode()).join(
        rb'(?:%b|"%b")' % (forms[name], forms[name]) if name in forms else rb"(?:%b)" % text for name in names
    )
    return re.compile(rb"(?:(?>%b\r?\n))*+" % line)


def chunks(file: LandedFile) -> Iterator[bytes]:
    """The bytes, without a byte order mark.

    Raises FinanceLedgerError at a line of more than LONGEST_LINE bytes, and where a quoted field goes on for more than
    LONGEST_RECORD: the server would take all of it into memory.
    """
    line = 1
    open_bytes = 0  # of the line that the last chunk ended in
    quoted, held = False, 0  # whether the last chunk ended within quotes, and the bytes of that record at least
    with opened(file.path) as source:
        chunk = source.read(_CHUNK).removeprefix(_BOM)
        while chunk:
            end = chunk.find(b"\n")
            if open_bytes + (len(chunk) if end < 0 else end) > LONGEST_LINE:
                raise FinanceLedgerError(
                    f"{file.name} line {line} is longer than {LONGEST_LINE:,} bytes: its line ends were lost, or it "
                    "is not a ledger"
                )
            line += chunk.count(b"\n")
            open_bytes = open_bytes + len(chunk) if end < 0 else len(chunk) - 1 - chunk.rfind(b"\n")
            held = held + len(chunk) if quoted and not any(b"\n" in part for part in chunk.split(b'"')[1::2]) else 0
            quoted ^= bool(chunk.count(b'"') % 2)
            if held > LONGEST_RECORD:
                raise _never_closed(file)
            yield chunk
            chunk = source.read(_CHUNK)


def _fill(landing: Landing) -> None:
    for file in landing.files:
        separator, names = read_header(file)
        plain = _send_plain(landing, file, separator, names)
        if plain:
            landing.rows += plain
            continue
        command = _command(separator, names)
        landing.conn.execute("select staging.begin_finance_ledger()")
        lines: int | None = None
        try:
            lines, taken = _send(landing, command, file)
        except (_NotPlainError, psycopg.Error) as exc:
            if isinstance(exc, psycopg.Error) and exc.sqlstate != _BAD_FORMAT:
                raise _explain(exc, file) from exc
            taken = _send_one_by_one(landing, file, separator, names)
        row = landing.conn.execute(
            "select row_count, reject_count from staging.take_finance_ledger(%s, %s, %s, %s)",
            [file.sha256, file.name, lines, taken],
        ).fetchone()
        assert row is not None  # noqa: S101 - a function call returns a row
        landing.rows += row[0]
        landing.rejects += row[1]
        if not landing.rows and not landing.rejects:
            raise FinanceLedgerError(f"{file.name} holds no line besides its header: nothing can be reconciled with it")
        if landing.rejects:
            landing.sample = _sample(landing)


class _NotPlainError(Exception):
    """A line is not in its plainest form: what it is, the server finds out."""


def _send_plain(landing: Landing, file: LandedFile, separator: str, names: list[str]) -> int:
    """The bytes straight into the typed table, looked through on their way; 0 where they are not all plain."""
    lines, rest, is_header = plain_lines(separator, names), b"", True
    command = _command(separator, [_TYPED.get(name, name) for name in names], table="finance_ledger_line")
    try:
        with landing.conn.transaction(), landing.conn.cursor() as cursor:
            cursor.execute("select staging.begin_plain_finance_ledger(%s)", [file.sha256])
            with cursor.copy(command) as copy:
                for chunk in chunks(file):
                    rest += chunk
                    end = rest.rfind(b"\n") + 1
                    begin = rest.find(b"\n") + 1 if is_header else 0
                    if not lines.fullmatch(rest, begin, end):
                        raise _NotPlainError
                    copy.write(chunk)
                    rest, is_header = rest[end:], is_header and not end
                if rest and not lines.fullmatch(rest + b"\n"):
                    raise _NotPlainError
            cursor.execute("select staging.take_plain_finance_ledger(%s, %s)", [file.sha256, cursor.rowcount])
            return int(cursor.fetchall()[0][0])
    except (_NotPlainError, psycopg.DataError, psycopg.errors.CheckViolation):
        return 0


def _command(
    separator: str, names: list[str], *, numbered: bool = False, table: str = "finance_ledger_raw"
) -> sql.Composed:
    """COPY of the file as it is, or with each record's line before it."""
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    return sql.SQL(
        "copy staging.{} ({}{}) from stdin (format csv, {}delimiter {}, encoding 'UTF8', force_null ({}))"
    ).format(
        sql.Identifier(table), sql.SQL("line, " if numbered else ""), columns, sql.SQL("" if numbered else "header, "),
        sql.Literal(separator), columns,
    )  # fmt: skip


def _send(landing: Landing, command: sql.Composed, file: LandedFile) -> tuple[int, int]:
    """The bytes as they are, below a savepoint; how many lines they have, and how many records the server took.

    Raises _NotPlainError before a line that ends the data for the server.
    """
    lines, last = 0, b""
    with landing.conn.transaction(), landing.conn.cursor() as cursor:
        with cursor.copy(command) as copy:
            for chunk in chunks(file):
                lines += chunk.count(b"\n")
                if _END_OF_DATA in last + chunk:
                    raise _NotPlainError
                last = (last + chunk)[-2:]
                copy.write(chunk)
        return lines + (last[-1:] != b"\n"), cursor.rowcount


def _send_one_by_one(landing: Landing, file: LandedFile, separator: str, names: list[str]) -> int:
    """After COPY has met a record that is not one of twelve fields: all others, numbered, and rejects of those.

    How many records the server took.
    """
    rejects: list[Reject] = []
    try:
        with landing.conn.cursor() as cursor:
            with cursor.copy(_command(separator, names, numbered=True)) as copy:
                for line, last, record in records(file):
                    if line == 1:
                        continue
                    fault = misfit(record, separator.encode())
                    if fault:
                        where = "" if last == line else f" (a record of lines {line} to {last}: is a quote not closed?)"
                        rejects.append(Reject(file.name, str(line), line, fault + where))
                    else:
                        copy.write(b"%d%b%b\n" % (line, separator.encode(), record))
            taken = cursor.rowcount
    except psycopg.Error as exc:
        raise _explain(exc, file) from exc
    landing.reject(rejects)
    return taken


def records(file: LandedFile) -> Iterator[tuple[int, int, bytes]]:
    """First line, last line and bytes of each record, without its line end.

    As the server reads them: each quote opens or closes, and a line end inside of quotes ends nothing.

    Raises FinanceLedgerError where a record does not end within LONGEST_RECORD.
    """
    first, size, is_open = 1, 0, False
    parts: list[bytes] = []
    for number, line in enumerate(_lines(file), start=1):
        parts.append(line)
        size += len(line)
        is_open ^= bool(line.count(b'"') % 2)
        if is_open:
            if size > LONGEST_RECORD:
                raise _never_closed(file)
            continue
        yield first, number, b"".join(parts).removesuffix(b"\n").removesuffix(b"\r")
        first, size = number + 1, 0
        parts.clear()
    if parts:
        raise _never_closed(file)


def _lines(file: LandedFile) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks(file):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


def misfit(record: bytes, separator: bytes, expected: int = len(COLUMNS)) -> str:
    """What keeps a record from being one of the header's fields; empty where nothing does."""
    outside = record.split(b'"')[::2]
    if not record:
        return "the line is empty"
    if any(b"\r" in part for part in outside):
        return "a carriage return stands outside of quotes"
    fields = 1 + sum(part.count(separator) for part in outside)
    if fields != expected:
        return f"it has {fields} fields, the header {expected}: a separator inside of a field needs quotes around it"
    return ""


def _sample(landing: Landing) -> list[Reject]:
    rows = landing.conn.execute(
        "select source, source_key, line, reason, amount::bigint, payload from backfill.reject"
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
        return FinanceLedgerError(f"{where} is not UTF-8 ({words}): save it as `CSV UTF-8`. Nothing was imported")
    if exc.sqlstate == "54000":
        return _never_closed(file)
    return exc


def _never_closed(file: LandedFile) -> FinanceLedgerError:
    return FinanceLedgerError(
        f"{file.name}: a quote is opened and never closed; the first field that runs on beyond its line begins in "
        f"line {_first_open_quote(file)}. Nothing was imported"
    )


def _first_open_quote(file: LandedFile) -> int:
    with opened(file.path) as source:
        for number, line in enumerate(source, start=1):
            if line.count(b'"') % 2:
                return number
    return 1
