"""Kronor as files write them, in öre. Decimal from the first digit to the last: no float."""

from __future__ import annotations

from decimal import Decimal

LARGEST = 1_000_000_000
"""Kronor. No amount of a flat is larger; a file that holds one is damaged."""


def ore(kronor: Decimal) -> int:
    """Öre. Raises ValueError with the reason for more than two decimals, NaN, infinity, or more than LARGEST."""
    # By the digits, not by arithmetic: a number of a million digits costs nothing.
    if not kronor.is_finite():
        raise ValueError("is not a number")
    if (kronor and kronor.adjusted() > 12) or abs(kronor) > LARGEST:
        raise ValueError(f"is larger than {LARGEST:,}")
    parts = kronor.normalize().as_tuple()
    assert isinstance(parts.exponent, int)  # noqa: S101 - finite, see above
    if parts.exponent < -2:
        raise ValueError("has more than two decimals")
    return int(kronor.scaleb(2))
