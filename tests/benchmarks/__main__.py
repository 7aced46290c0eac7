"""`python -m tests.benchmarks [NAME…] [--scale F] [--write FILE]`: run benchmarks and print their table."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from pathlib import Path

from tests.benchmarks.harness import Result, bench_server

HERE = Path(__file__).parent


def main() -> int:
    """Run every bench_*.py (or those named) and return 1 where a limit is not kept."""
    names = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(names)}")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the documented number of rows")
    parser.add_argument("--rounds", type=int, default=5, help="measured pairs, after one to warm up")
    parser.add_argument("--write", type=Path, help="write the table as Markdown")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(names)}")
    version = int(os.environ.get("PG", "18"))
    lines = ["| what | ratio or figure | limit | | measured |", "|---|---:|---:|---|---|"]
    kept = True
    print(lines[0], lines[1], sep="\n", flush=True)
    for name in options.names or names:
        module = importlib.import_module(f"tests.benchmarks.bench_{name}")
        with bench_server(version) as server:
            for result in module.run(server, scale=options.scale, rounds=options.rounds):
                lines.append(_line(result))
                print(lines[-1], flush=True)
                kept = kept and result.kept
    if options.write:
        head = (
            f"PostgreSQL {version}, Python {platform.python_version()}, {os.cpu_count()} cores, scale {options.scale:g}"
        )
        options.write.write_text(f"{head}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return 0 if kept else 1


def _line(result: Result) -> str:
    limit = "" if result.limit is None else f"{result.limit:g}"
    return f"| {result.name} | {result.figure:.2f} | {limit} | {'ok' if result.kept else 'OVER'} | {result.shown} |"


if __name__ == "__main__":
    sys.exit(main())
