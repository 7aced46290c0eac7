"""What a build server reads: JUnit's XML, and GitHub's annotations and step summary."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from runner.terminal.output import source_row
from runner.terminal.page import found_words, must_not_be, sentence
from runner.terminal.progress import ci_listens, command_to_ci
from runner.terminal.report import headline, row_words
from runner.text import clean, counted

if TYPE_CHECKING:
    from runner.gates import GateResult
    from runner.result import LeftOut, Report


@dataclass(frozen=True, slots=True)
class Case:
    """One test case. `failure` says in a line what is wrong, `rows` what it is about; a warning fails nothing."""

    name: str
    failure: str = ""
    rows: tuple[str, ...] = ()
    seconds: float = 0
    warns: bool = False


def rejected(backfill: str, rejects: int, left_out: Sequence[LeftOut]) -> list[Case]:
    """An apply that source rows stopped."""
    rows = tuple(f"{source_row(row)}: {row.reason}" for row in left_out)
    return [Case(f"source rows of {backfill}", f"{counted(rejects, 'source row')} cannot be taken", rows)]


def cases_of(report: Report) -> list[Case]:
    """An apply as cases: its verdict, each backfill, each gate."""
    words, _ = headline(report)
    wrong = report.exit_code not in (0, 3) or report.verdict == "not approved"
    cases = [Case("the verdict", words if wrong else "", (*report.differences, *report.unsteady))]
    for backfill in report.attempt.backfills:
        left = tuple(f"{source_row(row)}: {row.reason}" for row in backfill.left_out)
        cases.append(Case(f"backfill {backfill.name}", "", left, backfill.seconds))
        if backfill.approvals is not None:
            missing = "" if backfill.approvals.enough else backfill.approvals.sentence
            cases.append(Case(f"approvals of {backfill.name}", missing, warns=report.verdict == "rehearsed"))
    cases += [_gate(gate) for gate in report.attempt.gates]
    return cases


def _gate(gate: GateResult) -> Case:
    if gate.status == "pass":
        return Case(gate.name, seconds=gate.seconds)
    rows = tuple(map(row_words, gate.rows))
    message = (
        " ".join(gate.message.split()) if gate.status == "error" else f"{must_not_be(gate)} Found: {found_words(gate)}"
    )
    return Case(gate.name, message, rows, gate.seconds, not gate.stops)


def junit(suite: str, cases: Sequence[Case]) -> bytes:
    """The cases as JUnit XML, in which a warning is what was printed."""
    failures = sum(bool(case.failure) and not case.warns for case in cases)
    root = ElementTree.Element("testsuite", name=suite, tests=str(len(cases)), failures=str(failures), errors="0")
    for case in cases:
        node = ElementTree.SubElement(
            root, "testcase", classname=suite, name=clean(case.name), time=f"{case.seconds:.3f}"
        )
        text = "\n".join(map(clean, case.rows))
        if case.failure and not case.warns:
            ElementTree.SubElement(node, "failure", message=clean(case.failure)).text = text
        elif case.failure or case.rows:
            ElementTree.SubElement(node, "system-out").text = "\n".join(filter(None, (clean(case.failure), text)))
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def workflow_commands(cases: Sequence[Case]) -> list[str]:
    """Workflow commands, one a case that fails or warns; nothing of the data ends one or begins another."""
    return [
        command_to_ci("\n".join((case.failure, *case.rows[:10])), case.name, "warning" if case.warns else "error")
        for case in cases if case.failure
    ]  # fmt: skip


def summarize(markdown: str) -> list[str]:
    """Add to the step's summary, where there is a file for it. What it is about is done by then: that the file cannot
    be written is a line to print, and no error."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return []
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(markdown)
    except OSError as exc:
        return [f"the step's summary {clean(path)} was not written: {exc.strerror}"]
    return []


def summary(title: str, said: str, cases: Sequence[Case]) -> str:
    """Markdown of a few lines: a sentence, and what failed; data stands in it as its own letters."""
    lines = [f"### {_markdown(title)}", "", _markdown(said), ""]
    failed = [case for case in cases if case.failure]
    if failed:
        lines += ["| | what | found |", "|---|---|---|"]
        lines += [
            f"| {'⚠' if case.warns else '✗'} | {_markdown(case.name)} | {_markdown(case.failure)} |" for case in failed
        ]
    else:
        lines.append(f"{counted(len(cases), 'check')}, all of them good.")
    return "\n".join(lines) + "\n\n"


def _markdown(text: str) -> str:
    text = clean(" ".join(text.split()))
    return "".join(f"&#{ord(letter)};" if letter in "<>&|`*_[]\\#!~@" else letter for letter in text)


def tell(title: str, said: str, cases: Sequence[Case]) -> list[str]:
    """On GitHub: the step's summary is written; returns the lines to print."""
    if not ci_listens():
        return []
    return [*summarize(summary(title, said, cases)), *workflow_commands(cases)]


def tell_report(report: Report) -> list[str]:
    """An apply, told to GitHub where it listens."""
    return tell("runner apply", f"{headline(report)[0]} {sentence(report)}", cases_of(report))
