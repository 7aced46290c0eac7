"""Writes the sample catalogue, always the same: `python -m tests.invoices.make_catalogue`.

77 invoices from INV-002 to INV-1005 over 5 facilities, 79,894.06 in all; besides them a second INV-0985 and a row
that is not the company's. Names, numbers and amounts are made up; only the figures are those of a real catalogue.
"""

from __future__ import annotations

import csv
import datetime as dt
import random

from runner.systems import sample

HERE = sample("invoices")
TOTAL = 7_989_406
CLIENTS = ("Hillside Care Home", "Lakeview Clinic", "Northgate Hospital", "Riverside Rehab", "St. Mary's Hospice")
# As people wrote them over the years; aliases.csv says which facility is meant.
WRITTEN = {
    "Hillside Care Home": ("Hillside Care Home", "HILLSIDE"),
    "Lakeview Clinic": ("Lakeview Clinic", "Lakeview  clinic", "Lake View"),
    "Northgate Hospital": ("Northgate Hospital", "Northgate Hosp."),
    "Riverside Rehab": ("Riverside Rehab", "Riverside"),
    "St. Mary's Hospice": ("St. Mary's Hospice", "Saint Mary"),
}


def numbers() -> list[int]:
    """77 numbers: gaps, as years of issuing by hand leave them."""
    pick = random.Random(2).sample([n for n in range(3, 1005) if n not in (418, 985, 992)], 73)
    return sorted([2, 985, 992, 1005, *pick])


def amounts(count: int) -> list[int]:
    """`count` amounts in cents that make TOTAL."""
    draw = random.Random(7)
    shares = [draw.randint(20_000, 180_000) for _ in range(count - 1)]
    factor_top, factor_bottom = TOTAL * 98 // 100, sum(shares) + 100_000
    made = [share * factor_top // factor_bottom for share in shares]
    return [*made, TOTAL - sum(made)]


def money(cents: int, style: int) -> str:
    text = f"{cents // 100:,}.{cents % 100:02}"
    return (text, f"${text}", text.replace(",", ""), f"{text} USD")[style % 4]


def day(date: dt.date, style: int) -> str:
    return (
        date.isoformat(),
        f"{date:%b} {date.day}, {date.year}",
        f"{date.day} {date:%B} {date.year}",
        f"{date.month}/{date.day}/{date.year}",
    )[style % 4]


def rows() -> list[list[str]]:
    """The rows of the catalogue, without its header."""
    made = []
    for place, (number, cents) in enumerate(zip(numbers(), amounts(77), strict=True)):
        facility = CLIENTS[place % 5]
        start = dt.date(2021, 1, 4) + dt.timedelta(weeks=2 * (place // 5))
        end = start + dt.timedelta(days=6)
        sent = end + dt.timedelta(days=1 + place % 3)
        names = WRITTEN[facility]
        made.append([
            f"INV-{number:03}" if number < 100 else f"INV-{number:04}",
            day(sent, place),
            day(sent + dt.timedelta(days=30), place + 1),
            names[place % len(names)],
            day(start, place),
            day(end, place),
            money(cents, place),
            "",
        ])  # fmt: skip
    twice = next(row for row in made if row[0] == "INV-0985")
    made.append([*twice[:6], "$1,250.00", "typed again from the carbon copy"])
    made.append(["INV-0418", "2022-05-16", "2022-06-15", "Northgate Hospital", "2022-05-09", "2022-05-15", "310.00",
                 "not ours - billed by the agency"])  # fmt: skip
    return made


def main() -> None:
    """Write catalogue.csv and aliases.csv."""
    header = ["Invoice #", "Issue Date", "Due Date", "Client", "Period Start", "Period End", "Total", "Remark"]
    with (HERE / "catalogue.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows()])
    with (HERE / "aliases.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["Client", "Facility"])
        for facility, names in WRITTEN.items():
            writer.writerows([name, facility] for name in names if name.casefold() != facility.casefold())


if __name__ == "__main__":
    main()
