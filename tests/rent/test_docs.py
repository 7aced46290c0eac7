"""The SQL of the page runs as written, and each query finds something."""

from __future__ import annotations

import re

import psycopg

from runner.rent.load import load_electricity, load_rent_history
from runner.settings import Settings
from tests.engine.words import Connection
from tests.place import ROOT
from tests.rent.flat import BILLS, HISTORY, backfill, furnish


def test_every_recipe_runs(settings: Settings, conn: Connection) -> None:
    furnish(conn)
    load_rent_history(settings, HISTORY)
    load_electricity(settings, BILLS)
    for name in ("rent_history", "electricity_bills"):
        backfill(settings, name)
    text = (ROOT / "docs" / "rent.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    with psycopg.connect(settings.conninfo, autocommit=True) as editor:
        for statement in filter(str.strip, ";".join(blocks).split(";")):
            cursor = editor.execute(statement.encode())
            if cursor.description:
                assert cursor.fetchall(), statement
        assert editor.execute("select count(*) from backfill.backfill_log where status = 'running'").fetchone() == (0,)
