"""`make simulate SEEDS=200 FROM=1`: run seeds, and say what came of each kind of fault. Exit 1 where one failed."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from runner import embedded
from tests.simulation.campaign import disturb
from tests.simulation.faults import FAULTS
from tests.simulation.ground import ground


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--from", dest="first", type=int, default=1)
    parser.add_argument("--version", type=int, default=embedded.DEFAULT_VERSION)
    given = parser.parse_args()
    ended, failed, began = Counter[tuple[str, int]](), 0, time.monotonic()
    with ground(given.version) as place:
        for seed in range(given.first, given.first + given.seeds):
            told = disturb(place, seed)
            ended[told.fault, told.code] += 1
            said = "; ".join(told.wrong) or "ok"
            print(
                f"{seed:5d}  {told.verb:18s} {told.fault:32s} at {told.at:4.2f}  exit {told.code:3d}  {said}",
                flush=True,
            )
            if told.wrong:
                failed += 1
                print(f"       again: make simulate SEEDS=1 FROM={seed}\n{told.said}", flush=True)
    print(f"\n{'fault':34s} exit codes and how often")
    for fault in FAULTS:
        codes = {code: count for (name, code), count in sorted(ended.items()) if name == fault.name}
        print(f"{fault.name:34s} {', '.join(f'{code}: {count}' for code, count in codes.items())}")
    print(f"\n{given.seeds} seeds on PostgreSQL {given.version}, {failed} failed, {time.monotonic() - began:,.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
