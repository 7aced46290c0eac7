"""Original documents of invoices into a private store (a folder, s3://…), verbatim, and read back before it counts."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import fsspec
from psycopg.types.json import Jsonb

from runner.database import Connection, connect, locked_transaction, retrying, transaction
from runner.errors import RunnerError, UsageError
from runner.files import opened
from runner.load import Reject
from runner.settings import Settings

_CHUNK = 1 << 20


class DocumentStoreError(RunnerError):
    """The store of original documents cannot be reached, read or written."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of the originals. `run_id` is the run that wrote it down; None where there was nothing to write."""

    run_id: uuid.UUID | None
    stored: int
    found: int
    """In the store already, with the right content: stored by a run that was interrupted."""
    failed: tuple[str, ...]
    missing: tuple[str, ...] = ()
    """Not in the folder, or no PDF: each invoice with its reason."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    company: uuid.UUID
    number: str
    facility: uuid.UUID


def rejects(folder: Path, numbers: Iterable[str]) -> Iterator[Reject]:
    """A reject for each invoice whose original is not in `folder` as <number>.pdf, or is not a PDF."""
    for number in numbers:
        problem = _problem(folder, number)
        if problem is not None:
            yield Reject(folder.name, number, None, problem)


def store(
    settings: Settings,
    url: str,
    folder: Path,
    company: str | None,
    *,
    options: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> Stored:
    """Store the originals in `folder` of every staged invoice that has none, as <facility id>/<number>.pdf below `url`.

    Each is read back, and counts only with the sha256 of the file; what counts is written down in one run at the end.
    An original in the store is never overwritten. Interrupted anywhere, the same call goes on. Raises
    DocumentStoreError where the store fails, after writing down what it has.
    """
    with connect(settings, application_name="runner documents") as conn, transaction(conn, settings):
        wanted = _wanted(conn, company_id(conn, company))
    problems = {item: problem for item in wanted if (problem := _problem(folder, item.number)) is not None}
    missing = tuple(f"{item.number}: {problem}" for item, problem in problems.items())
    if dry_run:
        return Stored(None, 0, 0, (), missing)
    present = [
        (item, path) for item in wanted if item not in problems and (path := _path(folder, item.number)) is not None
    ]
    failed: list[str] = []
    records: list[dict[str, Any]] = []
    found = 0
    cause: Exception | None = None
    if present:
        filesystem, root = fsspec.core.url_to_fs(url, **(options or {}))
    for item, path in present:
        target = f"{item.facility}/{name(item.number)}"
        try:
            with opened(path, links=False) as original:
                sha256, size = _digest(original)
            there = filesystem.exists(f"{root}/{target}")
            if not there:
                _write(filesystem, path, root, target)
            with filesystem.open(f"{root}/{target}", "rb") as kept:
                same = _digest(kept) == (sha256, size)
            if not same:
                if there:
                    failed.append(f"{item.number}: another document is at {target}; it was left alone")
                else:  # ours, and worth nothing: it must not be in the way of the next try
                    filesystem.rm_file(f"{root}/{target}")
                    failed.append(f"{item.number}: read back from {target} it was not the same; it was removed")
                continue
        except Exception as exc:
            cause = exc
            failed.append(f"{item.number}: {exc}")
            break
        found += there
        records.append({
            "company_id": str(item.company), "invoice_number": item.number, "file_name": path.name, "sha256": sha256,
            "bytes": size, "stored_path": target,
        })  # fmt: skip
    run_id = _record(settings, records) if records else None
    if cause is not None:
        raise DocumentStoreError(
            f"the store {url} failed at {failed[-1]}; {len(records)} of {len(present)} originals are stored and "
            "written down: run the same command again to go on"
        ) from cause
    return Stored(run_id, len(records) - found, found, tuple(failed), missing)


def company_id(conn: Connection, given: str | None) -> uuid.UUID:
    """Id of the company with this name or id; without one, of the only company. Raises UsageError."""
    found = conn.execute(
        "select id, name from billing.companies where %(given)s::text is null or name = %(given)s"
        " or id::text = %(given)s order by name",
        {"given": given},
    ).fetchall()
    if len(found) == 1:
        company: uuid.UUID = found[0][0]
        return company
    if given is not None or not found:
        known = [name for (name,) in conn.execute("select name from billing.companies order by name limit 5")]
        if not known:
            raise UsageError("billing.companies is empty: create the company first")
        there = f"there are, for example, {', '.join(map(repr, known))}"
        raise UsageError(f"there is no company {given or ''}".rstrip() + f" in billing.companies; {there}")
    raise UsageError(f"there are {len(found)} companies: say --company NAME, e.g. {found[0][1]!r}")


def name(number: str) -> str:
    """File name of an invoice's original; a number with a slash cannot lead elsewhere."""
    return quote(number, safe=" #&+,;=@") + ".pdf"


def _path(folder: Path, number: str) -> Path | None:
    paths = (folder / name(number), folder / f"{name(number)[:-4]}.PDF")
    return next((path for path in paths if os.path.lexists(path)), None)


def _problem(folder: Path, number: str) -> str | None:
    path = _path(folder, number)
    if path is None:
        return f"there is no {name(number)}"
    try:
        with opened(path, links=False) as file:
            return None if file.read(5) == b"%PDF-" else f"{path.name} is not a PDF"
    except OSError as exc:
        return f"{path.name} cannot be read: {exc.strerror}"


def _wanted(conn: Connection, company: uuid.UUID) -> list[_Wanted]:
    rows = conn.execute(
        "select s.company_id, s.invoice_number, s.facility_id from staging.invoices as s"
        " where s.company_id = %s and s.withdrawn is null and not exists (select from staging.invoice_documents as d"
        " where d.company_id = s.company_id and d.invoice_number = s.invoice_number) order by s.invoice_number",
        [company],
    )
    return [_Wanted(*row) for row in rows]


def _write(filesystem: Any, path: Path, root: str, target: str) -> None:
    """Nobody ever sees half a document: a folder gets it by renaming, an object store by itself."""
    where = f"{root}/{target}"
    if "file" not in (filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)):
        filesystem.put_file(str(path), where)
        return
    for folder in (Path(root), Path(where).parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = Path(f"{where}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    filesystem.put_file(str(path), str(part))
    part.replace(where)


def _digest(source: BinaryIO) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _record(settings: Settings, records: list[dict[str, Any]]) -> uuid.UUID:
    def recorded(conn: Connection) -> uuid.UUID:
        with locked_transaction(conn, settings):
            row = conn.execute("select run_id from staging.record_documents(%s)", [Jsonb(records)]).fetchone()
            assert row is not None  # noqa: S101 - a function call returns a row
            run_id: uuid.UUID = row[0]
        return run_id

    with connect(settings, application_name="runner documents") as conn:
        return retrying(lambda: recorded(conn), settings)
