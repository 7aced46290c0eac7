"""`runner load rent-history` and `runner load electricity`: files into staging, a calculation whole or not at all."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from runner.database import Connection
from runner.errors import UsageError
from runner.load import LandedFile, Landing, LoadResult, Reject, load
from runner.rent.electricity import parse as parse_bills
from runner.rent.files import BadFileError, read
from runner.rent.history import Calculation, absent, is_calculation, parse
from runner.settings import Settings

HISTORY, BILLS = "rent-history", "electricity"


@dataclass(frozen=True, slots=True)
class LoadedCalculation:
    """A calculation as it is staged now. `counts`: the highest version of its month; the others are history."""

    name: str
    period: str
    version: int
    counts: bool
    accepted: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RentHistoryLoad:
    """What a load did: the framework's result, the calculations it staged, and files of the directory that are none."""

    result: LoadResult
    calculations: tuple[LoadedCalculation, ...]
    ignored: tuple[str, ...]

    @property
    def kept(self) -> str:
        """What is committed, whatever becomes of the output; empty where nothing is."""
        return self.result.kept


def load_rent_history(
    settings: Settings,
    directory: Path,
    *,
    accept: Collection[str] = (),
    dry_run: bool = False,
    allow_rejects: int = 0,
) -> RentHistoryLoad:
    """Stage every *.json of `directory`; what is suspect only where its name is in `accept`.

    A rejected file is not remembered as loaded: when it is accepted, or the tenant is known, it can come again.
    Raises UsageError for a directory without calculations or an `accept` that is not in it, SqlError BF004 (exit 3,
    nothing is loaded) where more than `allow_rejects` files are rejected.
    """
    paths, ignored = calculation_paths(directory)
    strangers = sorted(set(accept) - {path.name for path in paths})
    if strangers:
        raise UsageError(f"--accept {strangers[0]}: {directory} holds no such file")
    staged: list[LoadedCalculation] = []

    def fill(landing: Landing) -> None:
        staged[:] = _fill(landing, frozenset(accept))  # anew where the load is tried again

    result = load(settings, loader=HISTORY, paths=paths, fill=fill, dry_run=dry_run, allow_rejects=allow_rejects)
    return RentHistoryLoad(result, tuple(staged), ignored)


def calculation_paths(directory: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Whatever is named *.json in a directory, in order of month and version, and the names of all else that it holds.

    A link to nowhere and a directory are taken too: reading them fails by name, so that none is passed over in silence.
    Raises UsageError where it cannot be read or holds no calculation: nothing is no success.
    """
    try:
        entries = sorted(directory.iterdir())
    except OSError as exc:
        raise UsageError(f"{directory} cannot be read: {exc.strerror}") from exc
    paths = [path for path in entries if path.suffix.lower() == ".json"]
    if not any(is_calculation(path.name) for path in paths):
        raise UsageError(f"{directory} holds no file YYYY_MM_vN.json")
    return paths, tuple(path.name for path in entries if path not in paths)


def load_electricity(settings: Settings, path: Path, *, dry_run: bool = False, allow_rejects: int = 0) -> LoadResult:
    """Stage one file of bills. Raises SqlError BF004 (exit 3, nothing is loaded) naming the lines where more than
    `allow_rejects` cannot be taken."""
    return load(settings, loader=BILLS, paths=[path], fill=_fill_bills, dry_run=dry_run, allow_rejects=allow_rejects)


def residence(conn: Connection) -> dict[str, tuple[str | None, str | None]]:
    """First and last month of each tenant as YYYY-MM."""
    rows = conn.execute(
        "select name, to_char(start_date, 'YYYY-MM'), to_char(departure_date, 'YYYY-MM') from rent.tenants"
    )
    return {name: (start, departure) for name, start, departure in rows}


def _fill(landing: Landing, accept: frozenset[str]) -> list[LoadedCalculation]:
    lived = residence(landing.conn)
    taken: list[tuple[LandedFile, Calculation, tuple[str, ...]]] = []
    rejected: list[tuple[LandedFile, str]] = []
    known = _versions(landing.conn)
    for file in landing.files:
        try:
            calculation = parse(file.name, read(file.path))
            suspicions = _judge(calculation, lived, known, accept)
        except BadFileError as exc:
            rejected.append((file, str(exc)))
            continue
        known[calculation.period, calculation.version] = file.name
        taken.append((file, calculation, suspicions))
    landing.copy(
        "staging.rent_history",
        ("file_sha256", "file_name", "period", "version", "calculation_month", "title", "calculated_at",
         "base_monthly_rent", "document", "suspicions", "remarks"),
        (
            (file.sha256, s.name, s.period, s.version, s.calculation_month, s.title, s.calculated_at,
             s.base_monthly_rent, s.text, list(suspicions), list(s.remarks))
            for file, s, suspicions in taken
        ),
    )  # fmt: skip
    rows = landing.rows  # the files are the source's rows, not the persons in them
    landing.copy(
        "staging.rent_history_share",
        ("file_sha256", "tenant", "days", "room_adjustment", "amount"),
        (
            (file.sha256, share.tenant, share.days, share.room_adjustment, share.amount)
            for file, s, _ in taken
            for share in s.shares
        ),
    )
    landing.rows = rows
    landing.reject(Reject(file.name, file.sha256[:12], None, reason) for file, reason in rejected)
    landing.conn.execute("select staging.forget_files(%s, %s)", [HISTORY, [file.sha256 for file, _ in rejected]])
    highest = {period: max(v for p, v in known if p == period) for period, _ in known}
    return [
        LoadedCalculation(s.name, s.period, s.version, s.version == highest[s.period], suspicions, s.remarks)
        for _, s, suspicions in taken
    ]


def _judge(
    calculation: Calculation,
    lived: dict[str, tuple[str | None, str | None]],
    known: dict[tuple[str, int], str],
    accept: frozenset[str],
) -> tuple[str, ...]:
    """What the calculation was suspected of and accepted with. Raises BadFileError where it cannot be taken."""
    unknown, absences = absent(calculation, lived)
    if unknown:
        raise BadFileError(f"no such tenant: {', '.join(unknown)}. Add them to rent.tenants")
    other = known.get((calculation.period, calculation.version))
    if other is not None:
        raise BadFileError(
            f"version {calculation.version} of {calculation.period} was loaded with other content ({other})"
        )
    suspicions = (*calculation.suspicions, *absences)
    if suspicions and calculation.name not in accept:
        raise BadFileError(f"suspect: {'; '.join(suspicions)}. If it is right: --accept {calculation.name}")
    return suspicions


def _versions(conn: Connection) -> dict[tuple[str, int], str]:
    rows = conn.execute("select period, version, file_name from staging.rent_history")
    return {(period, version): name for period, version, name in rows}


def _fill_bills(landing: Landing) -> None:
    for file in landing.files:
        try:
            bills, bad = parse_bills(read(file.path))
        except BadFileError as exc:
            landing.reject([Reject(file.name, file.sha256[:12], None, str(exc))])
            landing.conn.execute("select staging.forget_files(%s, %s)", [BILLS, [file.sha256]])
            continue
        landing.copy(
            "staging.electricity_bill",
            ("file_sha256", "line", "provider", "bill_date", "amount"),
            ((file.sha256, bill.line, bill.provider, bill.bill_date, bill.amount) for bill in bills),
        )
        landing.reject(
            Reject(file.name, str(line.line), line.line, line.reason, payload={"text": line.text}) for line in bad
        )
