"""`runner doctor`: what would get in the way, a line a check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from runner.terminal.output import styled, table
from runner.terminal.verb import Answer, Call, verb

if TYPE_CHECKING:
    from rich.console import Console

    from runner.findings import Finding

_STATES: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


@verb()
def doctor(call: Call) -> Answer:
    """Server, rights, row security, locks, migrations, dbt, time zone: each line ok or what to do."""
    from runner.doctor import doctor as doctor_

    findings = doctor_(call.settings)
    failed = any(finding.state == "fail" for finding in findings)
    return Answer(findings, draw_findings, named="findings", exit_code=1 if failed else 0)


def draw_findings(findings: Sequence[Finding], out: Console) -> None:
    """A line a check."""
    out.print(table("", "", "", rows=(
        (styled(finding.state, _STATES[finding.state]), finding.subject, finding.message) for finding in findings
    )))  # fmt: skip
