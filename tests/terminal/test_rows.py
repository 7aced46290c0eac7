"""A row of a gate in words: each amount in the decimals of the currency that stands beside it."""

from __future__ import annotations

import pytest

from runner.terminal.report import row_words


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"cents": 120_000}, "amount 1,200.00"),
        ({"currency": "JPY", "cents": 1_200}, "currency JPY, amount 1,200"),
        ({"cents": 1_234, "currency": "KWD"}, "amount 1.234, currency KWD"),
        ({"currency": None, "total_cents": 5}, "currency null, total 0.05"),
        (
            {"ledger_cents": 1_200, "db_cents": 120_000, "ledger_currency": "JPY", "db_currency": "USD"},
            "ledger 1,200, db 1,200.00, ledger_currency JPY, db_currency USD",
        ),
    ],
)
def test_an_amount_is_shown_in_its_own_decimals(row: dict[str, object], words: str) -> None:
    assert row_words(row) == words


def test_text_from_data_stays_text() -> None:
    assert "\x1b" not in row_words({"facility": "\x1b[31mred"})
