"""The examples run as they are, and record what they say."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from collector import Collector, check
from findings import findings
from programs import ROOT, outline, run, stored
from provider import Provider
from replies import Reply

from whyops_trace.store import Store
from whyops_trace.testing import capture_events
from whyops_trace.tree import build

EXAMPLES = ROOT / "examples"
COUNTS = [(1, "tool", "count_words", "ok")] * 3

#: What each example leaves: the id of its trace and the outline of the tree.
OUTLINES = {
    "01_quickstart": (
        "order-1",
        [
            (0, "step", "price the order", "ok"),
            (1, "tool", "look_up_price", "ok"),
            (1, "tool", "look_up_price", "ok"),
            (0, "llm", "ask", "ok"),
            (0, "tool", "charge", "ok"),
            (0, "tool", "look_up_price", "error"),
        ],
    ),
    "02_async_agent": (
        "trip-1",
        [
            (0, "step", "look things up", "ok"),
            (1, "tool", "find_trains", "ok"),
            (1, "tool", "read_weather", "ok"),
            (1, "tool", "read_weather", "ok"),
            (0, "llm", "answer", "ok"),
        ],
    ),
    "04_threads": (
        "report-1",
        [
            (0, "step", "one function", "ok"),
            *COUNTS,
            (0, "step", "every pool", "ok"),
            *COUNTS,
            (0, "step", "asyncio", "ok"),
            *COUNTS,
        ],
    ),
    "15_two_services": (
        "order-8841",
        [
            (0, "tool", "reserve", "ok"),
            (1, "tool", "take_from_stock", "ok"),
            (0, "step", "ask a human", "ok"),
            (1, "tool", "refund", "ok"),
        ],
    ),
    "05_redaction_and_options": (
        "login-1",
        [
            (0, "tool", "log_in", "ok"),
            (0, "tool", "pay", "ok"),
            (0, "tool", "read_scan", "ok"),
            (0, "tool", "list_pages", "ok"),
            (0, "llm", "ask", "ok"),
            (0, "embedding", "embed", "ok"),
        ],
    ),
}


def load(name: str) -> ModuleType:
    """Import an example by its name, without running its main part."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(events: list[dict[str, Any]]) -> list[tuple[str, int, int | None, Any, dict[str, Any]]]:
    """Return events as ``(type, step, parent, content, metadata beside within)``."""
    return [
        (
            event["eventType"],
            event["stepId"],
            event.get("parentStepId"),
            event["content"],
            {key: value for key, value in event["metadata"].items() if key != "within"},
        )
        for event in events
    ]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    """Short enough to be read at one glance."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.parametrize("name", OUTLINES)
def test_an_example_runs_and_records_what_it_does(name: str, tmp_path: Path) -> None:
    """As a program of its own, with nothing on standard error."""
    trace_id, expected = OUTLINES[name]
    done = run(EXAMPLES / f"{name}.py", home=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert outline(stored(tmp_path, trace_id)) == expected


def test_what_went_wrong_is_told(tmp_path: Path) -> None:
    """How the run ended, what explains it, and what to do about it."""
    done = run(EXAMPLES / "10_find_what_went_wrong.py", home=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "finished: 1 call failed, recovered",
        "- find_parcel(order=8841) was called 4 times in a row, each time with the same result",
        "- refund(order=8841, euros=129.0) failed: ValueError: more than the fee of 12.9"
        " -> a later call tried again with euros=12.9 (was 129.0): ok",
        "- high: find_parcel was called 4 times in a row with the same arguments.",
        "  Say in the tool's result or error what to do differently, and limit how often a call may be repeated.",
    ]


def test_the_manual_events_are_all_nine_types(tmp_path: Path) -> None:
    """Each event as it was given, in order; pairs share a span id, and the user's options are kept."""
    done = run(EXAMPLES / "03_manual_events.py", home=tmp_path)
    events = stored(tmp_path, "chat-1")
    request, response = (event for event in events if event["eventType"].startswith("tool_call_re"))

    assert (done.returncode, done.stderr) == (0, "")
    assert told(events) == [
        (
            "user_message", 1, None, {"messages": [{"role": "user", "content": "Is item 7 in stock?"}]},
            {
                "trace": {"metadata": {"channel": "web"}}, "systemPrompt": "You know the stock.",
                "params": {"temperature": 0},
            },
        ),
        (
            "llm_thinking", 2, 1, {"type": "thinking", "thinking": "I have to look it up.", "signature": "sig-1"},
            {},
        ),
        ("embedding_request", 3, 2, {"input": ["item 7"]}, {}),
        (
            "embedding_response", 4, 3,
            {"object": "list", "embeddingCount": 1, "firstEmbeddingDimensions": 384, "encodingFormat": "float"},
            {"model": "embed-1", "provider": "example", "usage": {"totalTokens": 3}, "latencyMs": 12},
        ),
        (
            "llm_response", 5, 4,
            {
                "toolCalls": [{"id": "call_1", "function": {"name": "stock", "arguments": '{"item": 7}'}}],
                "finishReason": "tool_calls",
            },
            {
                "model": "example-1", "provider": "example", "latencyMs": 310,
                "usage": {"promptTokens": 40, "completionTokens": 9, "totalTokens": 49},
            },
        ),
        (
            "tool_call_request", 6, 5, {"toolCalls": [{"name": "stock", "arguments": {"item": 7}}]},
            {"requestedBy": 5, "tool": "stock"},
        ),
        ("error", 7, 6, {"message": "the first warehouse did not answer", "status": 503}, {}),
        (
            "tool_call_response", 8, 6,
            {"toolCalls": [{"name": "stock", "arguments": {"item": 7}}], "toolResults": {"count": 3}},
            {"tool": "stock", "latencyMs": 48},
        ),
        ("tool_result", 9, 8, {"toolName": "stock", "output": {"count": 3}}, {}),
        (
            "llm_response", 10, 9, {"content": "Yes: three of them."},
            {"model": "example-1", "provider": "example"},
        ),
    ]  # fmt: skip
    assert request["spanId"] == response["spanId"] != "span_0"
    assert events[0]["externalUserId"] == "user-7"
    assert events[-1]["idempotencyKey"] == "turn-1-answer"


def test_an_exporter_of_ones_own_gets_again_what_it_could_not_deliver(tmp_path: Path) -> None:
    """The collector refuses the first batch, and has every event in the end."""
    done = run(EXAMPLES / "11_your_own_exporter.py", home=tmp_path)
    first, *_, last = done.stdout.splitlines()

    assert (done.returncode, done.stderr) == (0, "")
    assert first.endswith("answered with 503")
    assert last == "3 of 3 delivered"


def test_a_trace_is_scored_and_found_by_its_scores(tmp_path: Path) -> None:
    """By an evaluator in it, on a step of it, and by its id when it is over."""
    done = run(EXAMPLES / "14_scores.py", home=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "trip-17",
        "- correct: 0 - Rome, week 24 is not week 23",
        "- helpful: down - I asked for another week.",
        "- tone: polite (step 1)",
    ]


def test_callbacks_of_a_framework_make_one_tree(tmp_path: Path) -> None:
    """The tools that ran in the framework's threads are in the run of the agent, one of them failed."""
    done = run(EXAMPLES / "12_callbacks_of_a_framework.py", home=tmp_path)
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        (trace,) = store.traces()
        tree = build(store.events(trace.trace_id))

    assert (done.returncode, done.stderr) == (0, "")
    (agent,) = tree.nodes
    assert agent.name == "agent Clerk"
    assert sorted((node.name, node.status) for node in agent.children) == [
        ("price", "error"),
        ("stock", "ok"),
    ]


def test_spans_of_a_framework_make_one_tree_with_functions(tmp_path: Path) -> None:
    """The turn that asked for the tool is known, and the function that does the work is in it."""
    pytest.importorskip("opentelemetry.sdk", reason="the extra [otel] installs it")
    done = run(EXAMPLES / "13_spans_of_a_framework.py", home=tmp_path)
    events = stored(tmp_path, "parcel-7")

    assert (done.returncode, done.stderr) == (0, "")
    assert outline(events) == [
        (0, "step", "agent clerk", "ok"),
        (1, "llm", "gpt-4o", "ok"),
        (1, "tool", "track", "ok"),
        (2, "tool", "look_up", "ok"),
    ]
    assert sum("requestedBy" in event["metadata"] for event in events) == 1


def test_the_replayed_run_asks_and_pays_nothing_again(tmp_path: Path) -> None:
    """The database and the payment are asked once, whatever is tried on the recording afterwards; a second time too."""
    for done in [run(EXAMPLES / "16_replay_a_run.py", home=tmp_path) for _ in range(2)]:
        assert (done.returncode, done.stderr) == (0, "")
        *lines, hint = (line for line in done.stdout.splitlines() if line[0] != " ")
        assert hint.startswith("now try: whyops-trace diff refund-")
        assert lines == [
            "the database is asked for 8841",
            "12.5 is paid",
            "replayed: done",
            "changed: refund(order=8841, amount=125.0) is not in the recording.",
            "The nearest one there is refund(order=8841, amount=12.5):",
            "what if: nothing to refund",
            "not called: ['refund(order=8841, amount=12.5)']",
        ]
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        assert len(store.traces()) == 8


def test_an_experiment_asks_no_database_and_pays_nothing(tmp_path: Path) -> None:
    """The runs are counted with an interval, and told by where they went; each is a trace."""
    done = run(EXAMPLES / "18_what_if.py", home=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "2 of 5 did not refund it: 12% to 77% of all runs would not.",
        "3 of 5: the same to the end",
        "2 of 5: the same until turn 1, then it ends, where the recorded run calls refund(order=8841)",
    ]
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        assert len(store.replays("refund-8841")) == 5


def test_a_runaway_is_stopped_and_its_argument_has_an_origin(tmp_path: Path) -> None:
    """Though it catches every exception; the id that it goes on with is told as that of an older result."""
    done = run(EXAMPLES / "17_stop_a_runaway.py", home=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        *["The tool says: order A-7713 is closed."] * 3,
        "Stopped by max_steps: 5 of 5 calls and steps have begun in trace 'refund-1', so refund was not started; a "
        "larger limit can let the agent go on.",
        "stopped by max_steps: 5 of 5 calls and steps have begun in trace 'refund-1', so refund was not started; a "
        "larger limit can let the agent go on. (4 calls failed, none recovered)",
        'order_id is from the result of find_orders #2 (order_id); the later #4 has "A-9920" there',
    ]


def test_no_secret_of_the_options_example_is_stored(tmp_path: Path) -> None:
    """Not in the store, and not in the journal."""
    done = run(EXAMPLES / "05_redaction_and_options.py", home=tmp_path)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    secrets = (b"hunter2", b"secret-of-mia", b"CH00 1234", b"9876")

    assert done.returncode == 0
    assert b"log_in" in kept
    assert [secret for secret in secrets if secret in kept] == []


@pytest.mark.parametrize("face", ["sync", "async"])
def test_the_checkout_of_the_whyops_package_records_the_same_in_both_faces(face: str) -> None:
    """The whole list of events as a server gets them; only the import of the program was changed."""
    example = load("checkout")
    with capture_events() as events:
        if face == "sync":
            example.checkout("checkout-8841")
        else:
            asyncio.run(example.checkout_async("checkout-8841"))
    example.sdk.close_sync()
    keys = [event.pop("idempotencyKey") for event in events]
    times = [event.pop("timestamp") for event in events]
    spans = [event.pop("spanId") for event in events]
    common = {"traceId": "checkout-8841", "agentName": "customer-support-agent"}
    calls = [{"name": "charge_card", "arguments": {"amount": 4999, "currency": "usd"}}]

    assert events == [
        {
            **common, "eventType": "user_message", "stepId": 1,
            "metadata": {"within": 0, "systemPrompt": "You are helpful.", "params": {"temperature": 0.2}},
            "content": {"messages": [{"role": "user", "content": "Please charge my card for order 8841."}]},
        },
        {
            **common, "eventType": "tool_call_request", "stepId": 2, "parentStepId": 1,
            "metadata": {"within": 0, "tool": "charge_card"},
            "content": {"toolCalls": calls},
        },
        {
            **common, "eventType": "tool_call_response", "stepId": 3, "parentStepId": 2,
            "metadata": {"within": 0, "tool": "charge_card", "latencyMs": 320},
            "content": {"toolCalls": calls, "toolResults": {"id": "ch_1", "status": "succeeded"}},
        },
        {
            **common, "eventType": "llm_response", "stepId": 4, "parentStepId": 3,
            "metadata": {
                "within": 0, "model": "openai/gpt-4o", "provider": "openai", "latencyMs": 840,
                "usage": {
                    "promptTokens": 120, "completionTokens": 30, "totalTokens": 950,
                    "cacheReadTokens": 800, "cacheCreationTokens": 0,
                },
            },
            "content": {"content": "Your card was charged 49.99 USD.", "finishReason": "stop"},
        },
    ]  # fmt: skip
    assert len(set(keys)) == 4
    assert times == sorted(times)
    assert spans[0] == spans[3] == "span_0" != spans[1] == spans[2]


def test_the_checkout_runs_as_a_program_with_no_account(tmp_path: Path) -> None:
    """No network is asked for; the traces are in the local store."""
    done = run(EXAMPLES / "checkout.py", home=tmp_path)
    expected = [
        (0, "llm", "openai/gpt-4o", "ok"),
        (0, "tool", "charge_card", "ok"),
    ]

    assert (done.returncode, done.stderr) == (0, "")
    assert [outline(stored(tmp_path, f"checkout-884{k}")) for k in (1, 2)] == [expected, expected]


def test_the_checkout_reports_to_a_server_where_there_is_a_key(tmp_path: Path) -> None:
    """The agent is registered once, and every event of both faces is stored there as it was numbered here."""
    with Collector() as collector:
        done = run(
            EXAMPLES / "checkout.py",
            home=tmp_path,
            WHYOPS_API_KEY="whyops_test",
            WHYOPS_ANALYSE_URL=collector.url,
        )
        traces = [collector.trace(f"checkout-884{k}") for k in (1, 2)]

    assert (done.returncode, done.stderr) == (0, "")
    assert len(collector.inits) == 1
    for trace in traces:
        check(trace)
        assert [row["stepId"] for row in trace] == [1, 2, 3, 4]
    assert not (tmp_path / "traces.db").exists()


def test_a_conversation_is_reported_to_a_server_or_stays_here(tmp_path: Path, collector: Collector) -> None:
    """The same program, run three times: on the server twice, one turn after the other, and without a key."""
    server = {"WHYOPS_API_KEY": "whyops_test", "WHYOPS_ANALYSE_URL": collector.url}
    example = EXAMPLES / "06_report_to_a_server.py"
    reported = [run(example, home=tmp_path / "a", **server) for _ in range(2)]
    local = run(example, home=tmp_path / "b")
    rows = collector.trace("conversation-17")

    assert [done.stderr for done in (*reported, local)] == ["", "", ""]
    assert [done.stdout.splitlines()[-1] for done in reported] == [
        "whyops: 8 of 8 events delivered, 0 on their way"
    ] * 2
    assert local.stdout.splitlines()[-1] == "local: 10 of 10 events delivered, 0 on their way"
    check(rows)
    assert [row["stepId"] for row in rows] == list(range(1, 17))
    assert len(collector.inits) == 2


#: What the trace of each example with a client of a provider looks like, and the model's replies it is run with.
CLIENTS = {
    "07_openai_agent": (
        "checkout-8841",
        [
            (0, "llm", "chat.completions", "ok"),
            (0, "tool", "charge_card", "ok"),
            (0, "llm", "chat.completions", "ok"),
        ],
    ),
    "08_anthropic_streams": (
        "conversation-17",
        [
            (0, "step", "look things up", "ok"),
            (1, "tool", "find_order", "ok"),
            (0, "llm", "messages", "ok"),
        ],
    ),
    "09_hybrid_checkout": (
        "checkout-8842",
        [
            (0, "llm", "chat.completions", "ok"),
            (0, "tool", "charge_card", "ok"),
            (0, "llm", "chat.completions", "ok"),
        ],
    ),
}


def prepare(provider: Provider, name: str) -> None:
    """Give the model its replies to an example."""
    if name.startswith("07"):
        provider.call_tool("charge_card", {"amount": 4999})
    elif name.startswith("09"):
        provider.say("I charge it.")
        provider.reply(Reply("Done: 49.99 USD."))
        provider.say("I shall charge it.")
    provider.default = Reply("Done: 49.99 USD.")


@pytest.mark.parametrize("name", CLIENTS)
def test_an_example_with_a_providers_client_needs_no_account(name: str, tmp_path: Path) -> None:
    """The provider is asked directly, and the turns stand in the local trace."""
    trace_id, expected = CLIENTS[name]
    with Provider() as provider:
        prepare(provider, name)
        done = run(EXAMPLES / f"{name}.py", home=tmp_path, **provider.environment)

    assert (done.returncode, done.stderr) == (0, "")
    assert "Done: 49.99 USD." in done.stdout
    assert outline(stored(tmp_path, trace_id)) == expected


@pytest.mark.parametrize("name", CLIENTS)
def test_an_example_with_a_providers_client_reports_through_the_proxy(name: str, tmp_path: Path) -> None:
    """Every event is in its place on the server, each turn once, and its analysis finds nothing."""
    trace_id, expected = CLIENTS[name]
    with Provider() as provider, Collector() as collector:
        collector.upstream = provider
        prepare(provider, name)
        done = run(
            EXAMPLES / f"{name}.py",
            home=tmp_path,
            **provider.environment,
            WHYOPS_API_KEY="whyops_test",
            WHYOPS_ANALYSE_URL=collector.url,
            WHYOPS_PROXY_URL=collector.proxy_url,
            WHYOPS_STORE="on",
        )
        traces = {trace: collector.trace(trace) for trace in collector.traces}
    types = [row["eventType"] for row in traces[trace_id]]

    assert (done.returncode, done.stderr) == (0, "")
    assert "Done: 49.99 USD.\n" in done.stdout
    assert outline(stored(tmp_path, trace_id)) == expected
    assert [findings(rows) for rows in traces.values()] == [[]] * len(traces)
    assert types.count("llm_response") == sum(kind == "llm" for _, kind, _, _ in expected)
    assert types.count("tool_call_request") == types.count("tool_call_response") == 1
    assert collector.dead_letters == []
