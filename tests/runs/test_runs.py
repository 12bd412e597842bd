"""Frameworks run for real, and what is stored of a run is what their own objects tell of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser import served
from programs import ROOT, environment
from runs.compared import Stored, compare
from runs.installed import is_here
from runs.told import Told

#: The package that each program needs.
NEEDS = {
    "ag2": "ag2",
    "claude_agent": "claude_agent_sdk",
    "crewai": "crewai",
    "dspy": "dspy",
    "google_adk": "google.adk",
    "haystack": "haystack_integrations",
    "langgraph": "openinference.instrumentation.langchain",
    "llama_index": "llama_index.core.agent",
    "mcp": "mcp.server.mcpserver",
    "openai_agents": "openinference.instrumentation.openai_agents",
    "pydantic_ai": "pydantic_ai",
    "smolagents": "openinference.instrumentation.smolagents",
    "smolagents_code": "openinference.instrumentation.smolagents",
    "strands": "strands",
}
#: Frameworks whose work is done in a process that sends by itself.
SEND_THEMSELVES = ("claude_agent",)
#: What is not told in this process: MCP does not pass the id of a call on.
UNTOLD = {"mcp": {"ids"}}


def run(name: str, way: str, home: Path, **environ: str) -> Told:
    """Run a program, and return what it tells."""
    if not is_here(NEEDS[name]):
        pytest.skip("the session `framework_runs` of nox installs it")
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "doubles")))
    done = subprocess.run(
        [sys.executable, ROOT / f"tests/runs/run_{name}.py", way],
        env=environment(home, PYTHONPATH=path, **environ),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Told.of(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", NEEDS)
def test_a_run_arrives_as_the_framework_tells_of_it(name: str, tmp_path: Path) -> None:
    """Turns, tools and agents once each, with arguments, results, ids, tokens, failures, and who asked for what."""
    way = "own" if name in SEND_THEMSELVES else "wire"
    with served(tmp_path / "traces") as url:
        told = run(name, way, tmp_path / "own", OTEL_EXPORTER_OTLP_ENDPOINT=url)
    score = compare(told, Stored.of_home(tmp_path / "traces"))

    assert score.missed == []
    assert score.told["tokens"] > 0


@pytest.mark.parametrize("name", [name for name in NEEDS if name not in SEND_THEMSELVES])
def test_a_run_is_recorded_in_its_process_as_the_framework_tells_of_it(name: str, tmp_path: Path) -> None:
    """The same, but for what a framework does not tell there."""
    told = run(name, "attached", tmp_path)
    score = compare(told, Stored.of_home(tmp_path))

    assert {each.partition(":")[0] for each in score.missed} == UNTOLD.get(name, set())
