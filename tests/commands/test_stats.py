"""Figures over many traces: what counts as a call, how latencies and costs are summed up, and how they are shown."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lines import Process, encoded, tool_request, tool_response
from programs import run

from whyops_trace._reading.excerpt import dollars
from whyops_trace._reading.prices import cost
from whyops_trace.cli import main
from whyops_trace.stats import Figures, Stats, gather, percentile
from whyops_trace.store import Filter, Store

TOKEN = "9f2c41aa01be"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The store of the home of the test."""
    store = Store(tmp_path / "home" / "traces.db")
    yield store
    store.close()


@pytest.fixture
def cli() -> Callable[..., Result]:
    """Runs a command in this process."""
    return lambda *arguments: CliRunner().invoke(main, ["stats", *map(str, arguments)])


def put(store: Store, *events: dict[str, Any]) -> None:
    """Put records into the store."""
    store.ingest((TOKEN, [encoded(event) for event in events]))


def figures(found: list[Figures]) -> dict[str, tuple[int, int]]:
    """Return calls and errors by name, in the order they are given."""
    return {each.name: (each.calls, each.errors) for each in found}


def everything(store: Store, where: Filter | None = None) -> Stats:
    """Return the figures over all traces."""
    return gather(store, store.each(where))


_calls = itertools.count()


def tool(name: str, latency: float | None = 8, *, trace: str = "", **members: Any) -> list[dict[str, Any]]:
    """Return a trace of one call of a tool."""
    process = Process(trace=trace or f"tool-{next(_calls)}")
    about = {} if latency is None else {"latencyMs": latency}
    results = members.pop("results", {"result": 1})
    about |= members.pop("about", {})
    return [
        tool_request(process, 1, tool=name, **members),
        tool_response(process, 2, 1, tool=name, about=about, results=results, end=True, **members),
    ]


def turn(model: str = "gpt-4o", trace: str = "", **members: Any) -> dict[str, Any]:
    """Return a trace of one turn of a model; *usage* and *about* join its metadata."""
    usage = members.pop("usage", {"promptTokens": 1_000_000, "completionTokens": 0})
    about = {
        "model": model,
        "provider": "openai",
        "latencyMs": 640,
        "usage": usage,
        **members.pop("about", {}),
    }
    kind = members.pop("kind", "llm_response")
    return Process(trace=trace or f"turn-{next(_calls)}").event(kind, 1, metadata=about, end=True, **members)


# Percentiles


@pytest.mark.parametrize(
    ("count", "share", "rank"),
    [
        (1, 0.5, 1),
        (2, 0.5, 1),
        (3, 0.5, 2),
        (100, 0.95, 95),
        (100, 0.99, 99),
        (101, 0.99, 100),
        (200, 0.95, 190),
    ],
)
def test_a_percentile_is_the_latency_at_the_nearest_rank(count: int, share: float, rank: int) -> None:
    """One that was measured, and never one between two."""
    assert percentile([float(n) for n in range(1, count + 1)], share) == rank


def test_no_latencies_have_no_percentile() -> None:
    """It is not zero."""
    assert percentile([], 0.5) is None


# By tool


def test_calls_that_say_that_they_failed_are_counted_apart(store: Store) -> None:
    """By tool, and by agent those in its traces; a column has them where there are any."""
    put(store, *tool("card", 5, results={"success": False, "message": "no"}), *tool("card", 5))
    figures = everything(store)

    assert [(each.name, each.calls, each.errors, each.said_failed) for each in figures.tools] == [
        ("card", 2, 0, 1)
    ]
    assert [each.said_failed for each in figures.agents] == [1]


def test_calls_of_a_tool(store: Store) -> None:
    """How many, how many failed, and how long they took; the tool that was called most is first."""
    failed = tool("card", 100, results={"error": {"type": "E", "message": "no"}}, about={"outcome": "error"})
    for latency in range(1, 100):
        put(store, *tool("card", latency))
    put(store, *failed, *tool("ship", 5))
    card, ship = everything(store).tools

    assert (card.name, card.calls, card.errors, card.error_share) == ("card", 100, 1, 0.01)
    assert (card.p50_ms, card.p95_ms, card.p99_ms) == (50, 95, 99)
    assert (ship.name, ship.calls, ship.p50_ms, ship.p99_ms) == ("ship", 1, 5, 5)


def test_a_failure_is_seen_without_an_outcome(store: Store) -> None:
    """Other clients only write it into the results; a result that merely has such a member is none."""
    put(store, *tool("a", results={"error": {"type": "E", "message": "no"}}))
    put(store, *tool("a", results={"error": None, "rows": 3}), *tool("a", results={"result": {"error": "?"}}))

    assert figures(everything(store).tools) == {"a": (3, 1)}


def test_a_latency_that_was_not_recorded_is_that_between_request_and_response(store: Store) -> None:
    """As the tree shows it."""
    events = tool("a", None)
    events[1]["timestamp"] = "2026-11-21T22:30:02.500Z"
    put(store, *events)

    assert everything(store).tools[0].p50_ms == 2500


@pytest.mark.parametrize("missing", [0, 1])
def test_half_a_call_is_a_call(store: Store, missing: int) -> None:
    """One that goes on has no response, and by hand only the response may have been recorded."""
    events = tool("a")
    del events[missing]
    put(store, *events)

    assert figures(everything(store).tools) == {"a": (1, 0)}


def test_a_tool_that_only_the_content_names(store: Store) -> None:
    """As other clients write it; several are called at once."""
    content = {"toolCalls": [{"name": "a"}, {"name": "b"}]}
    put(store, Process().event("tool_call_request", 1, content=content))
    put(store, Process(trace="nameless").event("tool_call_request", 1, content={"toolCalls": "?"}))

    assert figures(everything(store).tools) == {"a, b": (1, 0), "unknown": (1, 0)}


# By model


def test_turns_of_a_model(store: Store) -> None:
    """With their tokens, the share that came from a cache, and what they cost."""
    usage = {"promptTokens": 1000, "completionTokens": 30, "cacheReadTokens": 3000}
    put(store, turn(usage=usage, about={"latencyMs": 10}), turn(usage=usage, about={"latencyMs": 20}))
    (model,) = everything(store).models
    price = cost("gpt-4o", "openai", usage, "2026-11-21T22:30:00.000Z")

    assert price
    assert model == Figures(
        "gpt-4o",
        calls=2,
        p50_ms=10,
        p95_ms=20,
        p99_ms=20,
        prompt_tokens=2000,
        completion_tokens=60,
        cache_read_tokens=6000,
        cached_share=0.75,
        cost=float(2 * price),
        known_cost=float(2 * price),
    )


def test_a_turn_that_failed_counts_under_the_model_that_was_asked(store: Store) -> None:
    """A failed call records an error instead of an answer; other errors are no turns."""
    about = {"function": "ask", "model": "gpt-4o", "latencyMs": 30}
    put(
        store,
        Process(trace="a").event("error", 1, metadata=about),
        Process(trace="b").event("error", 1, metadata={"tool": "card"}),
        Process(trace="c").event("error", 1, metadata={"model": "gpt-4o"}),
        Process(trace="d").event("error", 1, metadata={**about, "wraps": True}),
    )
    (model,) = everything(store).models

    assert (model.name, model.calls, model.errors, model.p50_ms) == ("gpt-4o", 1, 1, 30)
    assert (model.cost, model.unpriced) == (None, 0)


def test_what_only_repeats_a_turn_is_not_counted(store: Store) -> None:
    """A traced function in which a client is called."""
    put(store, turn(trace="a"), turn(trace="b", about={"wraps": True}))

    assert figures(everything(store).models) == {"gpt-4o": (1, 0)}


def test_an_embedding_is_a_turn(store: Store) -> None:
    """Its tokens are those of its prompt."""
    put(store, turn("text-embedding-3-small", usage={"totalTokens": 5}, kind="embedding_response"))
    (model,) = everything(store).models

    assert (model.calls, model.prompt_tokens) == (1, 5)


def test_a_cost_is_not_known_if_that_of_a_turn_is_not(store: Store) -> None:
    """How many turns have no price is told, and what the others cost; by agent as well."""
    put(store, turn(trace="a"), turn(trace="b", usage={"promptTokens": 5}), turn("tomorrow", trace="c"))
    found = everything(store)
    known, unknown = found.models

    assert (known.cost, known.unpriced) == (None, 1)
    assert known.known_cost == found.agents[0].known_cost
    assert known.known_cost
    assert (unknown.cost, unknown.known_cost, unknown.unpriced) == (None, None, 1)
    assert (found.agents[0].cost, found.agents[0].unpriced) == (None, 2)


# By agent


def test_traces_of_an_agent(store: Store) -> None:
    """A trace is an error if it failed, and has no latency while it goes on."""
    done = [
        turn(trace="done"),
        Process(trace="done").event("trace_end", 2, at=1500, metadata={"latencyMs": 1500}, end=True),
    ]
    failed = Process(trace="failed").event(
        "error", 1, content={"message": "no"}, end=True, agentName="billing"
    )
    done[1]["idempotencyKey"] = "end"
    put(store, *done, failed, tool_request(Process(trace="open"), 1))
    found = everything(store)
    shop = found.agents[0]

    assert found.traces == 3
    assert figures(found.agents) == {"shop": (2, 0), "billing": (1, 1)}
    assert (shop.p50_ms, shop.prompt_tokens) == (1500, 1_000_000)


def test_only_some_traces(store: Store) -> None:
    """Those of the filter, whole."""
    put(store, *tool("a", agentName="shop"), *tool("b", agentName="billing"))

    assert figures(everything(store, Filter(agent="billing")).tools) == {"b": (1, 0)}


def test_a_store_that_does_not_exist_has_no_figures(tmp_path: Path) -> None:
    """And none is made."""
    store = Store(tmp_path / "none" / "traces.db")

    assert gather(store, store.each()) == Stats(0, [], [], [])
    assert store.select("t", {"error"}, str) == []
    assert not store.path.exists()


def test_the_figures_are_those_of_the_tree(tmp_path: Path) -> None:
    """What a real agent recorded: the numbers in the header of `show`."""
    home = tmp_path / "home"
    assert run("-m", "whyops_trace", "demo", home=home).returncode == 0
    with contextlib.closing(Store(home / "traces.db")) as store:
        found = everything(store)
        (trace,) = store.traces()

    assert sum(each.calls for each in found.tools) == trace.tool_calls == 7
    assert sum(each.calls for each in found.models) == trace.llm_responses == 7
    assert sum(each.errors for each in found.tools) == trace.errors == 1
    assert found.agents[0].tokens == trace.tokens == found.models[0].tokens


def test_records_of_any_form_have_figures(store: Store) -> None:
    """What is no name, number or usage counts as none; what is no record of ours is passed over."""
    odd: list[Any] = [None, True, -1, 1e300, "x\x1b[31m", [], {}, [[1]], {"a": {}}]
    events: list[dict[str, Any]] = []
    for number, value in enumerate(odd):
        about = {"tool": value, "model": value, "provider": value, "usage": value, "latencyMs": value}
        about |= {"outcome": value, "wraps": value, "function": value}
        for kind in ("tool_call_request", "tool_call_response", "llm_response", "error"):
            event = Process(trace=f"odd-{number}").event(kind, len(events) + 1, metadata=about, content=value)
            events.append({**event, "idempotencyKey": f"k-{len(events)}"})
    put(store, *events)
    found = everything(store)

    assert found.traces == len(odd)
    assert sum(each.calls for each in found.tools) == len(odd)
    assert sum(each.calls for each in found.models) == len(odd)  # less one that repeats, with one that failed
    assert all(each.tokens.total == 0 for each in found.models)


def test_what_somebody_wrote_into_the_file_is_passed_over(store: Store) -> None:
    """And so is a result with a number that no float can hold."""
    put(store, *tool("a"), *tool("b"))
    line = Process(trace="large").line("tool_call_response", 1, metadata={"tool": "c"}, content="?")
    store.ingest((TOKEN, [line.replace(b'"?"', b'{"error": 1e999}')]))
    store.close()
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE records SET line = '{\"eventType\": 7}' WHERE line LIKE '%\"b\"%'")

    assert figures(everything(store).tools) == {"a": (1, 0), "c": (1, 0)}


# The command


def test_stats_shows_three_tables(cli: Callable[..., Result], store: Store) -> None:
    """By agent, tool and model; what is not known is left out."""
    put(store, *tool("card", 1200, trace="a"), *tool("ship", 3, trace="b", about={"outcome": "error"}))
    put(store, turn(usage={"promptTokens": 250_000, "completionTokens": 4, "cacheReadTokens": 750_000}))
    result = cli("--home", store.path.parent)
    rows = [line.split() for line in result.stdout.splitlines()]

    assert rows[0] == ["agent", "traces", "failed", "p50", "p95", "p99", "in", "out", "cached", "cost"]
    assert rows[1][:3] == ["shop", "3", "1"]
    assert rows[3:6] == [
        ["tool", "calls", "errors", "p50", "p95", "p99"],
        ["card", "1", "0", "1.2", "s", "1.2", "s", "1.2", "s"],
        ["ship", "1", "1", "100.0", "%", "3", "ms", "3", "ms", "3", "ms"],
    ]
    assert rows[7] == ["model", "calls", "errors", "p50", "p95", "p99", "in", "out", "cached", "cost"]
    assert (
        rows[8][:12]
        == ["gpt-4o", "1", "0", "640", "ms", "640", "ms", "640", "ms", "1,000,000", "4", "75"][:12]
    )
    assert (result.stderr, result.exit_code) == ("", 0)


def test_stats_by_one(cli: Callable[..., Result], store: Store) -> None:
    """Only that table."""
    put(store, *tool("card"), turn())
    shown = {by: cli("--by", by, "--home", store.path.parent).stdout for by in ("agent", "tool", "model")}

    assert {by: re.findall("^(agent|tool|model) ", out, re.M) for by, out in shown.items()} == {
        by: [by] for by in shown
    }


def test_stats_says_of_how_many_turns_no_price_is_known(cli: Callable[..., Result], store: Store) -> None:
    """And that a sum is only a part."""
    put(store, turn(trace="a"), turn(trace="b", usage={"promptTokens": 5}), turn("tomorrow", trace="c"))
    out = cli("--by", "model", "--home", store.path.parent).stdout
    price = cost(
        "gpt-4o", "openai", {"promptTokens": 1_000_000, "completionTokens": 0}, "2026-11-21T22:30:00Z"
    )

    assert price
    assert f"≥ {dollars(float(price))}" in out
    assert out.endswith("\nThe price of 2 turns of models is not known.\n")
    assert "≥" in cli("--help").stdout


def test_stats_as_json(cli: Callable[..., Result], store: Store) -> None:
    """All figures, in ASCII; --by leaves the others out."""
    put(store, *tool("kärt\x9b"))
    result = cli("--json", "--by", "tool", "--home", store.path.parent)
    whole = json.loads(cli("--json", "--home", store.path.parent).stdout)

    assert json.loads(result.stdout) == {
        "traces": 1,
        "tools": [
            {
                "name": "kärt\x9b",
                "calls": 1,
                "errors": 0,
                "saidFailed": 0,
                "errorShare": 0.0,
                "p50Ms": 8.0,
                "p95Ms": 8.0,
                "p99Ms": 8.0,
                "promptTokens": 0,
                "completionTokens": 0,
                "cacheReadTokens": 0,
                "cacheCreationTokens": 0,
                "cachedShare": None,
                "cost": None,
                "knownCost": None,
                "unpriced": 0,
            }
        ],
    }
    assert result.stdout.isascii()
    assert list(whole) == ["traces", "agents", "tools", "models", "scores"]


def test_stats_of_some_time(cli: Callable[..., Result], store: Store) -> None:
    """Only traces that were recorded on then."""
    day = 86_400_000
    put(store, *tool("a", at=0), *tool("b", at=day), *tool("c", at=2 * day))
    options = ("--since", "2026-11-22", "--until", "2026-11-23T12:00Z", "--agent", "shop", "--json")
    found = json.loads(cli(*options, "--home", store.path.parent).stdout)

    assert [each["name"] for each in found["tools"]] == ["b"]


def test_stats_of_nothing(cli: Callable[..., Result], store: Store) -> None:
    """Exit code 1, and nothing is made by looking."""
    home = store.path.parent
    result, as_json = cli("--home", home), cli("--home", home, "--json")
    made = home.exists()
    put(store, *tool("a"))
    no_models = cli("--home", home, "--by", "model")

    assert result.stdout == f"There are no such traces in {home}; `whyops-trace ls` lists what there is.\n"
    assert (result.exit_code, as_json.exit_code, made) == (1, 1, False)
    assert json.loads(as_json.stdout) == {"traces": 0, "agents": [], "tools": [], "models": [], "scores": []}
    assert (no_models.stdout, no_models.exit_code) == ("There are no models in these traces.\n", 0)


def test_names_do_nothing_to_the_terminal(cli: Callable[..., Result], store: Store) -> None:
    """Of agents, tools and models."""
    hostile = "\x1b[31m[bold]:smile:[/x]\x9b\u202e\r\nend"
    put(store, *tool(hostile, agentName=hostile), turn(hostile))
    out = cli("--home", store.path.parent).stdout

    assert out.count("[bold]:smile:[/x]") == 3
    assert all(character == "\n" or character.isprintable() for character in out)


@pytest.mark.parametrize("options", [["--by", "user"], ["--since", "soon"], ["extra"]])
def test_a_wrong_usage_is_exit_code_2(cli: Callable[..., Result], options: list[str]) -> None:
    """As with every other command."""
    assert cli(*options).exit_code == 2


def test_a_damaged_store_is_one_line(cli: Callable[..., Result], tmp_path: Path) -> None:
    """With what to do."""
    (tmp_path / "traces.db").write_bytes(b"junk" * 1000)
    result = cli("--home", tmp_path)

    assert (result.stdout, result.exit_code) == ("", 1)
    assert re.fullmatch(r"Error: .*traces\.db is damaged, or no store at all .*\n", result.stderr)


# Failures


def failing(trace: str, message: str) -> list[dict[str, Any]]:
    """Return a trace of a call that failed."""
    error = {"error": {"type": "ValueError", "message": message}}
    return tool("refund", trace=trace, results=error, about={"outcome": "error"})


def test_failures_are_grouped_with_the_latest_example(store: Store, cli: Callable[..., Result]) -> None:
    """Place, way and words of each pattern, how many traces have it, and one to look at."""
    put(store, *failing("late-1", "129.0 exceeds the fee"), *failing("late-2", "49.5 exceeds the fee"))
    put(store, *tool("search", results={"success": False, "message": "no such order"}, trace="late-3"))

    lines = cli("--failures", "--home", store.path.parent).output.splitlines()

    assert lines[0].split() == ["traces", "failures", "recovered", "trend", "pattern", "latest"]
    assert [line.split()[:3] for line in lines[1:3]] == [["2", "2", "0"], ["1", "1", "0"]]
    assert re.search(r"refund raised: ValueError: (129\.0|49\.5) exceeds the fee +late-[12] #1$", lines[1])
    assert re.search(r"search said that it failed: no such order +late-3 #1$", lines[2])
    assert lines[3] == "Patterns in 3 traces. What fails alike may have several reasons."


def test_failures_for_a_program(store: Store, cli: Callable[..., Result]) -> None:
    """The same as JSON."""
    put(store, *failing("late-1", "129.0 exceeds the fee"))

    report = json.loads(cli("--failures", "--json", "--home", store.path.parent).output)

    assert report["traces"] == 1
    assert [(one["kind"], one["place"], one["example"], one["step"]) for one in report["patterns"]] == [
        ("raised", "refund", "late-1", 1)
    ]


def test_traces_without_failures_say_so(store: Store, cli: Callable[..., Result]) -> None:
    """Nothing failed; or there is no trace, which a script can tell by the exit code."""
    home = store.path.parent
    none = cli("--failures", "--home", home)
    put(store, *tool("refund"))

    assert (none.output, none.exit_code) == ("There are no such traces.\n", 1)
    assert cli("--failures", "--home", home).output == "Nothing failed in 1 trace.\n"
    assert cli("--failures", "--by", "tool", "--home", home).exit_code == 2
