"""What a shell offers after Tab: backfills and runs, as the database has them; nothing where it cannot be asked."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import typer

_BACKFILLS = "select backfill, description from backfill.catalog order by position"
_RUNS = """
    select left(run_id::text, 8), format('%s %s, %s', backfill, status, to_char(started_at, 'YYYY-MM-DD HH24:MI'))
    from backfill.backfill_log order by started_at desc limit 50
"""


def backfills(incomplete: str) -> list[tuple[str, str]]:
    """Names of backfills, each with what it is for."""
    return _found(_BACKFILLS, incomplete)


def runs(incomplete: str) -> list[tuple[str, str]]:
    """The beginnings of the latest runs' ids, each with what it was."""
    return _found(_RUNS, incomplete)


def _found(query: str, incomplete: str) -> list[tuple[str, str]]:
    import psycopg
    from psycopg.conninfo import make_conninfo

    from runner.errors import RunnerError
    from runner.settings import load_settings
    from runner.text import clean

    with suppress(RunnerError, psycopg.Error):
        settings = load_settings(database_url=None, config=None)
        with psycopg.connect(make_conninfo(settings.conninfo, connect_timeout=2)) as conn:
            rows = conn.execute(query.encode()).fetchall()
        return [(clean(name), clean(help_)) for name, help_ in rows if name.startswith(incomplete)]
    return []


RUN: Final[Any] = typer.Argument(metavar="RUN", autocompletion=runs, help="A run's id, or its beginning.")
BACKFILLS: Final[Any] = typer.Argument(metavar="BACKFILL", autocompletion=backfills, help="Default: all there are.")
