"""Steps of what is being done, as whoever shows them gets them."""

from __future__ import annotations


class Step(str):
    """A step with what a program wants to know of it; what is not known yet may be set until the next one begins.

    Text in brackets at its end, `gates (3 of 9)`, is how far it is: the same step goes on.
    """

    rows: int | None = None
    run_id: str | None = None

    @property
    def name(self) -> str:
        """The step without how far it is."""
        return self.partition(" (")[0]
