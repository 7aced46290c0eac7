"""`runner load rent-history`: calculation snapshots of a directory into staging, each file whole or not at all."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from runner.database import Connection
from runner.errors import UsageError
from runner.load import LandedFile, Landing, LoadResult, Reject, load
from runner.settings import Settings
from runner.sources.rent_history import LARGEST_FILE, Snapshot, SnapshotError, absent, is_snapshot, parse

LOADER = "rent-history"


@dataclass(frozen=True, slots=True)
class LoadedSnapshot:
    """A snapshot as it is staged now. `counts`: the highest version of its month; the others are history."""

    name: str
    period: str
    version: int
    counts: bool
    accepted: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RentHistoryLoad:
    """What a load did: the framework's result, the snapshots it staged, and files of the directory that are none."""

    result: LoadResult
    snapshots: tuple[LoadedSnapshot, ...]
    ignored: tuple[str, ...]


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
    Raises UsageError for a directory without snapshots or an `accept` that is not in it, RejectsError (exit 3, nothing
    is loaded) where more than `allow_rejects` files are rejected.
    """
    paths, ignored = snapshot_paths(directory)
    strangers = sorted(set(accept) - {path.name for path in paths})
    if strangers:
        raise UsageError(f"--accept {strangers[0]}: {directory} holds no such file")
    staged: list[LoadedSnapshot] = []

    def fill(landing: Landing) -> None:
        staged.extend(_fill(landing, frozenset(accept)))

    result = load(settings, loader=LOADER, paths=paths, fill=fill, dry_run=dry_run, allow_rejects=allow_rejects)
    return RentHistoryLoad(result, tuple(staged), ignored)


def snapshot_paths(directory: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Whatever is named *.json in a directory, in order of month and version, and the names of all else that it holds.

    A link to nowhere and a directory are taken too: reading them fails by name, so that none is passed over in silence.
    Raises UsageError where it cannot be read or holds no snapshot: nothing is no success.
    """
    try:
        entries = sorted(directory.iterdir())
    except OSError as exc:
        raise UsageError(f"{directory} cannot be read: {exc.strerror}") from exc
    paths = [path for path in entries if path.suffix.lower() == ".json"]
    if not any(is_snapshot(path.name) for path in paths):
        raise UsageError(f"{directory} holds no file YYYY_MM_vN.json")
    return paths, tuple(path.name for path in entries if path not in paths)


def read_snapshot(path: Path) -> bytes:
    """At most one byte more than a snapshot may have, so that a huge file costs nothing."""
    with path.open("rb") as file:
        return file.read(LARGEST_FILE + 1)


def residence(conn: Connection) -> dict[str, tuple[str | None, str | None]]:
    """First and last month of each tenant as YYYY-MM."""
    rows = conn.execute(
        "select name, to_char(start_date, 'YYYY-MM'), to_char(departure_date, 'YYYY-MM') from rent.tenants"
    )
    return {name: (start, departure) for name, start, departure in rows}


def _fill(landing: Landing, accept: frozenset[str]) -> list[LoadedSnapshot]:
    lived = residence(landing.conn)
    taken: list[tuple[LandedFile, Snapshot, tuple[str, ...]]] = []
    rejected: list[tuple[LandedFile, str]] = []
    known = _versions(landing.conn)
    for file in landing.files:
        try:
            snapshot = parse(file.name, read_snapshot(file.path))
            suspicions = _judge(snapshot, lived, known, accept)
        except SnapshotError as exc:
            rejected.append((file, str(exc)))
            continue
        known[snapshot.period, snapshot.version] = file.name
        taken.append((file, snapshot, suspicions))
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
    landing.conn.execute("select staging.forget_files(%s, %s)", [LOADER, [file.sha256 for file, _ in rejected]])
    highest = {period: max(v for p, v in known if p == period) for period, _ in known}
    return [
        LoadedSnapshot(s.name, s.period, s.version, s.version == highest[s.period], suspicions, s.remarks)
        for _, s, suspicions in taken
    ]


def _judge(
    snapshot: Snapshot,
    lived: dict[str, tuple[str | None, str | None]],
    known: dict[tuple[str, int], str],
    accept: frozenset[str],
) -> tuple[str, ...]:
    """What the snapshot was suspected of and accepted with. Raises SnapshotError where it cannot be taken."""
    unknown, absences = absent(snapshot, lived)
    if unknown:
        raise SnapshotError(f"no such tenant: {', '.join(unknown)}. Add them to rent.tenants")
    other = known.get((snapshot.period, snapshot.version))
    if other is not None:
        raise SnapshotError(f"version {snapshot.version} of {snapshot.period} was loaded with other content ({other})")
    suspicions = (*snapshot.suspicions, *absences)
    if suspicions and snapshot.name not in accept:
        raise SnapshotError(f"suspect: {'; '.join(suspicions)}. If it is right: --accept {snapshot.name}")
    return suspicions


def _versions(conn: Connection) -> dict[tuple[str, int], str]:
    rows = conn.execute("select period, version, file_name from staging.rent_history")
    return {(period, version): name for period, version, name in rows}
