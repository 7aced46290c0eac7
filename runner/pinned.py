"""Connections on which our own statements mean the same for every role and database.

`alter role … set search_path`, a schema of somebody else's in front of pg_catalog, a German DateStyle or an encoding of
the environment must not decide what the runner's SQL calls or how its answers are read. What the user wrote finds names
as the role does: own_names().
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow

PINNED_NAMES: Final = b"set local search_path to pg_catalog, pg_temp"
OWN_NAMES: Final = b"set local search_path to default"
"""For what the server does on its own, as it would for the application: deferred triggers."""
# While the path is pinned. pg_catalog, where it is not listed, is in front of all that is.
ROLE_NAMES: Final = b"""
    select set_config(
        'search_path',
        ltrim(regexp_replace(reset_val, '(^|,)\\s*("pg_catalog"|pg_catalog)\\s*(?=,|$)', '', 'gi'), ', '),
        true
    )
    from pg_catalog.pg_settings where name = 'search_path'
"""
"""For texts that name things as the role finds them, migrations and gates: after the server's own names."""
# They come with BEGIN, in one message: not one statement of the transaction runs without. SET takes no snapshot.
_PINS: Final = b"; ".join((
    b"",
    PINNED_NAMES,
    b"set local datestyle to iso",  # the order of day and month stays the role's
    b"set local intervalstyle to postgres",
    b"set local quote_all_identifiers to off",
    b"set local transform_null_equals to off",
    b"set local standard_conforming_strings to on",
))  # fmt: skip

ENCODING: Final = "UTF8"
"""Of what is sent and read, as files and SQL texts are. The server converts it, or keeps it as it is (SQL_ASCII)."""


class PinnedConnection(psycopg.Connection[TupleRow]):
    """A connection whose transactions begin so."""

    def _get_tx_start_command(self) -> bytes:
        begin: bytes = super()._get_tx_start_command()
        return begin + _PINS

    def _exec_command(self, command: Any, result_format: pq.Format = pq.Format.TEXT) -> PQGen[PGresult | None]:
        if not (isinstance(command, bytes) and command.endswith(_PINS)):
            return (yield from super()._exec_command(command, result_format))
        self._check_connection_ok()
        self.pgconn.send_query(command)
        results: list[PGresult] = yield from generators.execute(self.pgconn)
        for result in results:
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result, encoding=self.pgconn._encoding)
        return results[-1]


@contextmanager
def role_names(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """As own_names(), for texts of the user's, whose names come after the server's own; the path is then as before."""
    row = conn.execute("show search_path").fetchone()
    conn.execute(ROLE_NAMES)
    yield
    conn.execute("select pg_catalog.set_config('search_path', %s, true)", row)


@contextmanager
def own_names(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Within the block names without a schema are found as the role finds them: migrations, gates, deferred triggers.

    Left by an error it is for whoever rolls back to a savepoint, which brings the pinned path back.
    """
    conn.execute(OWN_NAMES)
    yield
    conn.execute(PINNED_NAMES)


def place(conn: psycopg.Connection[Any]) -> str:
    """Where a connection is, as the server and libpq have it: `user=alice dbname=billing host=db.example port=5432`."""
    info = conn.info
    return f"user={info.user} dbname={info.dbname} host={info.host} port={info.port}"


def place_in_words(conn: psycopg.Connection[Any]) -> str:
    """The same for a question: `billing on db.example:5432 as alice`."""
    info = conn.info
    return f"{info.dbname} on {info.host}:{info.port} as {info.user}"
