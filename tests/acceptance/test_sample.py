"""Which rows a report shows of many: of the backfill's own table the first, the last, and those that move the most."""

from __future__ import annotations

from tests.story import adopt, last_run, run, sql


def test_the_sample_is_of_the_backfills_own_table_first_last_and_largest(database_url: str) -> None:
    url = adopt(database_url)
    shown = run(url, "apply", "charges", "--dry-run", "--json").json["attempt"]["backfills"][0]["sample"]
    run(url, "apply", "charges", "--yes")
    every = sql(
        url,
        """select key, amount_cents
            from (select *, concat_ws(' / ', tenant_user_id, unit_id, billing_period) as key from property.charges) as c
            where created_by is null order by key collate "C" """,
    )
    keys = [change["business_key"] for change in shown]
    assert keys == sorted(keys)
    assert len(keys) == len(set(keys)) == 20
    assert {key for key, _ in [*every[:10], *every[-5:]]} <= set(keys)
    largest = sorted(every, key=lambda row: (-row[1], row[0]))[:5]
    assert {key for key, _ in largest} <= set(keys)
    logged = run(url, "log", last_run(url), "--json").json["changes"]
    assert [change["business_key"] for change in logged] == keys
