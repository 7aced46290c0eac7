"""The SQL of the backfills' pages runs as written, and each query finds something."""

from __future__ import annotations

import re

import psycopg
import pytest

from runner.load_electricity import load_electricity
from runner.load_rent_history import load_rent_history
from runner.settings import ROOT, Settings
from tests.integration.engine import Connection
from tests.rent.flat import BILLS, HISTORY, backfill, furnish


@pytest.mark.parametrize(("page", "recipes"), [("rent_history", 3), ("electricity_bills", 1)])
def test_every_recipe_runs(settings: Settings, conn: Connection, page: str, recipes: int) -> None:
    furnish(conn)
    load_rent_history(settings, HISTORY)
    load_electricity(settings, BILLS)
    for name in ("rent_history", "electricity_bills"):
        backfill(settings, name)
    text = (ROOT / "docs" / "backfills" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == recipes
    with psycopg.connect(settings.conninfo, autocommit=True) as editor:
        for statement in filter(str.strip, ";".join(blocks).split(";")):
            cursor = editor.execute(statement.encode())
            if cursor.description:
                assert cursor.fetchall(), statement
        assert editor.execute("select count(*) from backfill.backfill_log where status = 'running'").fetchone() == (0,)
