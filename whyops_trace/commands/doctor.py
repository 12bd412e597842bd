"""``whyops-trace doctor``: checks the installation and its surroundings, with a remedy for each problem."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.table import Table
from rich.text import Text

from whyops_trace._reading.excerpt import clean, counted
from whyops_trace.commands.common import console, home_option

if TYPE_CHECKING:
    from whyops_trace.commands.diagnosis import Finding, State

_STYLES: Final[dict[State, str]] = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command("doctor", epilog="Example: whyops-trace doctor")
@click.option(
    "--init", is_flag=True, help="Also register an agent, whyops-trace-doctor, with the server of the key."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@home_option
def doctor(init: bool, as_json: bool, home: Path) -> None:
    """
    Check the installation, the settings, the home, and the server if there is a key.

    It changes nothing here or on the server, except with --init. Exits with 1 if there is a problem. Warnings do not
    count as problems.
    """
    findings = list(_examine(home, init))
    problems = sum(finding.state == "problem" for finding in findings)
    if as_json:
        checks = [finding._asdict() for finding in findings]
        click.echo(json.dumps({"ok": not problems, "checks": checks}, indent=1))
    else:
        out = console()
        out.print(_table(findings))
        warnings = sum(finding.state == "warning" for finding in findings)
        out.print(f"\n{_verdict(problems, warnings)}")
    if problems:
        raise SystemExit(1)


def _examine(home: Path, init: bool) -> Iterator[Finding]:
    # These modules take longer to load than most commands to run.
    from whyops_trace.commands import diagnosis, framework_diagnosis, otlp_diagnosis, server_diagnosis

    yield from diagnosis.installation()
    yield from framework_diagnosis.frameworks()
    settings, finding = diagnosis.settings_of(home)
    yield finding
    if settings is not None:
        yield from diagnosis.switches(settings)
        yield server_diagnosis.key(settings)
        yield from server_diagnosis.server(settings, init=init)
        yield from otlp_diagnosis.receiver(settings)
        if init and not settings.server:
            message = "No agent can be registered: there is no key, or nothing leaves this machine."
            yield diagnosis.Finding("agent", "warning", message, "Set WHYOPS_API_KEY, or leave out --init.")
    yield from diagnosis.clock()
    yield from diagnosis.home(home)
    yield from diagnosis.store(home, settings)
    yield from framework_diagnosis.attached(home)
    yield from otlp_diagnosis.forwards(home)
    yield from diagnosis.journal(home, settings)
    yield from diagnosis.waiting(home)
    yield diagnosis.viewer(home)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for finding in findings:
        text = Text(clean(finding.message))
        if finding.advice:
            text.append(f"\n{clean(finding.advice)}", "dim" if finding.state == "ok" else "")
        table.add_row(Text(finding.state, _STYLES[finding.state]), finding.check, text)
    return table


def _verdict(problems: int, warnings: int) -> str:
    if not problems and not warnings:
        return "Everything is fine."
    counts = [(problems, "problem"), (warnings, "warning")]
    return ", ".join(counted(count, noun) for count, noun in counts if count) + "."
