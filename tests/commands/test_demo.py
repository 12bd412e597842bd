"""The demo: an agent that works, on any machine, and the trace it leaves."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from collector import Collector
from findings import findings
from programs import DEMO, outline, run, stored
from serving import KEY

from whyops_trace import WhyOps
from whyops_trace.cli import main
from whyops_trace.demo import agent, scripted
from whyops_trace.demo.shop import Shop
from whyops_trace.store import Store
from whyops_trace.testing import capture_events

LETTER = """\
Dear Mia, we are sorry about the teapot: 49.99 EUR are on their
way back to you. Your six cups are in transit with Swift (last seen
2026-03-05), and your pound of tea is packed."""


def only_trace(home: Path) -> str:
    """Return the id of the one trace in a home."""
    store = Store(home / "traces.db")
    (summary,) = store.traces()
    store.close()
    return summary.trace_id


@pytest.fixture
def recorded(tmp_path: Path) -> list[dict[str, Any]]:
    """The events of the demo's agent."""
    with scripted.serve() as url, capture_events(local=True) as events, WhyOps(agent_name="demo") as client:
        agent.handle_ticket(client, "demo-1", url, Shop(tmp_path), "The teapot is broken.")
    return events


def test_the_command_works_whatever_the_environment_says(tmp_path: Path) -> None:
    """Proxies, a key, and switches that turn tracing off change nothing: the demo is local, and stored."""
    home = tmp_path / "home"
    done = run(
        *("-m", "whyops_trace", "demo"),
        home=home,
        HTTP_PROXY="http://127.0.0.1:9",
        ALL_PROXY="http://127.0.0.1:9",
        WHYOPS_API_KEY="whyops_a_key",
        WHYOPS_TRACING="off",
        WHYOPS_STORE="off",
        WHYOPS_CONSOLE="tree",
    )
    trace_id = only_trace(home)

    assert (done.returncode, done.stderr) == (0, "")
    assert LETTER in done.stdout
    assert f"\n{trace_id} · demo · " in done.stdout
    assert " · 7 tools, 7 llm, 1 error · " in done.stdout
    assert f"whyops-trace show {trace_id}\n" in done.stdout
    assert outline(stored(home, trace_id)) == DEMO


def test_the_home_option_says_where_the_trace_goes(tmp_path: Path) -> None:
    """It wins over the environment, and what to type next repeats it."""
    home = tmp_path / "my home"
    result = CliRunner().invoke(main, ["demo", "--home", str(home)])
    trace_id = only_trace(home)

    assert result.exit_code == 0
    assert f"whyops-trace show {trace_id} --home '{home}'\n" in result.output
    assert not (tmp_path / "home").exists()


def test_what_to_type_next_works(tmp_path: Path) -> None:
    """The id it prints is shown by the show command, in another process."""
    home = tmp_path / "home"
    CliRunner().invoke(main, ["demo"])
    shown = run("-m", "whyops_trace", "show", only_trace(home), home=home)

    assert shown.returncode == 0
    assert "✗ run_sql(" in shown.stdout


def test_a_home_that_cannot_be_written_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    """Nothing is stored, the exit code says so, and the message tells the way out."""
    file = tmp_path / "file"
    file.write_text("")
    done = run("-m", "whyops_trace", "demo", home=file / "below")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "name a folder with --home" in done.stderr


def to_server(collector: Collector, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the demo against a server."""
    urls = {"WHYOPS_ANALYSE_URL": collector.url, "WHYOPS_PROXY_URL": collector.proxy_url}
    return run("-m", "whyops_trace", "demo", "--server", home=home, **{"WHYOPS_API_KEY": KEY, **urls, **more})


def test_the_demo_runs_against_a_server(collector: Collector, tmp_path: Path) -> None:
    """The same trace is there and here, whatever else the environment says, and is sound on the server."""
    done = to_server(collector, tmp_path, WHYOPS_TRACING="off", WHYOPS_STORE="off")
    trace_id = only_trace(tmp_path)
    rows = collector.trace(trace_id)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"On the server:    {len(rows)} events of the trace {trace_id}, agent demo" in done.stdout
    assert [finding for finding in findings(rows) if "OUTLIER" not in finding[0]] == []
    assert [init["metadata"]["systemPrompt"] for init in collector.inits] == [agent.INSTRUCTIONS]
    assert outline(stored(tmp_path, trace_id)) == DEMO


def test_a_server_that_does_not_keep_the_demo_is_told_of(collector: Collector, tmp_path: Path) -> None:
    """With the agent's own id in what to do; the exit code says so as well."""
    collector.sampling_rate = 0.0
    done = to_server(collector, tmp_path)
    (known,) = collector.agents.values()

    assert done.returncode == 1
    assert f"PATCH {collector.url}/entities/{known.id}/sampling-rate" in done.stderr
    assert "has 0 of the" in done.stderr


def test_a_demo_for_a_server_needs_a_key(collector: Collector, tmp_path: Path) -> None:
    """One line says where it belongs, and nothing is recorded."""
    done = to_server(collector, tmp_path / "home", WHYOPS_API_KEY="")

    assert done.returncode == 1
    assert "WHYOPS_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home" / "traces.db").exists()


def test_help_says_what_it_does() -> None:
    """Before it is run."""
    result = CliRunner().invoke(main, ["demo", "--help"])

    assert result.exit_code == 0
    assert "Nothing leaves the machine" in result.output


def test_the_agent_leaves_one_trace(recorded: list[dict[str, Any]]) -> None:
    """Synchronous and asynchronous parts, threads and generators: all of it hangs together."""
    assert {event["traceId"] for event in recorded} == {"demo-1"}
    assert outline(recorded) == DEMO


def test_the_failed_call_is_retried_with_other_arguments(recorded: list[dict[str, Any]]) -> None:
    """The model reads the error, which the trace keeps, and mends its query."""
    queries = [
        event["content"]["toolCalls"][0]["arguments"]["query"]
        for event in recorded
        if event["eventType"] == "tool_call_request" and event["metadata"]["tool"] == "run_sql"
    ]
    (error,) = (event["content"] for event in recorded if event["eventType"] == "error")

    assert len(set(queries)) == 2
    assert (error["type"], error["message"]) == ("sqlite3.OperationalError", "no such column: customer")
    assert error["stack"].splitlines()[0].endswith("in Shop.run_sql")


def test_every_answer_has_its_tokens_the_streamed_one_too(recorded: list[dict[str, Any]]) -> None:
    """Prompt tokens are counted without the cached ones, which grow as the conversation does."""
    counts = [event["metadata"]["usage"] for event in recorded if event["eventType"] == "llm_response"]
    cached = [count.get("cacheReadTokens", 0) for count in counts]

    assert len(counts) == 7
    assert all(
        count["totalTokens"]
        == count["promptTokens"] + count.get("cacheReadTokens", 0) + count["completionTokens"]
        for count in counts
    )
    assert cached == sorted(cached)
    assert cached[0] == 0 < cached[1]


def test_the_scripted_model_speaks_the_format_of_chat_completions() -> None:
    """In one piece: choices, tool calls with their arguments as JSON text, and usage with cached tokens."""
    question = {"model": "m", "messages": [{"role": "user", "content": "?"}], "tools": []}
    with scripted.serve() as url, httpx.Client(trust_env=False) as http:
        answer = http.post(f"{url}/chat/completions", json=question).json()
    (choice,) = answer["choices"]
    (call,) = choice["message"]["tool_calls"]

    assert (answer["object"], answer["model"]) == ("chat.completion", "m")
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(call["function"]["arguments"]).keys() == {"query"}
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


def test_the_scripted_model_streams(recorded: list[dict[str, Any]]) -> None:
    """Events with chunks, whose texts make up the answer; usage comes last, then the end."""
    asked = next(e for e in reversed(recorded) if e["eventType"] == "tool_result")
    question = {"model": "m", "messages": asked["content"]["messages"], "stream": True}
    with scripted.serve() as url, httpx.Client(trust_env=False) as http:
        lines = http.post(f"{url}/chat/completions", json=question).text.split("\n\n")
    *chunks, last = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    assert lines[-2:] == ["data: [DONE]", ""]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == LETTER
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] > 0


def test_refunds_follow_the_terms(tmp_path: Path) -> None:
    """The calculation is a real one."""
    shop = Shop(tmp_path)

    assert shop.refund(5000, 30, True) == {"refund_cents": 5000, "in_time": True}
    assert shop.refund(5000, 14, False) == {"refund_cents": 4500, "in_time": True}
    assert shop.refund(5000, 15, False) == {"refund_cents": 0, "in_time": False}


def test_a_model_cannot_write_to_the_shop(tmp_path: Path) -> None:
    """Its queries are read-only, and files are only read from the shop's folder; it is told what went wrong."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    shop = Shop(folder)
    calls = [("run_sql", {"query": "DELETE FROM orders"}), ("read_file", {"name": "../secret.txt"})]
    told = [
        agent.run_tool(shop, {"id": "1", "function": {"name": name, "arguments": json.dumps(arguments)}})
        for name, arguments in calls
    ]

    assert json.loads(told[0]["content"]) == {"error": "attempt to write a readonly database"}
    assert "error" in json.loads(told[1]["content"])
