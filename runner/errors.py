"""Every error a person can meet, with its exit code, and the one place where driver errors become them.

Exit codes: 0 done or nothing due, 1 error, 2 usage, 3 a gate or reject stopped it, 4 the apply differed
from the rehearsal or the signed plan, 5 no lock or no serialization, 6 reversal refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import psycopg  # 0.15 s, which `runner --help` need not spend


class RunnerError(Exception):
    """The base of all errors that are shown without a traceback; the message names the way out."""

    exit_code: int = 1


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


class NotProvedError(RunnerError):
    """A transaction was ended by what ran in it, or cannot be shown to be rolled back: what may be there is named."""


class LockedError(RunnerError):
    """Could not get a lock in time."""

    exit_code = 5


class LockBudgetError(LockedError):
    """Somebody waited for the run longer than the lock budget: it was ended, and is not tried again."""


class MaxTimeError(RunnerError):
    """The verb took longer than max_time."""


class GateError(RunnerError):
    """A gate found failing rows."""

    exit_code = 3


class GateCompileError(RunnerError):
    """The dbt project cannot be compiled into gates."""


class DigestError(RunnerError):
    """The apply did not reproduce what the rehearsal had shown."""

    exit_code = 4


class PlanError(RunnerError):
    """A saved plan does not hold here, or any more: nothing of it was done."""

    exit_code = 4


class MigrationError(RunnerError):
    """A migration cannot be read, applied or rolled back."""


class EditedMigrationError(MigrationError):
    """The file of an applied migration is not the one that was applied."""


class NotRehearsableError(MigrationError):
    """A pending migration says `transactional: false`: it cannot be rehearsed or rolled back."""


class SnapshotError(RunnerError):
    """A dump could not be taken or written."""


class EmbeddedServerError(RunnerError):
    """The embedded PostgreSQL could not be found, started or stopped."""


class SqlError(RunnerError):
    """An error of the server, or of the runner in the same words, by its SQLSTATE: one of CODES or PostgreSQL's."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.exit_code = CODES[sqlstate].exit_code if sqlstate in CODES else 5 if sqlstate in _CONCURRENT else 1


class Code(NamedTuple):
    """When an SQLSTATE of our own is raised, and with which exit code the runner ends."""

    meaning: str
    exit_code: int = 1


CODES: Final = {
    "BF001": Code(
        "a run is open where none may be, not open where one must be, not finished at the commit, or is to be undone "
        "while it runs"
    ),
    "BF002": Code(
        "`track()`, or a run, cannot watch a table completely: a view, foreign, partitioned, inherited, temporary, "
        "unlogged or distributed table, one with a rule, without a primary key, with more than 160 columns, with a "
        "cast WITH FUNCTION to or from text, or with a trigger called like the engine's; or `rebind()` was "
        "told what is not so"
    ),
    "BF003": Code(
        "a run would change what is not captured: TRUNCATE of a tracked table, or a foreign key's cascade into one "
        "that is not tracked"
    ),
    "BF004": Code("more source rows cannot be taken than were allowed; the first ten are in the detail", 3),
    "BF005": Code(
        "rows changed since or missing, rows of others refer to what would be removed, a constraint, a value or a "
        "trigger keeps rows from coming back, a trigger would change rows that the run had not, or it is in doubt "
        "since a restore which table or column is which",
        6,
    ),
    "BF006": Code(
        "an existing table lacks a column, has it in another type, or has a NOT NULL column that nobody fills"
    ),
    "BF007": Code("rows that must be unique are there twice, before an index could forbid it"),
    "BF008": Code("UPDATE, DELETE or TRUNCATE of an audit table"),
    "BF009": Code(
        "there is no backfill, run or function of that name; or a name cannot be registered: its place is taken", 2
    ),
    "BF010": Code("rolling a migration back would destroy the audit, or rows that it did not create"),
    "BF011": Code("before + changes do not make after"),
    "BF012": Code(
        "what a run captured is not all that happened to tracked tables in it: triggers, shape or rows changed past "
        "the capture; table and cause are named"
    ),
    "BF013": Code(
        "staging is written past the engine, or what is staged is no longer what was loaded; table and file are named"
    ),
    "BF014": Code(
        "code on a table (its triggers, defaults, checks, types) belongs to a role that nobody has trusted; or a table "
        "is tracked by somebody who does not own it"
    ),
    "BF015": Code(
        "an as-of that is no moment or not past, that the backfill cannot keep since it names no column for it, or of "
        "which it cannot be seen whether older transactions still write",
        2,
    ),
    "BF016": Code("an as-of younger than a transaction that is still writing, which is named", 5),
    "BF017": Code(
        "a run cannot be reversed because its images are not here: they were exported to a file, which is named, or "
        "values in them were erased",
        6,
    ),
    "BF018": Code(
        "an export, restore, erasure or seal that cannot be made: the file is not the one, or does not hold what the "
        "chain says; no such image; no reason"
    ),
    "BF019": Code(
        "at the commit: a run reaches a policy and lacks approvals, or was refused; signature and gross sum are named",
        3,
    ),
    "BF020": Code(
        "what was billed, a kept rent calculation or a closed month would be changed, by anything but a reversal"
    ),
    "BF021": Code("a change of a closed month; corrections go to an open one"),
    "BF022": Code("a rent calculation cannot be made from what was given: the value, the key or the person is named"),
    "BF023": Code("a reversal would change a closed month", 6),
    "BF030": Code(
        "the server read fewer lines of a file than were sent: by hand, a line of `\\.` alone ends the data before "
        "PostgreSQL 18 (the runner makes it a reject)"
    ),
    "BF031": Code("one side of a reconciliation is empty: nothing passes on nothing", 3),
    "BF032": Code(
        "a comparison not begun, with a tolerance below zero, of no day, or of a company that is not there", 2
    ),
    "BF033": Code(
        "`billing.apply()` and its kind: another company, facility, customer or currency, a draft or void invoice, "
        "more than is open or left, a no that stands, no reason"
    ),
    "BF034": Code(
        "`billing.require_profiles()` while invoices of customers have no billing profile; the first ten are in the "
        "detail"
    ),
    "BF035": Code("`billing.enable_rls()` on a table without a policy: all of it would be hidden"),
    "BF036": Code("a waiver without a reason, or one that does not end within a year", 2),
    "BF040": Code(
        "`ledger.record_payment_collection()`: the reference is in the ledger with another account, amount or "
        "effective date; each difference is named"
    ),
    "BF041": Code(
        "a step of a fetch that was never begun or is over; an answer of the processor that is not an array; dates "
        "that are not dates"
    ),
    "BF042": Code("at the commit: a ledger transaction has no postings, or they do not sum to zero for each asset"),
    "BF043": Code(
        "`lending.link_schedule()`: the processor does not have the schedule, it is linked, or the mortgage has one"
    ),
    "BF044": Code(
        "the schedule's customer is not the mortgage's borrower; override it with a reason, which the log keeps"
    ),
    "BF045": Code("a payment that is not approved, not settled yet, or would take effect in the future"),
    "BF046": Code("a transaction would be confirmed that was never sent, or under another id than before"),
    "BF047": Code(
        "`lending.unlink_schedule()`: nothing is linked, payments of the schedule are on the mortgage, no reason", 6
    ),
    "BF301": Code("an invoice was backfilled before under this number with another payload; the fields are named"),
    "BF302": Code(
        "a backfill, issue or correction of an invoice would break a rule, or lacks something; where the rule is a "
        "constraint, the error names it"
    ),
}
"""SQLSTATEs of our own, class BF; docs/errors.md has the same table."""

OUTSIDE: Final = "outside a transaction, where what was done stays"
"""A note on a driver error: of what ran so it is not said that nothing was kept."""

_CONCURRENT: Final = ("40001", "40P01")
_GONE: Final = {"57P01", "57P02", "57P03", "57P05", "25P03", "08003", "08006"}

# What happened, and the way out where the server gives no hint.
_SERVER: Final = {
    "53100": (
        "the server's disk is full: ",
        ("{kept}make room for the table, its indexes, WAL and the audit (the dry run prints how much), then run again"),
    ),
    "25006": (
        "the database is read-only here: ",
        "Connect to the primary server with a role whose default_transaction_read_only is off",
    ),
    "57014": (
        "a statement was cancelled: ",
        "{kept}raise statement_timeout in runner.toml if the work is known to take longer",
    ),
    "42501": (
        "",
        (
            "Use a role that may (backfill_operator to execute, backfill_auditor to read), or grant it. What a "
            "backfill's function or a trigger of its tables reaches for is granted to the engine's owner, "
            "backfill_owner"
        ),
    ),
    **dict.fromkeys(
        _CONCURRENT,
        (
            "a concurrent transaction got in the way: ",
            "{kept}run the same command again; where an application writes what is read, with --as-of '1 hour ago'",
        ),
    ),
    **dict.fromkeys(
        ("42P01", "42703", "42883", "3F000", "42704"),
        ("", "Is this the right database? runner status lists pending migrations"),
    ),
}


def translate(exc: psycopg.Error) -> RunnerError:
    """Turn a driver error into the project's own, with one message that names object, value and way out.

    Raise the result `from exc`, so that the chain of causes stays.
    """
    import psycopg

    state, hint = exc.sqlstate, exc.diag.message_hint
    text = _text(exc)
    kept = "" if OUTSIDE in getattr(exc, "__notes__", ()) else "Nothing of the open transaction was kept; "
    if state in _GONE or (state is None and isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError)):
        return ServerGoneError(
            f"the server ended the connection: {text}. {kept}see the server's log, then run the same command again"
        )
    if state == "55P03":
        return LockedError(
            f"could not get the lock within lock_timeout: {text}. See pg_locks for who holds it, wait for that "
            "transaction or raise lock_timeout in runner.toml"
        )
    # By the server's own place, since its words are in its own language.
    if state == "42501" and exc.diag.source_function == "check_enable_rls":
        hint = (
            "Rows would be hidden and counts wrong: use a role with BYPASSRLS, or the table's owner without FORCE ROW "
            "LEVEL SECURITY"
        )
    before, way_out = _SERVER.get(state or "", ("", ""))
    where = "" if state is None or state in CODES or state in _SERVER else f" [SQLSTATE {state}]"
    advice = way_out.replace("{kept}", kept) if before else hint or way_out
    return SqlError(state or "", f"{before}{text}{where}" + (f". {advice}" if advice else ""))


def _text(exc: psycopg.Error) -> str:
    """The server's own message with detail, without the SQL around it."""
    diag = exc.diag
    text = diag.message_primary or str(exc).strip() or type(exc).__name__
    if diag.message_detail:
        text += f" ({diag.message_detail.strip()})"
    # Whoever knows what was being done, e.g. which migration, has left a note.
    return ": ".join([*getattr(exc, "__notes__", []), text])
