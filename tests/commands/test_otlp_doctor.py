"""What ``whyops-trace doctor`` says of the receiver that spans are exported to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from receiver import Receiver, Refuse

from whyops_trace.cli import main


def checks(home: Path) -> dict[str, dict[str, Any]]:
    """Return what the doctor finds about OTLP."""
    told = json.loads(CliRunner().invoke(main, ["doctor", "--json", "--home", str(home)]).stdout)
    return {each["check"]: each for each in told["checks"] if each["check"].startswith("otlp")}


def test_a_receiver_that_takes_spans_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says whether content is exported, and how it would be."""
    with Receiver() as receiver:
        monkeypatch.setenv("WHYOPS_OTLP", receiver.url)
        found = checks(tmp_path)

    assert found["otlp"]["state"] == "ok" and receiver.arrived == []
    assert "WHYOPS_OTLP_CONTENT=on" in found["otlp content"]["advice"]


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "OTEL_EXPORTER_OTLP_HEADERS"),
        (403, "OTEL_EXPORTER_OTLP_HEADERS"),
        (404, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (415, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        (307, "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ],
)
def test_an_answer_of_something_else_says_what_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, advice: str
) -> None:
    """The variable that is probably wrong."""
    with Receiver() as receiver:
        receiver.fail(Refuse(status))
        monkeypatch.setenv("WHYOPS_OTLP", receiver.url)
        found = checks(tmp_path)

    assert found["otlp"]["state"] == "problem"
    assert advice in found["otlp"]["message"]


def test_a_receiver_that_is_away_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans wait meanwhile."""
    monkeypatch.setenv("WHYOPS_OTLP", "http://127.0.0.1:1")

    assert checks(tmp_path)["otlp"]["state"] == "problem"


def test_nothing_is_said_where_nothing_is_exported(tmp_path: Path) -> None:
    """Nor is anything asked."""
    assert checks(tmp_path) == {}
