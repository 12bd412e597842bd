"""A trace as a tree: what hangs below what, and how it looks."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lines import Process, tool_request, tool_response

from whyops_trace._reading.excerpt import (
    Tokens,
    cells,
    clean,
    dollars,
    duration,
    elapsed,
    excerpt,
    number,
    problem,
    raised_at,
    shorten,
    value,
)
from whyops_trace._reading.prices import cost
from whyops_trace.tree import TraceTree, build, fits, render, write_tree

ESCAPES = re.compile("\x1b\\[[0-9;]*m")


def drawn(events: Iterable[Mapping[str, Any]], width: int = 80, **options: Any) -> str:
    """Return a trace's tree as text, with a newline at both ends."""
    return "\n" + render(build(events), width=width, **options) + "\n"


def checkout() -> list[dict[str, Any]]:
    """Return a trace with a step, a tool that works, one that fails, and a model that asks for one."""
    process = Process()
    answer = {"content": "I will charge you.", "toolCalls": [{"function": {"name": "charge_card"}}]}
    usage = {"promptTokens": 40, "completionTokens": 60, "cacheReadTokens": 800}
    error = {"type": "ValueError", "message": "no such order"}
    ship = {"tool": "ship"}
    return [
        process.event("llm_thinking", 1, metadata={"step": "plan"}),
        tool_request(process, 2, 1, within=1, arguments={"amount": 4999, "currency": "usd"}, at=1),
        tool_response(process, 3, 2, about={"latencyMs": 8}, at=9),
        tool_request(process, 4, 1, within=1, tool="ship", arguments={"order": 8841}, at=10),
        process.event("error", 5, 4, within=4, metadata=ship, content=error, at=11),
        tool_response(
            process,
            6,
            4,
            tool="ship",
            results={"error": error},
            about={"latencyMs": 1, "outcome": "error"},
            at=11,
        ),
        process.event("step_end", 1, metadata={"step": "plan", "latencyMs": 12}, at=12),
        process.event("user_message", 7, 1, metadata={"function": "ask"}, at=20),
        process.event(
            "llm_thinking", 8, 7, within=7, metadata={"function": "ask"}, content={"thinking": "Hm"}, at=600
        ),
        process.event(
            "llm_response",
            9,
            7,
            within=7,
            metadata={"function": "ask", "model": "gpt-4o", "latencyMs": 640, "usage": usage},
            content=answer,
            at=660,
        ),
        process.event("trace_end", 1, 1, metadata={"latencyMs": 1200}, at=1200, end=True),
    ]


# Shape


def test_a_whole_trace() -> None:
    """Steps hold tools; errors, thinking and responses are part of their call's line."""
    assert (
        drawn(checkout())
        == """
checkout-8841 · shop · 1.2 s · 2 tools, 1 llm, 1 error · 900 tokens (95 % cache…
├─ ● plan                                                                  12 ms
│  ├─ ⚒ charge_card(amount=4999, currency="usd") → {"id": "ch_1"}           8 ms
│  └─ ✗ ship(order=8841)  ValueError: no such order                         1 ms
└─ ✦ ask gpt-4o  "I will …" → charge_card  840 in (800 cached) / 60 out   640 ms
"""
    )


def test_calls_inside_calls() -> None:
    """Everything hangs where its ``within`` says, a model's tools and a tool's models included."""
    process = Process()
    events = [
        process.event("user_message", 1, metadata={"function": "agent"}),
        tool_request(process, 2, 1, within=1, tool="search", arguments={"q": "x"}),
        process.event(
            "embedding_request", 3, 2, within=2, metadata={"function": "embed"}, content={"input": ["x"]}
        ),
        process.event(
            "embedding_response",
            4,
            3,
            within=3,
            metadata={"function": "embed", "model": "ada", "latencyMs": 5, "usage": {"totalTokens": 3}},
            content={"embeddingCount": 1, "firstEmbeddingDimensions": 2},
        ),
        tool_response(
            process, 5, 2, tool="search", results={"result": ["a", "b"]}, about={"latencyMs": 70_000}
        ),
        process.event(
            "llm_response",
            6,
            1,
            within=1,
            metadata={"function": "agent", "model": "m"},
            content={"content": "done"},
        ),
        process.event("error", 7, content={"message": "outside"}),
    ]

    assert (
        drawn(events)
        == """
checkout-8841 · shop · <1 ms · 1 tool, 1 llm, 1 error · 3 tokens
├─ ✦ agent m  "done"                                                       <1 ms
│  └─ ⚒ search(q="x") → ["a", "b"]                                      1 m 10 s
│     └─ ≡ embed ada(["x"]) → 1 x 2                          3 in / 0 out   5 ms
└─ ✗ error  outside
"""
    )


def test_events_recorded_by_hand() -> None:
    """An answer closes the message before it; what has no pair stands for itself."""
    process = Process()
    said = {"messages": [{"role": "user", "content": "Where is\n it?"}]}
    events = [
        process.event("llm_thinking", 1, content={"thinking": "Let me see"}),
        process.event("user_message", 2, 1, content=said),
        process.event("llm_response", 3, 2, metadata={"model": "gpt-4o"}, content={"content": "Here"}, at=7),
        process.event("user_message", 4, 3, content=said),
        tool_request(process, 5, 4),
        tool_response(process, 6, 5, within=0, at=3),
        process.event("tool_result", 7, 6, content={"toolName": "lookup", "output": {"a": 1}}),
        process.event("llm_response", 8, 6, metadata={"model": "gpt-4o"}),
        process.event("embedding_response", 9, content={"embeddingCount": 2}),
        tool_response(process, 10, 99, results={"error": {"message": "gone"}}),
        process.event("legacy", 11, content={"a": 1}),
        process.event("", 12) | {"content": None},
    ]

    assert (
        drawn(events)
        == """
checkout-8841 · shop · 7 ms · 2 tools, 2 llm, 1 error
├─ · thinking  "Let me see"
├─ ✦ gpt-4o  "Here"                                                         7 ms
├─ · user  "Where is it?"
├─ ⚒ charge_card(amount=4999) → {"id": "ch_1"}                              3 ms
├─ ✦ gpt-4o                                                                <1 ms
├─ ≡ embedding() → 2 x null
├─ ✗ charge_card()  gone
├─ · legacy  "{"a": 1}"
└─ · event
"""
    )


def test_calls_that_were_not_closed() -> None:
    """What goes on is told from what will never end, because its process has."""
    living, dead = Process(run="9f2c41aa01be-1"), Process("77aa00bb11cc", run="77aa00bb11cc-1")
    events = [
        living.event("llm_thinking", 1, metadata={"step": "plan", "input": {"n": 1}}),
        tool_request(living, 2, 1, within=1),
        dead.event(
            "user_message",
            3,
            metadata={"function": "ask"},
            content={"messages": [{"role": "user", "content": "Why?"}]},
        ),
        tool_request(dead, 4, 3, within=3, idempotencyKey="mine"),
        tool_request(Process(), 5, idempotencyKey="mine too"),
    ]
    tree = build(events, {"77aa00bb11cc"}.__contains__)

    assert (
        "\n" + render(tree) + "\n"
        == """
checkout-8841 · shop · <1 ms · 3 tools, 2 running, 3 unfinished, no errors
├─ ◌ plan({"n": 1})  running
│  └─ ◌ charge_card(amount=4999)  running
├─ ◌ ask  "Why?"  unfinished
│  └─ ◌ charge_card(amount=4999)  unfinished
└─ ◌ charge_card(amount=4999)  unfinished
"""
    )
    assert {node.process for node in tree.nodes} == {"9f2c41aa01be", "77aa00bb11cc"}


def test_calls_that_failed_or_were_cancelled() -> None:
    """A failure is told by a sign, a word and its message; how the trace itself ended comes last."""
    process = Process()
    error = {"type": "RuntimeError", "message": "429 slow down"}
    named = {"function": "ask", "model": "gpt-4o", "latencyMs": 3}
    events = [
        process.event("user_message", 1, metadata={"function": "ask"}),
        process.event("error", 2, 1, within=1, metadata=named, content=error),
        process.event("user_message", 3, 1, metadata={"function": "ask"}),
        process.event("llm_response", 4, 3, within=3, metadata={**named, "outcome": "cancelled"}),
        tool_request(process, 5, 3),
        tool_response(process, 6, 5, results={"cancelled": True}, about={"outcome": "cancelled"}),
        tool_request(process, 7, 5),
        process.event("error", 8, 7, within=7, content={"message": "by hand"}),
        tool_response(process, 9, 7),
        tool_request(process, 10, 7),
        process.event("error", 11, 10, within=10, metadata={"tool": "charge_card"}),
        tool_response(process, 12, 10),
        process.event("llm_thinking", 13, 12, metadata={"step": "wait"}),
        process.event(
            "step_end", 13, metadata={"step": "wait", "outcome": "error"}, content={"error": error}
        ),
        process.event("trace_end", 1, metadata={"outcome": "error"}, content={"error": error}),
        process.event("trace_end", 1, metadata={"outcome": "cancelled"}),
    ]

    assert (
        drawn(events)
        == """
checkout-8841 · shop · <1 ms · 3 tools, 2 llm, 3 errors
├─ ✗ ask gpt-4o  RuntimeError: 429 slow down                                3 ms
├─ ⊘ ask gpt-4o  cancelled                                                  3 ms
├─ ⊘ charge_card(amount=4999)  cancelled                                   <1 ms
├─ ⚒ charge_card(amount=4999) → {"id": "ch_1"}                             <1 ms
│  └─ ✗ error  by hand
├─ ✗ charge_card(amount=4999)  failed                                      <1 ms
├─ ✗ wait  RuntimeError: 429 slow down                                     <1 ms
├─ ✗ trace  RuntimeError: 429 slow down
└─ ⊘ trace  cancelled
"""
    )


@pytest.mark.parametrize("kind", ["step_end", "trace_end"])
def test_a_failure_that_no_event_tells_of_counts_as_an_error(kind: str) -> None:
    """A header never says that all is well when it is not."""
    tree = build([Process().event(kind, 1, metadata={"outcome": "error", "step": "plan"})])

    assert tree.errors == 1


def test_a_step_whose_beginning_was_lost() -> None:
    """Its end tells its name and times as well, and what ran in it hangs below it."""
    process = Process()
    about = {"step": "plan", "startedAt": "2026-11-21T22:29:00.000Z", "latencyMs": 60_000}
    events = [
        process.event("step_end", 1, metadata=about, content={"output": 3}),
        tool_request(process, 2, 1, within=1),
    ]
    tree = build(events)

    assert [(node.name, node.started, node.result, node.status) for node in tree.nodes] == [
        ("plan", "2026-11-21T22:29:00.000Z", "3", "ok")
    ]
    assert [node.name for node in tree.nodes[0].children] == ["charge_card"]


def test_processes_that_used_the_same_numbers() -> None:
    """Each call is closed by the response of its own run; a child of another run hangs on the later call."""
    one, two = Process(run="9f2c41aa01be-1"), Process("77aa00bb11cc", run="77aa00bb11cc-1")
    events = [
        tool_request(one, 1, tool="one"),
        tool_request(two, 1, tool="two"),
        tool_response(one, 2, 1, tool="one", results={"result": 1}),
        tool_response(two, 2, 1, tool="two", results={"result": 2}),
        Process(run="cccccccccccc-1").event("error", 3, within=1),
        one.event("error", 4, 4, within=4),
        one.event("error", 5, 5, within=6),
        one.event("error", 6, 6, within=5),
    ]

    assert (
        drawn(events)
        == """
checkout-8841 · shop · <1 ms · 2 tools, 4 errors
├─ ⚒ one(amount=4999) → 1                                                  <1 ms
├─ ⚒ two(amount=4999) → 2                                                  <1 ms
│  └─ ✗ error  failed
├─ ✗ error  failed
└─ ✗ error  failed
   └─ ✗ error  failed
"""
    )


# What turns cost


def turn(
    process: Process, step: int, prompt: int, model: str = "gpt-4o", **about: Any
) -> list[dict[str, Any]]:
    """Return the question to a model and its answer, which took so many tokens."""
    usage = {"usage": {"promptTokens": prompt, "completionTokens": 60, "cacheReadTokens": 800}}
    named = {"function": "ask", "model": model, "provider": "openai", "latencyMs": 640}
    return [
        process.event("user_message", step, metadata={"function": "ask"}),
        process.event("llm_response", step + 1, step, metadata={**named, **usage, **about}),
    ]


def price(prompt: int) -> float:
    """Return what such a turn costs, by the price data."""
    usage = {"promptTokens": prompt, "completionTokens": 60, "cacheReadTokens": 800}
    amount = cost("gpt-4o", "openai", usage, "2026-11-21T22:30:00.000Z")
    assert amount is not None
    return float(amount)


def test_turns_and_their_trace_have_a_cost() -> None:
    """At the right of the tokens, and in the header their sum."""
    process = Process()
    events = [*turn(process, 1, 40), *turn(process, 3, 4_000), *turn(process, 5, 0, usage=None, wraps=True)]
    tree = build(events, priced=True)
    header, *lines = render(tree, width=100).split("\n")

    assert [node.cost for node in tree.nodes] == [price(40), price(4_000), None]
    assert tree.cost is not None
    assert tree.cost == pytest.approx(price(40) + price(4_000), rel=1e-12)
    assert header.endswith(f", no errors · {dollars(tree.cost)} · 5,760 tokens (28 % cached)")
    assert lines[0].endswith(f"  840 in (800 cached) / 60 out   {dollars(price(40))}   640 ms")
    assert lines[2].endswith("  640 ms")
    assert "$" not in lines[2]


def test_a_turn_whose_price_nobody_knows_leaves_the_trace_without_a_figure() -> None:
    """The other turns keep theirs: a part is never passed off as the whole."""
    process = Process()
    tree = build([*turn(process, 1, 40), *turn(process, 3, 40, model="tomorrow")], priced=True)
    header, *lines = render(tree, width=100).split("\n")

    assert (tree.cost, [node.cost for node in tree.nodes]) == (None, [price(40), None])
    assert "$" not in header
    assert [line.count("$") for line in lines] == [1, 0]


def test_an_embedding_has_a_cost() -> None:
    """Of all its tokens."""
    about = {"model": "text-embedding-3-small", "provider": "openai", "usage": {"totalTokens": 3_000_000}}
    tree = build([Process().event("embedding_response", 1, metadata=about)], priced=True)

    assert tree.cost == tree.nodes[0].cost
    assert tree.cost is not None
    assert tree.cost > 0


def test_nothing_is_priced_unless_it_is_asked_for() -> None:
    """A program that prints its traces would have to load the price data."""
    tree = build(turn(Process(), 1, 40))

    assert (tree.cost, tree.nodes[0].cost) == (None, None)


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (79, "840 in (800 cached) / 60 out   {}   640 ms"),
        (60, "─ ✦ ask gpt-4o                             {}   640 ms"),
        (20, "└─ ✦ ask gp…  640 ms"),
    ],
)
def test_where_there_is_no_room_the_tokens_go_first_and_then_the_dollars(width: int, shown: str) -> None:
    """The time is always there."""
    line = render(build(turn(Process(), 1, 40), priced=True), width=width).split("\n")[1]

    assert line.endswith(shown.format(dollars(price(40))))


# Which turn asked for a call


def asked(
    process: Process, step: int, by: int, within: int = 0, tool: str = "look_up"
) -> list[dict[str, Any]]:
    """Return a tool call that the answer with the step *by* asked for."""
    request = tool_request(process, step, step - 1, within=within, tool=tool)
    request["metadata"]["requestedBy"] = by
    return [request, tool_response(process, step + 1, step, tool=tool)]


def test_what_wraps_a_clients_turn_is_no_answer_of_its_own() -> None:
    """It is drawn, and not counted."""
    process = Process()
    events = [*turn(process, 1, 40), process.event("llm_response", 3, metadata={"model": "m", "wraps": True})]

    assert build(events).llm_responses == 1
    assert [node.name for node in build(events).nodes] == ["ask", "m"]


def test_a_tool_names_the_turn_that_asked_for_it() -> None:
    """Both have the step of the answer."""
    process = Process()
    events = [
        process.event("llm_thinking", 1, metadata={"step": "think"}),
        *turn(process, 2, 40, content={}),
        process.event("llm_thinking", 4, metadata={"step": "act"}),
        *asked(process, 5, by=3, within=4, tool="plain"),
        *asked(process, 7, by=3, within=4, tool="research"),
        *turn(process, 9, 40),
        *asked(process, 11, by=10),
        *asked(process, 13, by=3, tool="refund"),
    ]
    events[7]["metadata"]["within"] = events[8]["metadata"]["within"] = 0

    assert (
        drawn(events, width=60)
        == """
checkout-8841 · shop · <1 ms · 4 tools, 2 llm, 2 running, n…
├─ ◌ think  running
├─ ✦ ask gpt-4o #3                                    640 ms
├─ ◌ act  running
│  ├─ ⚒ plain(amount=4999) ← #3 → {"id": "ch_1"}       <1 ms
│  └─ ⚒ research(amount=4999) ← #3 → {"id": "ch_1"}    <1 ms
├─ ✦ ask gpt-4o #10                                   640 ms
├─ ⚒ look_up(amount=4999) ← #10 → {"id": "ch_1"}       <1 ms
└─ ⚒ refund(amount=4999) ← #3 → {"id": "ch_1"}         <1 ms
"""
    )


def test_a_tool_may_begin_before_the_turn_that_asked_for_it_ends() -> None:
    """As soon as a stream has told all of the call, and so may an agent."""
    process = Process()
    asks, answer = turn(process, 1, 40)
    about = {"step": "guide", "kind": "agent", "requestedBy": 4}
    agent = process.event("llm_thinking", 3, 1, metadata=about)
    answer["stepId"] = 4
    tree = build([asks, *asked(process, 2, by=4)[:1], agent, answer])

    assert [node.asked_by for node in tree.nodes] == [None, tree.nodes[0], tree.nodes[0]]


def test_the_number_of_a_turn_is_kept_where_a_line_is_short_and_in_ascii() -> None:
    """What it was given is shortened first."""
    process = Process()
    events = [*turn(process, 1, 40), *turn(process, 3, 40), *asked(process, 5, by=2)]
    lines = render(build(events), width=40, ascii_only=True).split("\n")

    assert lines[1].startswith("|- @ ask gpt-4o #2 ")
    assert lines[3].startswith("`- * look_up(")
    assert ") < #2 > " in lines[3]


@pytest.mark.parametrize("by", [1, 3, 99, 0, -2, "2", None, [2]])
def test_what_names_no_answer_marks_nothing(by: Any) -> None:
    """A question is no answer, and a number that is in no trace says nothing."""
    process = Process()
    events = [*turn(process, 1, 40), *turn(process, 3, 40), *asked(process, 5, by=by)]
    tree = build(events)

    assert tree.nodes[2].asked_by is None
    assert "#" not in render(tree)


def test_an_answer_recorded_by_hand_asks_for_calls_too() -> None:
    """It is its own line then."""
    process = Process()
    events = [
        process.event("llm_response", 1, metadata={"model": "gpt-4o"}),
        process.event("llm_response", 2, 1, metadata={"model": "gpt-4o"}),
        *asked(process, 3, by=1),
    ]
    tree = build(events)

    assert tree.nodes[2].asked_by is tree.nodes[0]
    assert [node.answer for node in tree.nodes] == [1, 2, 0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KINDS = [
    *(
        "tool_call_request",
        "tool_call_response",
        "user_message",
        "tool_result",
        "llm_response",
        "llm_thinking",
    ),
    *("error", "embedding_request", "embedding_response", "step_end", "trace_end", "other"),
]
MEMBERS = {
    "eventType": st.sampled_from(KINDS) | JSON,
    "stepId": st.integers(0, 6) | JSON,
    "parentStepId": st.integers(0, 6) | JSON,
    "run": st.sampled_from(["9f2c41aa01be-1", "77aa00bb11cc-1"]) | JSON,
    "metadata": JSON
    | st.fixed_dictionaries(
        {"within": st.integers(0, 6) | JSON},
        optional={
            name: st.sampled_from(["error", "a"]) | JSON
            for name in ("tool", "function", "step", "outcome", "latencyMs", "usage", "model", "input")
        }
        | {"requestedBy": st.integers(0, 6) | JSON, "provider": JSON, "wraps": JSON},
    ),
    "content": JSON
    | st.fixed_dictionaries(
        {},
        optional={
            name: JSON
            | st.lists(st.fixed_dictionaries({"name": JSON, "arguments": JSON, "function": JSON}), max_size=2)
            for name in (
                "toolCalls",
                "toolResults",
                "messages",
                "content",
                "output",
                "error",
                "message",
                "thinking",
            )
        },
    ),
    **dict.fromkeys(("traceId", "timestamp", "idempotencyKey", "agentName"), JSON),
}


@given(st.lists(st.fixed_dictionaries({}, optional=MEMBERS), max_size=8), st.integers(8, 100))
def test_records_of_any_shape_make_a_tree(events: list[dict[str, Any]], width: int) -> None:
    """Whatever the records hold: no error, one line for each node, none too long, nothing unprintable."""
    for ascii_only in (False, True):
        lines = render(build(events, priced=True), width=width, ascii_only=ascii_only).split("\n")

        assert len(lines) <= len(events) + 1
        assert all(cells(line) <= width and line.isprintable() for line in lines)
        assert not ascii_only or all(line.isascii() for line in lines)


def test_a_deep_trace() -> None:
    """A thousand levels need no recursion, and the last ones are shown."""
    process = Process()
    events = [
        process.event("llm_thinking", step, step - 1, within=step - 1, metadata={"step": f"level {step}"})
        for step in range(1, 1001)
    ]
    lines = drawn(events, width=40).split("\n")

    assert len(lines) == 1003
    assert lines[6:9] == [
        "            └─ ◌ level 5  running",
        "               └─ ◌ level 6  running",
        "⋯              └─ ◌ level 7  running",
    ]
    assert lines[-2] == "⋯              └─ ◌ level 1000  running"


def test_a_long_trace() -> None:
    """Ten thousand events are no trouble."""
    process = Process()
    events = [
        event
        for step in range(1, 10_001, 2)
        for event in (tool_request(process, step), tool_response(process, step + 1, step))
    ]

    assert drawn(events).count("charge_card(amount=4999)") == 5000


def test_a_trace_without_events() -> None:
    """There is nothing to say, and nothing breaks."""
    assert render(TraceTree()) == " · no errors"
    assert build([]) == TraceTree()


# Look


def test_a_narrow_terminal_shortens_and_never_wraps() -> None:
    """Names and outcomes share what room there is; costs are reduced to the time."""
    assert (
        drawn(checkout(), width=42)
        == """
checkout-8841 · shop · 1.2 s · 2 tools, 1…
├─ ● plan                            12 ms
│  ├─ ⚒ charge_card(amou…) → {"id":…  8 ms
│  └─ ✗ ship(order=…)  ValueError: …  1 ms
└─ ✦ ask gpt-4o  "I wi…" → charge…  640 ms
"""
    )


def test_colour_adds_nothing_but_colour() -> None:
    """Errors are red as well as marked; without the escapes the text is the same."""
    coloured = drawn(checkout(), color=True)

    assert ESCAPES.sub("", coloured) == drawn(checkout())
    assert "\x1b[31m✗ ship\x1b[0m\x1b[31m(order=8841)  ValueError: no such order\x1b[0m" in coloured
    assert "\x1b[2m12 ms\x1b[0m" in coloured


def test_what_cannot_be_encoded_is_drawn_in_ascii() -> None:
    """Columns stay where they are."""
    assert (
        drawn(checkout(), ascii_only=True)
        == """
checkout-8841 - shop - 1.2 s - 2 tools, 1 llm, 1 error - 900 tokens (95 % cache~
|- o plan                                                                  12 ms
|  |- * charge_card(amount=4999, currency="usd") > {"id": "ch_1"}           8 ms
|  `- x ship(order=8841)  ValueError: no such order                         1 ms
`- @ ask gpt-4o  "I will ~" > charge_card  840 in (800 cached) / 60 out   640 ms
"""
    )
    assert [fits(encoding) for encoding in ("utf-8", None, "ascii", "latin-1", "nonsense")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_texts_of_a_trace_do_nothing_to_the_terminal() -> None:
    """Escapes, controls, line breaks and marks that turn the direction of text are shown, not obeyed."""
    process = Process(trace="\x1b]0;owned\x07")
    hostile = "a\x1b[31m\r\nb\x9b2J\u202ec\u2028d\x00e\ud800f\x7f"
    events = [
        tool_request(process, 1, tool=hostile, arguments={hostile: hostile}, agentName=hostile),
        process.event("error", 2, content={"type": hostile, "message": hostile}),
        process.event("llm_thinking", 3, metadata={"step": hostile}),
        process.event("user_message", 4, content={"messages": [{"role": "user", "content": hostile}]}),
    ]

    assert (
        drawn(events, width=120)
        == r"""
\x1b]0;owned\x07 · a\x1b[31m  b\x9b2J\u202ec d\x00e\ud800f\x7f · <1 ms · 1 tool, 1 error, 2 running
├─ ◌ a\x1b[31m b\x9b2J\u202ec d\x00e\ud800f\x7f(a\x1b[31m b\x9b2J\u202ec d\x00e\ud800f\x7f="a\u001b[31m\r\nb\…)  running
├─ ✗ error  a\x1b[31m b\x9b2J\u202ec d\x00e\ud800f\x7f
├─ ◌ a\x1b[31m b\x9b2J\u202ec d\x00e\ud800f\x7f  running
└─ · user  "a\x1b[31m b\x9b2J\u202ec d\x00e\ud800f\x7f"
"""
    )


def test_wide_characters_keep_the_columns() -> None:
    """A character that takes two columns counts as two; combining ones never make a line too long."""
    process = Process()
    events = [
        tool_request(process, 1, tool="検索", arguments={"q": "東京" * 40}),
        tool_response(process, 2, 1, results={"result": "e\u0301" * 300}, about={"latencyMs": 1}),
    ]
    lines = drawn(events, width=60).split("\n")

    assert lines[2].startswith('└─ ⚒ 検索(q="東京東京')
    assert cells(lines[2]) == 60
    assert lines[2].endswith("1 ms")


def test_the_id_of_a_trace_makes_room_for_its_numbers() -> None:
    """A long id is shortened first, to sixteen characters at the least: enough to find it again."""
    process = Process(trace="0123456789abcdef0123456789abcdef")

    assert render(build([tool_request(process, 1)]), width=64).split("\n")[0] == (
        "0123456789abcdef0… · shop · <1 ms · 1 tool, 1 running, no errors"
    )


class Terminal(io.TextIOWrapper):
    """A terminal of an encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, newline="")

    def isatty(self) -> bool:
        """Return True."""
        return True

    def text(self) -> str:
        """Return what was written, decoded."""
        self.seek(0)
        return self.read()


@pytest.mark.parametrize(
    ("encoding", "variables", "coloured", "tool"),
    [
        ("utf-8", {}, True, "⚒"),
        ("utf-8", {"NO_COLOR": "1"}, False, "⚒"),
        ("utf-8", {"NO_COLOR": ""}, True, "⚒"),
        ("utf-8", {"TERM": "dumb"}, False, "⚒"),
        ("latin-1", {}, True, "*"),
    ],
)
def test_a_tree_is_written_as_the_stream_can_take_it(
    monkeypatch: pytest.MonkeyPatch, encoding: str, variables: dict[str, str], coloured: bool, tool: str
) -> None:
    """Colour is for terminals that want it; the width is the terminal's, within reason."""
    for variable in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(variable, raising=False)
    for name, content in {"COLUMNS": "500", **variables}.items():
        monkeypatch.setenv(name, content)
    stream = Terminal(encoding)
    write_tree(build(checkout()), stream)
    written = stream.text()

    assert ("\x1b[" in written) is coloured
    assert f" {tool} charge_card" in ESCAPES.sub("", written).replace("\x1b", "")
    assert {len(line) for line in ESCAPES.sub("", written).split("\n")[1:-1]} == {120}


def test_a_stream_without_encoding_takes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no terminal gets plain text, a hundred columns wide if nobody says otherwise."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda _descriptor: (_ for _ in ()).throw(OSError()))
    stream = io.StringIO()
    write_tree(build(checkout()), stream)

    assert stream.getvalue() == render(build(checkout()), width=100) + "\n"


# Texts


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "<1 ms"),
        (0.99, "<1 ms"),
        (1, "1 ms"),
        (8.4, "8 ms"),
        (999.4, "999 ms"),
        (999.5, "1.0 s"),
        (1240, "1.2 s"),
        (59_940, "59.9 s"),
        (59_950, "1 m 00 s"),
        (123_400, "2 m 03 s"),
        (3_599_400, "59 m 59 s"),
        (3_599_500, "1 h 00 m"),
        (36_000_000, "10 h 00 m"),
    ],
)
def test_durations_are_readable(ms: float, text: str) -> None:
    """Never more than three digits, and no rounding up to a unit that is full."""
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0"),
        (1234.5, "$1,234.50"),
        (1, "$1.00"),
        (0.5, "$0.5000"),
        (0.0123, "$0.0123"),
        (0.01, "$0.0100"),
        (0.00999, "$0.0100"),
        (0.00123, "$0.0012"),
        (0.000123, "$0.00012"),
        (0.0000001, "$0.00000010"),
    ],
)
def test_amounts_are_readable(amount: float, text: str) -> None:
    """Cents from a dollar on, four decimals below, and below a cent always two digits that say something."""
    assert dollars(amount) == text


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
        ("abc", -1, ""),
        ("東京", 4, "東京"),
        ("東京", 3, "東…"),
        ("東京", 2, "…"),
    ],
)
def test_texts_are_shortened_to_columns(text: str, width: int, shown: str) -> None:
    """The ellipsis is part of the width."""
    assert shorten(text, width) == shown


@given(st.text(max_size=60), st.integers(1, 40))
def test_excerpts_are_short_single_lines(text: str, limit: int) -> None:
    """White space becomes single spaces; a longer text ends in an ellipsis."""
    short = excerpt(text, limit)

    assert len(short) <= limit
    assert short == " ".join(text.split()) or short.endswith("…")
    assert clean(short).isprintable()


def test_an_excerpt_of_a_long_text_says_that_there_is_more() -> None:
    """Also if all that was looked at is white space."""
    assert excerpt("word" + " " * 1000 + "more", 10) == "word…"
    assert excerpt("word " * 1000, 10) == "word word…"


def test_odd_values_have_no_duration_and_no_tokens() -> None:
    """What is not a number, or no time, is left out."""
    assert [number(thing) for thing in (3, 2.5, True, -1, "3", None)] == [3, 2.5, None, None, None, None]
    assert elapsed("2026-11-21T22:30:01.000Z", "2026-11-21T22:30:00.000Z") == 0
    assert [elapsed(odd, "2026-11-21T22:30:00.000Z") for odd in (None, "", "soon", 3)] == [None] * 4
    assert Tokens.of("many") == Tokens.of({"promptTokens": "3", "completionTokens": 2**41}) == Tokens()


def test_a_value_too_deep_for_json_is_an_ellipsis() -> None:
    """A record comes from a file, and a file may hold anything."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert value(deep) == "…"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"type": "A", "message": "a"}, "A: a"),
        ({"type": "A", "message": "a", "cause": {"type": "B", "message": "b"}}, "A: a; because of B: b"),
        ({"type": "A", "message": "a", "context": {"type": "B", "message": ""}}, "A: a; while handling B"),
        ({"type": "A", "message": "a", "notes": ["n", 5, "m"]}, "A: a; note: n; note: m"),
        (
            {
                "message": "a",
                "cause": {
                    "message": "b",
                    "cause": {"message": "c", "cause": {"message": "d", "cause": {"message": "e"}}},
                },
            },
            "a; because of b; because of c; because of d",
        ),
        (
            {
                "message": "g",
                "exceptions": [{"message": "h", "exceptions": [{"message": str(n)} for n in range(5)]}],
            },
            "g; in it 0, 1, 2 and 2 more",
        ),
        ({"message": "a", "cause": "b", "context": 5, "exceptions": {"a": 1}, "notes": "n"}, "a"),
        ("a", "a"),
        (None, ""),
    ],
)
def test_an_error_is_told_with_what_is_behind_it(error: Any, told: str) -> None:
    """Briefly: what it came from, what is in it and its notes."""
    assert problem(error) == told


def test_a_stack_has_the_stacks_behind_it_below() -> None:
    """Each under the name of its exception."""
    inner = {"type": "C", "message": "c", "stack": "in third"}
    error = {
        "stack": "in first",
        "cause": {"type": "B", "message": "b", "stack": "in second", "exceptions": [inner]},
        "context": {"type": "D", "message": "d"},
    }

    assert raised_at(error) == "in first\n\nB: b\nin second\n\nC: c\nin third"
    assert raised_at({"cause": "b"}) == ""


def test_what_ended_with_an_exception_that_is_no_failure_says_so() -> None:
    """A call or a step; neither of them failed."""
    process = Process()
    ended = {"latencyMs": 2, "outcome": "Paused"}
    raised = {"raised": {"type": "app.Paused", "message": "until noon"}}
    tree = [
        process.event("llm_thinking", 1, metadata={"step": "plan"}),
        tool_request(process, 2, 1, within=1, tool="ask", at=1),
        tool_response(process, 3, 2, tool="ask", results=raised, about=ended, at=3),
        process.event("step_end", 1, metadata={"step": "plan", **ended}, content=raised, at=3),
        process.event("trace_end", 1, 1, metadata=ended, content=raised, at=3, end=True),
    ]

    assert (
        drawn(tree)
        == """
checkout-8841 · shop · 3 ms · 1 tool, no errors
└─ ● plan → raised app.Paused: until noon                                   2 ms
   └─ ⚒ ask(amount=4999) → raised app.Paused: until noon                    2 ms
"""
    )
