"""`python -m runner`: the command line, where no console script is installed."""

from __future__ import annotations

from runner.cli import main

main()
