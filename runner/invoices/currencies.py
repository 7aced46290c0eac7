"""Which currency an amount of a catalogue is in: its sign or code, a column beside it, or the company's."""

from __future__ import annotations

import re

_DOLLARS = frozenset({"USD", "CAD", "AUD", "NZD", "HKD", "SGD", "MXN", "TWD"})
_CROWNS = frozenset({"SEK", "NOK", "DKK", "ISK"})
_SIGNS = {
    "US$": frozenset({"USD"}), "C$": frozenset({"CAD"}), "CA$": frozenset({"CAD"}), "A$": frozenset({"AUD"}),
    "AU$": frozenset({"AUD"}), "NZ$": frozenset({"NZD"}), "HK$": frozenset({"HKD"}), "S$": frozenset({"SGD"}),
    "R$": frozenset({"BRL"}), "$": _DOLLARS, "\N{EURO SIGN}": frozenset({"EUR"}), "\N{POUND SIGN}": frozenset({"GBP"}),
    "\N{YEN SIGN}": frozenset({"JPY", "CNY"}), "\N{INDIAN RUPEE SIGN}": frozenset({"INR"}),
    "\N{WON SIGN}": frozenset({"KRW"}), "\N{NEW SHEQEL SIGN}": frozenset({"ILS"}), "\N{DONG SIGN}": frozenset({"VND"}),
    "\N{TURKISH LIRA SIGN}": frozenset({"TRY"}), "\N{RUBLE SIGN}": frozenset({"RUB"}),
    "\N{HRYVNIA SIGN}": frozenset({"UAH"}), "z\N{LATIN SMALL LETTER L WITH STROKE}": frozenset({"PLN"}),
    "K\N{LATIN SMALL LETTER C WITH CARON}": frozenset({"CZK"}), "kr": _CROWNS, "kr.": _CROWNS,
    "Fr.": frozenset({"CHF"}), "SFr.": frozenset({"CHF"}),
}  # fmt: skip
"""Signs, and the currencies that each may mean."""

_SIGN = "|".join(re.escape(sign) for sign in sorted(_SIGNS, key=len, reverse=True)) + "|[A-Z]{3}"
_AROUND = re.compile(rf"^(?P<before>{_SIGN})(?![A-Za-z])\s*|\s*(?<![A-Za-z])(?P<after>{_SIGN})$")


def bare(text: str) -> tuple[str, list[str]]:
    """An amount without its signs and codes, and those."""
    named: list[str] = []

    def take(match: re.Match[str]) -> str:
        named.append(match["before"] or match["after"])
        return ""

    return _AROUND.sub(take, text), named


def of_amount(text: str) -> list[str]:
    """The signs and codes at an amount: `\N{EURO SIGN}1,200.00` has one, `$5 CAD` two, `5` none."""
    return bare(text.replace("\u00a0", " ").replace("\u202f", " ").strip(" ()-+\u2212"))[1]


def resolve(text: str, column: str, default: str | None) -> str:
    """The currency of an amount, from what stands at it and in a column beside it; else `default`, the company's.

    Raises ValueError where they contradict one another, or where a sign may mean several and `default` is none of
    them. Whether a code is a currency, the database says.
    """
    named = of_amount(text)
    may_be: frozenset[str] | None = None
    for sign in [*([column] if column else []), *named]:
        these = _SIGNS.get(sign, frozenset({sign.upper()}))
        may_be = these if may_be is None else may_be & these
    if may_be is None:
        if default is None:
            raise ValueError("none is named, and the company has none (billing.settings.currency)")
        return default
    if not may_be:
        beside = f"{column} in its column, " if column else ""
        raise ValueError(f"{beside}{' and '.join(named)} at its amount {text!r}: they contradict one another")
    if len(may_be) == 1:
        return next(iter(may_be))
    if default in may_be:
        return str(default)
    raise ValueError(f"{(named or [column])[0]!r} may be {', '.join(sorted(may_be))}: say which in a column Currency")
