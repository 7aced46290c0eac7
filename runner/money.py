"""Money by currency, as the database sums it, and as people read it: no float, no currency added to another.

Amounts are in the minor unit of their currency: {"EUR": 123450} is 1,234.50 EUR. What is not named is nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Final, TypeAlias

Amount: TypeAlias = int | Decimal
"""Minor units. A Decimal where somebody kept more decimals than the currency has."""

Money: TypeAlias = dict[str, Amount]
"""Amounts by currency, as backfill.add_money() has them. What is void is apart: `EUR void`."""

NO_CURRENCY: Final = "amounts"
"""The key of amounts whose currency is not known, as backfill.currency_code() names it. Two decimals."""

# ISO 4217, as backfill.minor_digits(): a test compares the two.
_DIGITS: Final = {
    **dict.fromkeys(
        [
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "UYI",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ],
        0,
    ),
    **dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}

load_json: Final = partial(json.loads, parse_float=Decimal)
"""JSON of the database: a number with decimals is no float."""


def minor_digits(currency: str) -> int:
    """Decimals of a currency's minor unit: JPY 0, KWD 3; of an asset USD/4 those it names; elsewhere 2."""
    code = currency.partition(" ")[0]
    if code[-2:-1] == "/" and code[-1] in "0123456789":
        return int(code[-1])
    return _DIGITS.get(code, 2)


def label(currency: str) -> str:
    """What stands beside an amount: its currency, and whether it is void; nothing where neither is known."""
    return currency.removeprefix(NO_CURRENCY).strip() if currency in (NO_CURRENCY, f"{NO_CURRENCY} void") else currency


def amount(minor: Amount | None, currency: str = NO_CURRENCY) -> str:
    """Minor units as people read them, without the currency: 1593538300 is 15,935,383.00; nothing for None."""
    if minor is None:
        return ""
    return _grouped(minor, minor_digits(currency))


def _grouped(minor: Amount, digits: int) -> str:
    sign, numbers, exponent = Decimal(minor).as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - the database sums no NaN
    text = "".join(map(str, numbers)) + "0" * max(exponent, 0)
    places = digits - min(exponent, 0)
    text = text.rjust(places + 1, "0")
    whole, rest = (text[:-places], text[-places:]) if places else (text, "")
    rest = rest[:digits] + rest[digits:].rstrip("0")
    return f"{'-' if sign and minor else ''}{int(whole):,}{'.' if rest else ''}{rest}"


def money_lines(money: Money | None) -> list[str]:
    """A line a currency, with its name; `0.00` where it is nothing at all."""
    if money is None:
        return []
    names = sorted(money) or [NO_CURRENCY]
    return [f"{amount(money.get(name, 0), name)} {label(name)}".rstrip() for name in names]


def money_text(money: Money | None) -> str:
    """All of it on one line: `1,234.50 EUR, 900 JPY`; nothing where it is no money."""
    return ", ".join(money_lines(money))


def add_money(*amounts: Mapping[str, Amount] | None) -> Money | None:
    """Their sum, each currency by itself; None where none of them is money."""
    there = [money for money in amounts if money is not None]
    if not there:
        return None
    currencies = sorted({name for money in there for name in money})
    total = {name: sum((money.get(name, 0) for money in there), start=0) for name in currencies}
    return {name: value for name, value in total.items() if value}


def same_money(one: Money | None, other: Money | None) -> bool:
    """Whether it is as much in every currency."""
    return add_money(one, negative(other)) in (None, {})


def negative(money: Money | None) -> Money | None:
    """The same, taken away."""
    return None if money is None else {name: -value for name, value in money.items()}


def of_row(minor: Amount | None, currency: str | None) -> Money | None:
    """One amount as money; None where it is none. A Decimal without decimals is a whole number."""
    if minor is None:
        return None
    return {currency or NO_CURRENCY: int(minor) if minor == int(minor) else minor}
