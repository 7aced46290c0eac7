"""Whatever others wrote, in data, catalogs, files, services or errors, it is no command to whoever reads it.

Every result of every verb is made of texts that try: terminal, page, sheet, JUnit and JSON show them as letters.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
import json
import os
import pkgutil
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from xml.etree import ElementTree

import pytest
import typer

import runner
from runner.errors import RunnerError
from runner.money import Money
from runner.promote import Line, Promotion, Waiver
from runner.reconciliation.pages import reconciliation_junit
from runner.reconciliation.reconcile import ClassTotals, FinanceLedgerFile, Reconciliation
from runner.result import Report
from runner.terminal.output import console
from runner.terminal.page import apply_page
from runner.terminal.progress import Progress
from runner.terminal.promote import sign_off_sheet
from runner.terminal.verb import Answer, reporting_errors
from runner.text import clean, clean_lines, cleaned, to_json
from tests.story import command

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\x00\x08\x7f"
DIRECTION = "\u202eevil\u2066\u2069\u200f\u061c\u200b\u2028\ufeff\U000e0041"
FORGED = "Applied and committed."
HOSTILE = f"a{ESCAPES}{DIRECTION}\r\n{FORGED}\n[bold red]x[/] [/] [/nope] :warning: <b>& | ` \udcff"
RAW = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0041]"
)


# Words of the engine's own, between which a drawing chooses.
COUNTS = {"inserted": 1, "updated": 0, "deleted": 0, "money": {HOSTILE: 1}}
OURS: Mapping[str, Mapping[str, Any]] = {
    "Lock": {"mode": "ShareLock"},
    "Run": {"status": "succeeded", "metrics": {"tables": {HOSTILE: COUNTS}}, "due": {"rows": 1, "money": {HOSTILE: 1}}},
    "Schedule": {"suggestions": [{"exact": True, "same_customer": True, "mortgage": HOSTILE}]},
    "Reconciliation": {"findings": ({"class": "amount differs", "ledger_id": HOSTILE, "db_number": HOSTILE},)},
    "Backfilled": {"errors": [{"item": HOSTILE, "reason": HOSTILE}]},
}


def made(kind: Any) -> Any:
    """A value of a type with a hostile text wherever one may stand."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return made(next(each for each in arguments if each is not NoneType))
    if origin is Literal:
        return arguments[0]
    if origin is tuple:
        return tuple(made(each) for each in arguments if each is not Ellipsis)
    if origin is list or kind is list:
        return [made(arguments[0] if arguments else str)]
    if origin in (dict, Mapping) or kind is dict:
        return {HOSTILE: 7 if kind == Money else HOSTILE}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind, localns=vars(sys.modules[kind.__module__]))
        given = OURS.get(kind.__name__, {})
        return kind(**{item.name: given.get(item.name) or made(hints[item.name]) for item in dataclasses.fields(kind)})
    simple: dict[Any, Any] = {
        str: HOSTILE, Any: HOSTILE, object: HOSTILE, int: 7, float: 0.5, bool: True,
        Decimal: Decimal("0.5"), uuid.UUID: uuid.UUID(int=7),
        datetime: datetime(2026, 1, 1, tzinfo=UTC), date: date(2026, 1, 1), Path: Path(HOSTILE.replace("\0", "")),
    }  # fmt: skip
    return simple[kind]


def drawings() -> Iterator[tuple[str, Callable[..., None], Any]]:
    """Every function that draws a result, with the result's type."""
    for module in pkgutil.walk_packages(runner.__path__, "runner."):
        if ".terminal" not in module.name or module.name.endswith("__main__"):
            continue
        place = importlib.import_module(module.name)
        for name, function in vars(place).items():
            if not (
                name.startswith("draw_") and inspect.isfunction(function) and function.__module__ == place.__name__
            ):
                continue
            (_, first), (second, _), *_ = inspect.signature(function).parameters.items()
            if second == "out":
                yield name, function, first.annotation


def named(words: str, place: str) -> Any:
    """The type behind an annotation of a module that only a type checker imports."""
    source = Path(str(sys.modules[place].__file__)).read_text(encoding="utf-8")
    names: dict[str, Any] = {"list": list, "tuple": tuple, "dict": dict, "str": str}
    for module, imported in re.findall(r"^ +from (runner[\w.]*) import (\([^)]*\)|.*)$", source, re.MULTILINE):
        for name in re.findall(r"\w+", imported):
            names[name] = getattr(importlib.import_module(module), name, None)
    return eval(words.replace("Sequence[", "list["), names)


@pytest.mark.parametrize(
    ("name", "draw", "words"),
    [pytest.param(*drawing, id=f"{drawing[1].__module__}.{drawing[0]}") for drawing in drawings()],
)
def test_no_result_is_a_command_to_the_terminal(name: str, draw: Callable[..., None], words: str) -> None:
    result = made(named(words, draw.__module__))
    stream = io.StringIO()
    if name == "draw_loaded":
        draw = partial(draw, originals=Path(clean(HOSTILE)))
    Answer(result, draw, exit_code=0).draw(console(stream))
    text = stream.getvalue()
    assert RAW.findall(text) == [], name
    assert not any(line.strip().startswith(FORGED) for line in text.splitlines()), text
    # What stands in brackets is data, and stays there.
    if "[bold red]" in str(result) and FORGED in text:
        assert "[/nope]" in " ".join(text.split()) or "nope" not in text


def test_every_verb_draws_its_result_here() -> None:
    assert len(list(drawings())) >= 18


def test_json_keeps_every_letter_and_shows_none_that_acts() -> None:
    text = to_json({"a": HOSTILE})
    assert RAW.findall(text.replace("\n", "")) == []
    assert json.loads(text)["a"] == HOSTILE


def test_the_page_and_junit_hold_no_letter_that_acts() -> None:
    page = apply_page(made(Report)).decode()
    assert RAW.findall(page) == []
    assert "<b>&" not in page
    found = Reconciliation(
        "differences", HOSTILE, True, (), (), FinanceLedgerFile(HOSTILE, "ab", True, 1),
        classes=(ClassTotals(HOSTILE, 1, {HOSTILE: 1}, 1, {}),),
        findings=({"class": cleaned(HOSTILE), "ledger_id": HOSTILE},),
    )  # fmt: skip
    text = reconciliation_junit(found)
    assert RAW.findall(text.decode()) == []
    suite = ElementTree.fromstring(text)
    assert [case.get("name") for case in suite][-2] == clean(HOSTILE)


def test_nobody_forges_the_sign_off_sheet() -> None:
    line = (
        "x |\n| ✓ | snapshot | all is well |\n\n# Promotion to production: ready\n\n<b>signed</b> [a](http://b) **c**"
    )
    sheet = sign_off_sheet(
        Promotion(
            line,
            line,
            line,
            "now",
            False,
            (Line("gates", "red", line, (line,)),),
            (Waiver(line, "2026-01-01", line, line),),
        )
    )
    assert [row for row in sheet.splitlines() if row.startswith("#")] == [
        next(row for row in sheet.splitlines() if row.startswith("# Promotion to x ")),
        "## gates", "## Waivers", "## Signed",
    ]  # fmt: skip
    assert sheet.splitlines()[0].endswith(": not ready")
    assert [row for row in sheet.splitlines() if row.startswith("| ✓")] == []
    for mark in ("<b>", "[a]", "**c**"):
        assert mark not in sheet
    assert len([row for row in sheet.splitlines() if row.startswith("| Finance")]) == 1


def test_an_error_is_shown_as_letters_and_only_its_first_line_begins_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    @reporting_errors
    def failing(*, as_json: bool) -> None:
        raise RunnerError(f"{HOSTILE}\n{FORGED}") from OSError(f"\x1b[31m\n{FORGED}")

    for as_json in (False, True):
        with pytest.raises(typer.Exit):
            failing(as_json=as_json)
        shown = capsys.readouterr()
        assert RAW.findall(shown.err + shown.out) == []
        assert not any(line.startswith(FORGED) for line in shown.err.splitlines())
        if as_json:
            assert json.loads(shown.out)["error"] == f"{HOSTILE}\n{FORGED}"


def test_progress_is_shown_as_letters(capsys: pytest.CaptureFixture[str]) -> None:
    Progress()(HOSTILE)
    shown = capsys.readouterr().err
    assert RAW.findall(shown) == []
    assert len(shown.splitlines()) == 1


def test_a_traceback_is_shown_as_letters() -> None:
    """Whatever is written to stderr passes one place: a bug's traceback, a library's warning, click's own errors."""
    text = "raise ValueError('\\x1b[2J\\u202e\\n')"
    script = f"import runner.cli as c, sys; c.app = lambda: exec({text!r}); c.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "ValueError" in done.stderr
    assert RAW.findall(done.stderr) == []
    assert "\\x1b[2J\\u202e" in done.stderr
    done = subprocess.run(command("log", "--\x1b[31mnone"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert RAW.findall(done.stderr) == []
    words = [*map(os.fsencode, command("waive", "x", "--until", "2026-01-01", "--reason")), b"\xff\x1b"]
    halves = subprocess.run(words, capture_output=True, check=False)
    assert halves.returncode == 2, halves.stderr
    assert b"not text in this terminal's encoding" in halves.stderr
    assert b"\x1b" not in halves.stderr


def test_what_people_write_stays() -> None:
    for name in ("Zoë O'Brien", "شرکت نمونه\u200cها", "नमस्ते\u200d", "日本 ¥1,200 – “x”", "👩\u200d👩\u200d👧 ❤️"):
        assert clean(name) == name
    assert clean_lines("first\n  second\nthird\n") == "first\n  second\n  third\n"
