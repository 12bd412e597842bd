"""Prints at the end which frameworks took which kinds of traced tools."""

from __future__ import annotations

import importlib.metadata
from collections import defaultdict
from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a table: a framework with its version, and what became of each kind of tool."""
    table: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.getreports(outcome):
            told = dict(getattr(report, "user_properties", ()))  # that of a file that was left out has none
            if "framework" in told and (outcome != "passed" or report.when == "call"):
                table[told["framework"], told["package"]][told["kind"]] = outcome
    if not table:
        return
    terminalreporter.section("traced tools in frameworks")
    terminalreporter.write_line(f"{'framework':38} {'plain':10} coroutine")
    for (framework, package), kinds in sorted(table.items()):
        name = f"{framework} ({package} {_version(package)})"
        plain, coroutine = (kinds.get(kind, "-") for kind in ("plain", "coroutine"))
        terminalreporter.write_line(f"{name:38} {plain:10} {coroutine}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest, record_property: Any) -> None:
    """Keep for the table what a test is about."""
    parameters = request.node.callspec.params
    for name in ("framework", "kind"):
        record_property(name, str(parameters[name]))
    record_property("package", parameters["framework"].package)
