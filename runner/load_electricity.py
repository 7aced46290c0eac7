"""`runner load electricity`: a text file of electricity bills into staging."""

from __future__ import annotations

from pathlib import Path

from runner.load import Landing, LoadResult, Reject, load
from runner.settings import Settings
from runner.sources.electricity import LARGEST_FILE, BillFileError, parse

LOADER = "electricity"


def load_electricity(settings: Settings, path: Path, *, dry_run: bool = False, allow_rejects: int = 0) -> LoadResult:
    """Stage one file. Raises RejectsError (exit 3, nothing is loaded) naming the lines where more than
    `allow_rejects` cannot be taken."""
    return load(settings, loader=LOADER, paths=[path], fill=_fill, dry_run=dry_run, allow_rejects=allow_rejects)


def read_bills(path: Path) -> bytes:
    """At most one byte more than a file of bills may have."""
    with path.open("rb") as file:
        return file.read(LARGEST_FILE + 1)


def _fill(landing: Landing) -> None:
    for file in landing.files:
        try:
            bills, bad = parse(read_bills(file.path))
        except BillFileError as exc:
            landing.reject([Reject(file.name, file.sha256[:12], None, str(exc))])
            landing.conn.execute("select staging.forget_files(%s, %s)", [LOADER, [file.sha256]])
            continue
        landing.copy(
            "staging.electricity_bill",
            ("file_sha256", "line", "provider", "bill_date", "amount"),
            ((file.sha256, bill.line, bill.provider, bill.bill_date, bill.amount) for bill in bills),
        )
        landing.reject(
            Reject(file.name, str(line.line), line.line, line.reason, payload={"text": line.text}) for line in bad
        )
