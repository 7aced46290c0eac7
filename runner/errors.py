"""Every error a person can meet, with its exit code, and the one place where driver errors become them.

Exit codes: 0 done or nothing due, 1 error, 2 usage, 3 a gate or reject stopped it, 4 the apply differed
from the rehearsal, 5 no lock or no serialization, 6 reversal refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import psycopg  # 0.15 s, which `runner --help` need not spend


class RunnerError(Exception):
    """The base of all errors that are shown without a traceback; the message names the way out."""

    exit_code: ClassVar[int] = 1
    sqlstate: ClassVar[str | None] = None


class UsageError(RunnerError):
    """The command line or a configuration file asks for something that does not exist or fit."""

    exit_code = 2


class ConfigurationError(UsageError):
    """runner.toml or an environment variable holds a value that cannot be used."""


class ConnectError(RunnerError):
    """No connection to the database could be opened."""


class ServerGoneError(RunnerError):
    """The server went away; what was not committed is rolled back by it."""


class CommitUnknownError(RunnerError):
    """The connection broke during the commit: the server may have kept the transaction or not."""


class MissingObjectError(RunnerError):
    """A table, column, function or schema that is needed does not exist."""


class PrivilegeError(RunnerError):
    """The role may not do this."""


class RowSecurityError(PrivilegeError):
    """A row-security policy would have hidden rows; the runner refuses to count what it cannot see."""


class ReadOnlyError(RunnerError):
    """The transaction, the role or the server is read-only."""


class DiskFullError(RunnerError):
    """The server has no room left; it rolled the transaction back."""


class StatementTimeoutError(RunnerError):
    """A statement ran longer than statement_timeout, or somebody cancelled it."""


class DatabaseError(RunnerError):
    """Any other error of the server, with its SQLSTATE."""


class LockedError(RunnerError):
    """A lock was not to be had in time."""

    exit_code = 5


class SerializationError(RunnerError):
    """A concurrent transaction got in the way; trying again is safe."""

    exit_code = 5


class GateError(RunnerError):
    """A gate found failing rows."""

    exit_code = 3


class DigestError(RunnerError):
    """The apply did not reproduce what the rehearsal had shown."""

    exit_code = 4


class MigrationError(RunnerError):
    """A migration cannot be read, applied or rolled back."""


class EditedMigrationError(MigrationError):
    """The file of an applied migration is not the one that was applied."""


class NotRehearsableError(MigrationError):
    """A pending migration says `transactional: false`: it cannot be rehearsed or rolled back."""


class RemoteError(RunnerError):
    """A service answered something that its contract does not know; what was landed or confirmed before is kept."""


class RemoteUnavailableError(RemoteError):
    """A service did not answer as it should for as often as it was asked: 429, 5xx, no or a cut connection."""


class RemoteAccessError(RemoteError):
    """A service refuses the token (401, 403)."""


class RemoteNotFoundError(RemoteError):
    """A service does not know what was asked for (404)."""


class RemoteRefusedError(RemoteError):
    """A service cannot take what it was asked (400, 406, 413, 422); its code is named, its text with digits masked."""


class LedgerFileError(UsageError):
    """A file is no ledger that can be read: header, encoding, quotes, line ends."""


class SnapshotError(RunnerError):
    """A dump could not be taken or written."""


class EmbeddedServerError(RunnerError):
    """The embedded PostgreSQL could not be found, started or stopped."""


class RunStateError(RunnerError):
    """BF001: a run is open where none may be, or is not open where one must be."""

    sqlstate = "BF001"


class CannotTrackError(RunnerError):
    """BF002: a relation cannot be tracked."""

    sqlstate = "BF002"


class NotCapturedError(RunnerError):
    """BF003: a run would change what is not captured: TRUNCATE, or a cascade into a table that is not tracked."""

    sqlstate = "BF003"


class RejectsError(RunnerError):
    """BF004: source rows were rejected, more than were allowed."""

    exit_code = 3
    sqlstate = "BF004"


class ReversalRefusedError(RunnerError):
    """BF005: a row is no longer what the run left, or others refer to it."""

    exit_code = 6
    sqlstate = "BF005"


class BaselineMisfitError(RunnerError):
    """BF006: an existing table does not have the columns that are needed."""

    sqlstate = "BF006"


class DuplicatesError(RunnerError):
    """BF007: rows that must be unique are there already."""

    sqlstate = "BF007"


class AppendOnlyError(RunnerError):
    """BF008: audit tables take no UPDATE, DELETE or TRUNCATE."""

    sqlstate = "BF008"


class UnknownNameError(RunnerError):
    """BF009: no backfill, run or table has this name."""

    exit_code = 2
    sqlstate = "BF009"


class RollbackRefusedError(RunnerError):
    """BF010: a migration's rollback would destroy what it did not create."""

    sqlstate = "BF010"


class LedgerImmutableError(RunnerError):
    """BF020: what was billed, a kept calculation or a closed month is history: no UPDATE, DELETE or TRUNCATE."""

    sqlstate = "BF020"


class ClosedPeriodError(RunnerError):
    """BF021: the month is closed; corrections go to an open one."""

    sqlstate = "BF021"


class CalculationError(RunnerError):
    """BF022: a rent calculation cannot be made or found from what was given."""

    sqlstate = "BF022"


class ClosedPeriodReversalError(ReversalRefusedError):
    """BF023: a reversal would change a closed month."""

    sqlstate = "BF023"


class LedgerIncompleteError(RunnerError):
    """BF030: the server read fewer lines of a file than were sent."""

    sqlstate = "BF030"


class ControlTotalError(RunnerError):
    """BF011: before + changes do not make after: something wrote past the capture."""

    sqlstate = "BF011"


class NothingToCompareError(RunnerError):
    """BF031: one side of a reconciliation is empty, and nothing passes on nothing."""

    exit_code = 3
    sqlstate = "BF031"


class ComparisonError(RunnerError):
    """BF032: a comparison was not begun, or its tolerance is no amount."""

    exit_code = 2
    sqlstate = "BF032"


class LinkRefusedError(RunnerError):
    """BF033: a payment cannot be linked to this invoice."""

    sqlstate = "BF033"


class ProfilesMissingError(RunnerError):
    """BF034: a constraint cannot be had while rows break it."""

    sqlstate = "BF034"


class PoliciesMissingError(RunnerError):
    """BF035: a table without a policy would be hidden as a whole by row level security."""

    sqlstate = "BF035"


class DocumentStoreError(RunnerError):
    """The store of original documents cannot be reached, read or written."""


class PayloadConflictError(RunnerError):
    """BF301: an invoice was backfilled before with another payload."""

    sqlstate = "BF301"


class InvoiceRefusedError(RunnerError):
    """BF302: it would break a rule of invoices."""

    sqlstate = "BF302"


class WaiverError(RunnerError):
    """BF036: a waiver without a reason, or one that does not end within a year."""

    exit_code = 2
    sqlstate = "BF036"


class LedgerConflictError(RunnerError):
    """BF040: a reference is in the ledger already, with other content."""

    sqlstate = "BF040"


class FetchError(RunnerError):
    """BF041: a step of a fetch that does not run, or an answer that is no array."""

    sqlstate = "BF041"


class UnbalancedError(RunnerError):
    """BF042: a ledger transaction has no postings, or they do not sum to zero."""

    sqlstate = "BF042"


class ScheduleLinkError(RunnerError):
    """BF043: a schedule cannot be linked: unknown, gone, linked, or the mortgage has one."""

    sqlstate = "BF043"


class CustomerMismatchError(RunnerError):
    """BF044: the schedule's customer is not the mortgage's borrower, and no reason was given."""

    sqlstate = "BF044"


class NotPostableError(RunnerError):
    """BF045: a payment that is not approved and settled, or would take effect before its time."""

    sqlstate = "BF045"


class PushStateError(RunnerError):
    """BF046: an answer of the other ledger that does not fit what was sent."""

    sqlstate = "BF046"


class UnlinkRefusedError(ReversalRefusedError):
    """BF047: a link cannot be taken back: none, payments on it, or no reason."""

    sqlstate = "BF047"


CUSTOM: dict[str, type[RunnerError]] = {
    error.sqlstate: error
    for error in (
        RunStateError,
        CannotTrackError,
        NotCapturedError,
        RejectsError,
        ReversalRefusedError,
        BaselineMisfitError,
        DuplicatesError,
        AppendOnlyError,
        UnknownNameError,
        RollbackRefusedError,
        ControlTotalError,
        LedgerImmutableError,
        ClosedPeriodError,
        CalculationError,
        ClosedPeriodReversalError,
        LedgerIncompleteError,
        NothingToCompareError,
        ComparisonError,
        LinkRefusedError,
        ProfilesMissingError,
        PoliciesMissingError,
        PayloadConflictError,
        InvoiceRefusedError,
        WaiverError,
        LedgerConflictError,
        FetchError,
        UnbalancedError,
        ScheduleLinkError,
        CustomerMismatchError,
        NotPostableError,
        PushStateError,
        UnlinkRefusedError,
    )
}

_GONE = {"57P01", "57P02", "57P03", "57P05", "25P03", "08003", "08006"}
_MISSING = {"42P01", "42703", "42883", "3F000", "42704"}


def _text(exc: psycopg.Error) -> str:
    """The server's own message with detail and hint, without the SQL around it."""
    diag = exc.diag
    primary = diag.message_primary or str(exc).strip() or type(exc).__name__
    parts = [primary]
    if diag.message_detail:
        parts.append(f"({diag.message_detail.strip()})")
    # Whoever knows what was being done, e.g. which migration, has left a note.
    return ": ".join([*getattr(exc, "__notes__", []), " ".join(parts)])


def _hint(exc: psycopg.Error, fallback: str) -> str:
    return exc.diag.message_hint or fallback


def translate(exc: psycopg.Error) -> RunnerError:
    """Turn a driver error into the project's own, with one message that names object, value and way out.

    Raise the result `from exc`, so that the chain of causes stays.
    """
    import psycopg

    state = exc.sqlstate
    text = _text(exc)
    if state in CUSTOM:
        hint = exc.diag.message_hint
        return CUSTOM[state](f"{text}. {hint}" if hint else text)
    if state in _GONE or (state is None and isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError)):
        return ServerGoneError(
            f"the server ended the connection: {text}. Nothing of the open transaction was kept; "
            "see the server's log, then run the same command again"
        )
    if state == "53100":
        return DiskFullError(
            f"the server's disk is full: {text}. The transaction was rolled back; make room for the table, "
            "its indexes, WAL and the audit (the dry run prints how much), then run again"
        )
    if state == "55P03":
        return LockedError(
            f"a lock was not to be had within lock_timeout: {text}. See pg_locks for who holds it, wait for that "
            "transaction or raise lock_timeout in runner.toml"
        )
    if state in ("40001", "40P01"):
        return SerializationError(
            f"a concurrent transaction got in the way: {text}. Nothing was kept; run the same command again"
        )
    if state == "42501":
        return _privilege(exc, text)
    if state == "25006":
        return ReadOnlyError(
            f"the database is read-only here: {text}. Connect to the primary server with a role whose "
            "default_transaction_read_only is off"
        )
    if state == "57014":
        return StatementTimeoutError(
            f"a statement was cancelled: {text}. Nothing was kept; raise statement_timeout in runner.toml "
            "if the work is known to take longer"
        )
    if state in _MISSING:
        return MissingObjectError(
            f"{text}. {_hint(exc, 'Is this the right database? runner status lists pending migrations')}"
        )
    where = f" [SQLSTATE {state}]" if state else ""
    hint = exc.diag.message_hint
    return DatabaseError(f"{text}{where}" + (f". {hint}" if hint else ""))


def _privilege(exc: psycopg.Error, text: str) -> PrivilegeError:
    if "row-level security" in text:
        return RowSecurityError(
            f"{text}. Rows would be hidden and counts wrong: use a role with BYPASSRLS, or the table's owner "
            "without FORCE ROW LEVEL SECURITY"
        )
    way_out = "Use a role that may (backfill_operator to execute, backfill_auditor to read), or grant it"
    return PrivilegeError(f"{text}. {_hint(exc, way_out)}")
