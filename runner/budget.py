"""Nobody waits for a run longer than the lock budget: another session watches, and ends the run.

The watching is one long statement on a connection of its own. So it goes on where this process stands still (stopped,
in a debugger, on a machine that was suspended), and what it finds is acted upon within the server: a run at work is
cancelled, one whose client leaves its transaction open is terminated. It is measured on those who wait, whatever for: a
table, a row, or a key that the run has written and not committed.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from runner.errors import LockBudgetError, MaxTimeError, RunnerError
from runner.settings import Settings

LOOK: Final = 0.1
"""Seconds between two looks."""
_PATIENCE: Final = 3.0
"""Seconds for the watching session to say what it did."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What could move a cursor, or turn the direction of reading, in what another session says of itself."""

_BEGIN: Final = """
    select set_config('statement_timeout', '0', true), set_config('lock_timeout', '2s', true),
        set_config('jit', 'off', true), set_config('application_name', %s, true),
        set_config('search_path', 'pg_catalog, pg_temp', true),
        (
            select set_config(name, '2s', true) from pg_catalog.pg_settings
            where name = 'client_connection_check_interval'
                and pg_catalog.version() !~* 'windows|mingw|visual c'
        )
"""

# Whoever waits is seen in pg_locks by everybody; only the text of its query is for those who may read it.
_WATCH: Final = """
do $watch$
declare
    v_pid constant integer := {pid};
    v_look constant interval := {look};
    v_patience constant interval := {patience};
    v_deadline constant timestamptz := clock_timestamp() + {left}::interval;
    v_run text;
    v_now text;
    v_found record;
    v_state record;
    v_told jsonb;
    v_acted timestamptz;
begin
    loop
        perform pg_stat_clear_snapshot();
        select l.virtualtransaction into v_now from pg_locks as l
        where l.pid = v_pid and l.locktype = 'virtualxid' and l.granted limit 1;
        v_run := coalesce(v_run, v_now);
        exit when v_now is distinct from v_run or v_now is null;
        select w.*, clock_timestamp() - w.waitstart as waited into v_found
        from pg_locks as w
        where not w.granted and w.pid <> v_pid and w.waitstart < clock_timestamp() - v_patience
            -- Another run waits for its turn, as it should.
            and not (w.locktype = 'advisory' and w.objsubid = 1
                and (w.classid::bigint << 32) | w.objid::bigint = hashtextextended('backfill', 0))
            and case when v_pid = any (pg_blocking_pids(w.pid)) then exists (
                -- A worker of autovacuum belongs to nobody, and gives way by itself.
                select from pg_stat_activity as a where a.pid = w.pid and a.usesysid is not null) end
        order by w.waitstart limit 1;
        if found or clock_timestamp() > v_deadline or v_acted < clock_timestamp() - 2 * v_look then
            select a.state, a.state_change into v_state from pg_stat_activity as a where a.pid = v_pid;
            if v_told is null and v_found.pid is not null then
                select jsonb_build_object(
                    'reason', 'lock budget', 'pid', v_found.pid, 'role', a.usename, 'application', a.application_name,
                    'query', a.query, 'hidden', a.state is null, 'seconds', extract(epoch from v_found.waited),
                    'locktype', v_found.locktype, 'mode', v_found.mode, 'held', (
                        select string_agg(distinct l.mode, ', ') from pg_locks as l
                        where l.pid = v_pid and l.granted and l.relation = v_found.relation),
                    'table', coalesce(
                        v_found.relation::regclass::text,
                        (
                            select string_agg(distinct l.relation::regclass::text, ', ') from pg_locks as l
                            where l.pid = v_found.pid and l.locktype = 'tuple'
                        ),
                        (
                            -- Of a key that is not committed nothing says whose it is: of a table to which both write.
                            select string_agg(distinct t.relation::regclass::text, ' or ')
                            from pg_locks as t
                            join pg_locks as l on l.relation = t.relation and l.locktype = 'relation'
                            join pg_class as c on c.oid = t.relation and c.relkind in ('r', 'p')
                            where t.pid = v_found.pid and t.locktype = 'relation' and t.mode = 'RowExclusiveLock'
                                and l.pid = v_pid and l.mode not in ('AccessShareLock', 'RowShareLock')
                        )))
                into v_told
                from (select v_found.pid as pid) as p left join pg_stat_activity as a on a.pid = p.pid;
            elsif v_told is null then
                v_told := jsonb_build_object('reason', 'max_time');
            end if;
            if v_state.state like 'idle in transaction%' or v_acted is not null then
                -- A cancel does not reach a client that says nothing; one that is between two statements is let be.
                if v_acted is not null or v_state.state_change < clock_timestamp() - v_look then
                    v_told := v_told || '{{"terminated": true}}';
                    perform pg_terminate_backend(v_pid);
                    v_acted := clock_timestamp();
                end if;
            else
                perform pg_cancel_backend(v_pid);
                v_acted := clock_timestamp();
            end if;
        end if;
        perform pg_sleep(extract(epoch from v_look));
    end loop;
    if v_acted is not null then
        raise exception using message = v_told::text;
    end if;
end;
$watch$
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a run was ended, as the watching session saw it."""

    told: dict[str, Any]
    settings: Settings
    verb: str
    """The session that was ended, by its application_name."""

    def error(self) -> RunnerError:
        """The error in which the verb ends."""
        kept = "Nothing of the open transaction was kept"
        if self.told["reason"] == "max_time":
            return MaxTimeError(f"max_time of {_seconds(self.settings.max_time)} is over: the run was ended. {kept}")
        told = {key: _CONTROL.sub(" ", item) if isinstance(item, str) else item for key, item in self.told.items()}
        who = f"process {told['pid']} ({told['application'] or 'an unnamed application'}, role {told['role']})"
        table = told["table"] or "a table"
        if told["locktype"] == "relation":
            what = f"for {told['mode']} on {table}" + (f", where the run holds {told['held']}" if told["held"] else "")
        elif told["locktype"] in ("transactionid", "tuple", "spectoken"):
            what = f"for a row or a key of {table} that the run has written and not committed"
        else:
            what = f"for a lock of kind {told['locktype']} ({told['mode']})"
        query = " ".join((told["query"] or "").split())[:200]
        if told["hidden"]:
            query = "hidden from this role (grant pg_read_all_stats shows it)"
        ended = "terminated (its client left it open)" if told.get("terminated") else "cancelled"
        return LockBudgetError(
            f"{who} waited {told['seconds']:.1f} s {what}; its query: {query or 'unknown'}. So the run was {ended}: "
            f"the lock budget is {_seconds(self.settings.lock_budget)}. {kept}, and it was not tried again. Way out: "
            f"{self._way_out(told)}"
        )

    def _way_out(self, told: dict[str, Any]) -> str:
        ways = []
        if told["locktype"] == "relation":
            ways.append("`runner migrate` first, where migrations are pending: it takes such locks for moments")
        elif self.verb == "runner apply":
            ways.append("`apply --as-of '1 hour ago'` leaves to the application what it is still writing")
        ways.append("run it while nobody writes to these rows, or in smaller parts")
        return "; ".join(ways) + "; or let them wait longer: --lock-budget 10s, or 0 for no limit"


class Watcher:
    """The watching session of one connection. It is opened once a transaction has lasted longer than a look or two."""

    def __init__(self, settings: Settings, application_name: str) -> None:
        self.settings, self.verb, self.application_name = settings, application_name, f"{application_name} (watch)"
        self.problem = ""
        self._state = threading.Condition()
        self._pid: int | None = None
        self._generation = self._watched = 0
        self._hurry = False
        self._closed = self._busy = False
        self._verdict: Verdict | None = None
        self._conn: psycopg.Connection[Any] | None = None
        self._thread: threading.Thread | None = None

    def arm(self, pid: int, *, at_once: bool) -> None:
        """A transaction has begun, in the session with this process id.

        `at_once`: returns when it is watched. Else that begins with its third look: most are over before.
        """
        if not (self.settings.lock_budget or self.settings.max_time):
            return
        with self._state:
            self._pid, self._verdict, self._hurry = pid, None, at_once
            self._generation += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lock budget", daemon=True)
                self._thread.start()
            self._state.notify_all()
            if at_once:
                generation = self._generation
                self._state.wait_for(lambda: self._watched >= generation, _PATIENCE)

    def disarm(self) -> None:
        """The transaction has ended: the watching session sees that by itself."""
        with self._state:
            self._pid = None
            self._generation += 1
            self._state.notify_all()

    def verdict(self, exc: BaseException) -> Verdict | None:
        """Whether it was the watching session that ended the transaction which this error has left."""
        seen: BaseException | None = exc
        while seen is not None and not _ended_from_outside(seen):
            seen = seen.__cause__ or seen.__context__
        if seen is None:
            return None
        with self._state:
            self._state.wait_for(lambda: not self._busy, _PATIENCE)
            return self._verdict

    def close(self) -> None:
        """End the watching session."""
        with self._state:
            self._closed = True
            self._state.notify_all()
            conn = self._conn if self._busy else None
        if conn is not None:
            with suppress(psycopg.Error):
                conn.cancel_safe(timeout=1)
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._closed or self._pid is not None)
                generation, pid = self._generation, self._pid
                over = self._changed(generation, 0 if self._hurry else 2 * LOOK)
                if self._closed:
                    break
                if over or pid is None:
                    continue
                self._busy = True
            verdict = None
            try:
                verdict = self._watch(pid, generation)
                self.problem = ""
            except psycopg.Error as exc:
                self.problem = " ".join(str(exc).split())
            finally:
                with self._state:
                    self._busy = False
                    if self._generation == generation:
                        self._verdict = verdict
                    self._now_watched(generation)
            with self._state:  # where it could not watch, it tries again with the next transaction
                self._changed(generation, None)
        if self._conn is not None:
            self._conn.close()

    def _changed(self, generation: int, seconds: float | None) -> bool:
        """Wait until that transaction has ended, another one has begun, or it is to close."""
        return self._state.wait_for(lambda: self._closed or self._generation != generation, seconds)

    def _now_watched(self, generation: int) -> None:
        self._watched = max(self._watched, generation)
        self._state.notify_all()

    def _watch(self, pid: int, generation: int) -> Verdict | None:
        """Watch until the transaction of that session has ended; why it was ended, where it was."""
        if self._conn is None or self._conn.closed:
            self._conn = psycopg.connect(self.settings.conninfo, prepare_threshold=None, connect_timeout=10)
            self._conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        budget = self.settings.lock_budget / 1000
        patience = max(budget - 2 * LOOK, budget / 2) if budget else 1e9
        left = max(self.settings.time_left, 0.0)
        try:
            self._conn.execute(_BEGIN, [self.application_name])
            with self._state:
                self._now_watched(generation)
            self._conn.execute(
                sql.SQL(_WATCH).format(
                    pid=sql.Literal(pid),
                    look=sql.Literal(f"{min(LOOK, budget / 5) if budget else LOOK} s"),
                    patience=sql.Literal(f"{patience:.3f} s"),
                    left=sql.Literal(f"{min(left, 1e9):.3f} s"),
                )
            )
        except psycopg.errors.RaiseException as exc:
            return Verdict(json.loads(exc.diag.message_primary or "{}"), self.settings, self.verb)
        finally:
            with suppress(psycopg.Error):
                self._conn.rollback()
        return None


def _ended_from_outside(exc: BaseException) -> bool:
    if not isinstance(exc, psycopg.Error):
        return False
    if exc.sqlstate in ("57014", "57P01", "25P04"):
        return True
    return exc.sqlstate is None and isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError)


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s"
