"""Frameworks run for real, and what is stored of a run is what their own objects tell of it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser import served
from programs import ROOT, environment
from runs.compared import Stored, compare
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
    "openai_agents": "openinference.instrumentation.openai_agents",
    "pydantic_ai": "pydantic_ai",
    "smolagents": "openinference.instrumentation.smolagents",
    "smolagents_code": "openinference.instrumentation.smolagents",
    "strands": "strands",
}
#: Frameworks whose work is done in a process that sends by itself.
SEND_THEMSELVES = ("claude_agent",)


def is_here(package: str) -> bool:
    """Return True if a package is installed."""
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


@pytest.mark.parametrize("name", NEEDS)
def test_a_run_arrives_as_the_framework_tells_of_it(name: str, tmp_path: Path) -> None:
    """Turns, tools and agents once each, with arguments, results, ids, tokens, failures, and who asked for what."""
    if not is_here(NEEDS[name]):
        pytest.skip("the session `framework_runs` of nox installs it")
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "doubles")))
    home = tmp_path / "traces"
    with served(home) as url:
        done = subprocess.run(
            [
                sys.executable,
                ROOT / f"tests/runs/run_{name}.py",
                "own" if name in SEND_THEMSELVES else "wire",
            ],
            env=environment(tmp_path / "own", PYTHONPATH=path, OTEL_EXPORTER_OTLP_ENDPOINT=url),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    score = compare(Told.of(json.loads(done.stdout.splitlines()[-1])), Stored.of_home(home))

    assert score.missed == []
    assert score.told["tokens"] > 0
