"""Where the checkout is, and what all of its systems bring."""

from __future__ import annotations

from pathlib import Path

from runner.systems import SYSTEMS, Sources

ROOT = Path(__file__).resolve().parent.parent
MIGRATIONS = ROOT / "migrations"

EVERYTHING = Sources.of(SYSTEMS)
"""The migrations of the engine and of all systems."""

CONFIG = ROOT / "tests" / "runner.toml"
"""Chooses all systems; the tests' commands read it unless they name another."""
