"""The ``whyops`` package from PyPI, pointed at the local collector: nothing that it reports is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from local import collecting
from programs import ROOT, run_code

from whyops_trace.tree import build

PACKAGE = "whyops==0.1.1"
#: Reports one event of each kind, and some twice, with the methods of one face.
PROGRAM = """
    import asyncio, inspect
    from whyops import WhyOps

    metadata = {{"systemPrompt": "You run the checkout.", "tools": []}}
    sdk = WhyOps("whyops_local", "shop", metadata, analyse_base_url={url!r}, proxy_base_url={root!r})
    trace = sdk.trace("checkout-8841")

    async def call(name, *arguments, **options):
        made = getattr(trace, name + {suffix!r})(*arguments, **options)
        return await made if inspect.isawaitable(made) else made

    async def main():
        usage = {{"promptTokens": 10, "completionTokens": 5, "totalTokens": 15}}
        calls = [{{"name": "find", "arguments": {{"order": 8841}}}}]
        asked = [{{"id": "c1", "function": {{"name": "find", "arguments": "{{}}"}}}}]
        for _ in range(2):  # the same words twice are two events
            await call("user_message", [{{"role": "user", "content": "yes"}}], metadata={{"systemPrompt": "s"}})
        await call("llm_thinking", "hm", signature="s")
        await call("llm_response", "gpt-4o", "openai", "Let me see.", tool_calls=asked, finish_reason="tool_calls",
                   usage=usage, latency_ms=812)
        spans = [await call("tool_call_request", "find", calls) for _ in range(2)]
        for span in spans:
            await call("tool_call_response", "find", span, calls, {{"state": "sent"}}, latency_ms=12)
        await call("tool_result", "find", {{"state": "sent"}})
        await call("embedding_request", ["a", "b"])
        await call("embedding_response", "text-embedding-3-small", "openai", 2, 1536, total_tokens=7)
        for _ in range(3):
            await call("error", "Too many requests", status=429, stack="...")
        await call("user_message", [], step_id=100, parent_step_id=12, span_id="own", idempotency_key="mine",
                   timestamp="2026-01-01T00:00:00Z")
        await call("user_message", [], idempotency_key="mine")

    asyncio.run(main())
"""
#: The type, step and parent of each event that is stored.
STORED = [
    ("user_message", 1, None),
    ("user_message", 2, 1),
    ("llm_thinking", 3, 2),
    ("llm_response", 4, 3),
    ("tool_call_request", 5, 4),
    ("tool_call_request", 6, 5),
    ("tool_call_response", 7, 6),
    ("tool_call_response", 8, 7),
    ("tool_result", 9, 8),
    ("embedding_request", 10, 9),
    ("embedding_response", 11, 10),
    ("error", 12, 11),
    ("error", 13, 12),
    ("error", 14, 13),
    ("user_message", 100, 12),
]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package in a directory of its own; it needs nothing that is not there."""
    target = tmp_path_factory.mktemp("package")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(target),
        PACKAGE,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        pytest.skip(f"{PACKAGE} cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return target


@pytest.mark.parametrize("suffix", ["_sync", ""])
def test_every_event_of_the_package_is_stored(tmp_path: Path, package: Path, suffix: str) -> None:
    """With both of its faces, although it makes no keys and names no steps."""
    with collecting(tmp_path / "home") as server:
        program = textwrap.dedent(PROGRAM).format(url=server.url, root=server.root, suffix=suffix)
        path = os.pathsep.join([str(package), str(ROOT)])
        done = run_code(program, tmp_path / "other", PYTHONPATH=path)
        records = server.store.events("checkout-8841")
        agents = server.store.agents()
        summary = server.store.trace("checkout-8841")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [(r["eventType"], r["stepId"], r.get("parentStepId")) for r in records] == STORED
    assert [agent.name for agent in agents] == ["shop"]
    assert (records[-1]["spanId"], records[-1]["idempotencyKey"]) == ("own", "mine")
    assert records[3]["metadata"]["usage"]["totalTokens"] == 15
    assert (summary.event_count, summary.tool_calls, summary.errors) == (15, 2, 3)
    assert _outline(records) == [
        ("event", "user"),
        ("llm", "gpt-4o"),
        ("tool", "find"),
        ("tool", "find"),
        ("event", "result of find"),
        ("embedding", "embedding"),
        *[("event", "error")] * 3,
        ("event", "user"),
    ]


def _outline(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(node.kind, node.name) for node in build(records).nodes]
