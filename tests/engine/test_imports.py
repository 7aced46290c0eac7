"""Who may import whom: the engine no system, a system no other one, nothing below the terminal the terminal; no circle.

Imports within functions count, and those for types alone: an arrow is an arrow.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from runner.systems import SYSTEMS
from tests.place import ROOT

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "runner").rglob("*.py"))
}


def named(module: str) -> Iterator[str]:
    """What a module names in its imports, from the top: `from runner import gates` is runner.gates."""
    for node in ast.walk(ast.parse(FILES[module].read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written from the top"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in FILES else str(node.module)


IMPORTS = {module: set(named(module)) for module in FILES}
ARROWS = [(module, other) for module, others in IMPORTS.items() for other in sorted(others) if other in FILES]
COMMAND_LINE = {"runner.cli", "runner.__main__"}


def system_of(module: str) -> str | None:
    """The system whose part of the runner it is; None for the engine, the terminal and the command line."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in SYSTEMS else None


def draws(module: str) -> bool:
    """Whether it belongs to the terminal: the verbs, and what each system brings for its own."""
    return module.startswith("runner.terminal") or (
        system_of(module) is not None and module.endswith((".terminal", ".pages"))
    )


def test_what_is_looked_at_is_there() -> None:
    assert set(SYSTEMS) <= {system_of(module) for module in FILES}
    assert len(ARROWS) > 100
    assert ("runner.cli", "runner.terminal.apply") in ARROWS


def test_the_engine_and_the_terminal_know_no_system() -> None:
    assert [a for a in ARROWS if system_of(a[1]) and not system_of(a[0]) and a[0] != "runner.cli"] == []


def test_no_system_knows_another() -> None:
    assert [a for a in ARROWS if system_of(a[0]) and system_of(a[1]) not in (None, system_of(a[0]))] == []


def test_nothing_below_the_terminal_knows_the_terminal_or_rich() -> None:
    below = [module for module in FILES if not draws(module) and module not in COMMAND_LINE]
    assert [a for a in ARROWS if a[0] in below and (draws(a[1]) or a[1] in COMMAND_LINE)] == []
    assert [module for module in below if any(name.split(".")[0] == "rich" for name in IMPORTS[module])] == []


def test_a_systems_verbs_are_mounted_by_the_command_line_alone() -> None:
    verbs = {f"runner.{system}.terminal" for system in SYSTEMS} & FILES.keys()
    assert {a for a in ARROWS if a[1] in verbs} == {("runner.cli", module) for module in verbs}


def test_there_is_no_circle() -> None:
    try:
        TopologicalSorter({module: [b for a, b in ARROWS if a == module] for module in FILES}).prepare()
    except CycleError as exc:
        raise AssertionError(" → ".join(reversed(exc.args[1]))) from exc
