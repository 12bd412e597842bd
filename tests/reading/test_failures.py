"""Calls that failed, however that was recorded: every reader says so, and of the same call."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lines import Process, encoded
from readers import Event, Told, agree, collect, sent

from whyops_trace import WhyOps, traced_llm, traced_tool
from whyops_trace._reading.ongoing import Ongoing
from whyops_trace._reading.record import head_of
from whyops_trace._reading.summary import TraceSummary
from whyops_trace.store import Store
from whyops_trace.tree import Node
from whyops_trace.types import MessageItem

USER: list[MessageItem] = [{"role": "user", "content": "Why?"}]
DOWN = {"message": "down"}
MODEL = {"model": "m", "provider": "p"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with nothing in it."""
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        yield store


def shown(nodes: list[Node]) -> list[tuple[str, str, str]]:
    """Return kind, status and error of nodes."""
    return [(node.kind, node.status, node.error) for node in nodes]


def figures(told: Told) -> dict[str, tuple[int, int]]:
    """Return the numbers of calls and failures of each tool and model."""
    return {each.name: (each.calls, each.errors) for each in [*told.figures.tools, *told.figures.models]}


def test_a_turn_by_hand_that_failed_and_was_answered_has_been_answered(tmp_path: Path) -> None:
    """It is one turn; the error stands beside it."""
    with WhyOps(agent_name="x", home=tmp_path) as sdk:
        trace = sdk.trace("t")
        trace.user_message_sync(USER)
        trace.error_sync("down")
        trace.llm_response_sync("m", "p", "Because.")
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        told = Told(store)
        agree(store)

    assert shown(told.tree.nodes) == [("llm", "ok", ""), ("event", "error", "down")]
    assert figures(told) == {"m": (1, 0)}
    assert [(turn.failure, turn.text) for turn in told.found.turns] == [("", "Because.")]
    assert (told.story.ended, told.summary.ended_with, told.summary.failed) == ("Because.", "Because.", False)
    assert told.story.status == "answered: 1 call failed, recovered"


def test_a_turn_whose_finish_reason_is_error_failed(tmp_path: Path) -> None:
    """Providers that break off an answer say so in it."""
    with WhyOps(agent_name="x", home=tmp_path) as sdk:
        trace = sdk.trace("t")
        trace.user_message_sync(USER)
        trace.llm_response_sync("m", "p", "Beca", finish_reason="error", usage={"completionTokens": 3})
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        told = Told(store)
        agree(store)

    assert shown(told.tree.nodes) == [("llm", "error", "failed")]
    assert figures(told) == {"m": (1, 1)}
    assert told.figures.models[0].completion_tokens == 3
    assert (told.story.ended_reason, told.summary.failed, told.summary.errors) == ("error", True, 1)


@pytest.mark.parametrize(
    ("kind", "about"),
    [("tool_call", {"tool": "a"}), ("embedding", {"function": "embed", "model": "a"})],
)
def test_an_outcome_of_error_is_a_failure_whatever_the_result(store: Store, kind: str, about: Event) -> None:
    """A result may be what the failure left."""
    collect(
        store,
        [
            sent(f"{kind}_request", 1, "A", **about),
            sent(f"{kind}_response", 2, "A", outcome="error", **about),
        ],
    )
    told = Told(store)

    assert [(node.status, node.error) for node in told.tree.nodes] == [("error", "failed")]
    assert figures(told) == {"a": (1, 1)}
    assert told.summary.failed
    agree(store)


def test_a_turn_and_a_step_whose_outcome_is_error_failed(store: Store) -> None:
    """Though their contents are plain."""
    process = Process("9f2c41aa01be", "t", run="9f2c41aa01be-1")
    events = [
        process.event("llm_thinking", 1, metadata={"step": "plan"}, spanId="span_0"),
        process.event("user_message", 2, 1, within=1, metadata={"function": "ask"}, spanId="span_0"),
        process.event(
            "llm_response",
            3,
            2,
            within=2,
            metadata={"function": "ask", "outcome": "error", **MODEL},
            spanId="span_0",
        ),
        process.event("step_end", 1, metadata={"step": "plan", "outcome": "error"}, content={"output": 3}),
    ]
    store.ingest((process.token, [encoded(event) for event in events]))
    told = Told(store)

    assert shown(told.tree.nodes + told.tree.nodes[0].children) == [
        ("step", "error", "failed"),
        ("llm", "error", "failed"),
    ]
    assert figures(told) == {"m": (1, 1)}
    agree(store)


def test_a_tool_that_recorded_its_error_has_ended(store: Store) -> None:
    """Without a response, which a WhyOps server misses all the same."""
    collect(
        store,
        [sent("tool_call_request", 1, "A", tool="a"), sent("error", 3, "B", tool="a", content=DOWN)],
    )
    told = Told(store)

    assert [(*shown([node])[0], node.latency_ms) for node in told.tree.nodes] == [
        ("tool", "error", "down", 2000)
    ]
    assert (figures(told), told.summary.open_calls) == ({"a": (1, 1)}, 0)
    assert "MISSING_TOOL_CALL_RESPONSE" in [one.code for one in told.findings]
    agree(store)


@pytest.mark.parametrize("span", ["B", ""])
def test_an_error_that_names_its_tool_belongs_to_the_call_that_is_open(store: Store, span: str) -> None:
    """By its span, else by the name; what a server takes for its parent came between."""
    collect(
        store,
        [
            sent("tool_call_request", 1, "A", tool="a"),
            sent("tool_call_response", 2, "A", tool="a"),
            sent("tool_call_request", 3, "B", tool="a"),
            sent("tool_call_request", 4, "C", tool="a" if span else "b"),
            sent("user_message", 5),
            sent("error", 6, span, tool="a", content=DOWN),
            sent("tool_call_response", 7, "B", tool="a"),
        ],
    )
    told = Told(store)

    assert [node.status for node in told.tree.nodes] == ["ok", "error", "running", "ok"]
    assert [call.failure for call in told.found.tools] == ["", "down", ""]
    agree(store)


def test_an_error_of_a_tool_without_a_request_is_an_event(store: Store) -> None:
    """Nobody knows which call it is of, and a response without a request is one."""
    collect(store, [sent("error", 1, tool="a", content=DOWN), sent("tool_call_response", 2, "A", tool="a")])
    told = Told(store)

    assert shown(told.tree.nodes) == [("event", "error", "down"), ("tool", "ok", "")]
    assert figures(told) == {"a": (1, 0)}
    agree(store)


@pytest.mark.parametrize("answers", [True, False])
def test_an_error_by_hand_right_after_the_request_of_a_tool_is_its_own(tmp_path: Path, answers: bool) -> None:
    """Whether a response follows or not."""
    with WhyOps(agent_name="x", home=tmp_path) as sdk:
        trace = sdk.trace("t")
        span = trace.tool_call_request_sync("a", [{"name": "a", "arguments": {}}])
        trace.error_sync("down", stack="in a")
        if answers:
            trace.tool_call_response_sync("a", span, [{"name": "a", "arguments": {}}], {"error": DOWN})
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        told = Told(store)
        agree(store)

    assert shown(told.tree.nodes) == [("tool", "error", "down")]
    assert (figures(told), told.story.failed) == ({"a": (1, 1)}, 1)
    (use,) = told.story.sections[0].uses
    assert use.stack == "in a"


def test_an_embedding_by_hand_that_failed_is_no_turn(tmp_path: Path) -> None:
    """It has ended, and counts as a call of an embedding model."""
    with WhyOps(agent_name="x", home=tmp_path) as sdk:
        trace = sdk.trace("t")
        trace.embedding_request_sync(["a"])
        trace.error_sync("down")
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        told = Told(store)
        agree(store)

    assert shown(told.tree.nodes) == [("embedding", "error", "down")]
    assert (told.tree.llm_responses, told.summary.llm_responses, told.summary.open_calls) == (0, 0, 0)
    assert figures(told) == {"unknown": (1, 1)}


def test_an_error_of_a_traced_function_whose_request_is_missing_is_a_turn(store: Store) -> None:
    """It is shown as one, as it is counted as one."""
    collect(store, [sent("error", 1, function="ask", content=DOWN, **MODEL)])
    told = Told(store)

    assert [(node.name, *shown([node])[0]) for node in told.tree.nodes] == [("ask", "llm", "error", "down")]
    assert figures(told) == {"m": (1, 1)}
    agree(store)


@pytest.mark.parametrize("by_span", [True, False])
def test_two_messages_at_once_by_hand_have_their_own_answers(store: Store, by_span: bool) -> None:
    """Where spans or parents tell which."""
    spans = ("A", "B") if by_span else ("", "")
    events = [
        {**sent("user_message", 1, spans[0]), "stepId": 1},
        {**sent("user_message", 2, spans[1]), "stepId": 2},
        {**sent("llm_response", 3, spans[0], **MODEL), "stepId": 3, "parentStepId": 3 if by_span else 1},
        {**sent("llm_response", 5, spans[1], **MODEL), "stepId": 4, "parentStepId": 3 if by_span else 2},
    ]
    collect(store, events, 1)

    assert [(node.step, node.response) for node in Told(store).tree.nodes] == [(1, 3), (2, 4)]
    agree(store)


@pytest.mark.parametrize("size", [1, 50])
def test_a_message_that_another_one_follows_waits_for_no_answer(store: Store, size: int) -> None:
    """It failed, and the answers after the next message are those of the next, and of no message."""
    kinds = (
        "user_message",
        "error",
        "user_message",
        "llm_response",
        "tool_result",
        "llm_thinking",
        "llm_response",
    )
    about: dict[str, Event] = {"llm_response": MODEL}
    events = [sent(kind, second, **about.get(kind, {})) for second, kind in enumerate(kinds, 1)]
    events[4] |= {"eventType": "tool_call_request", "metadata": {"tool": "a"}}
    collect(store, events, size)
    told = Told(store)

    assert [(node.step, node.response) for node in told.tree.nodes if node.kind == "llm"] == [
        (1, 2),
        (3, 4),
        (7, 7),
    ]
    assert told.summary.llm_responses == 3
    agree(store)


def test_a_cancelled_turn_is_no_success(store: Store) -> None:
    """A model that failed, and was cancelled after it, never worked."""
    failed = [
        {**sent("error", n, function="ask", content=DOWN, **MODEL), "idempotencyKey": f"e{n}"}
        for n in range(3)
    ]
    collect(store, [*failed, sent("llm_response", 9, function="ask", outcome="cancelled", **MODEL)])
    told = Told(store)
    (finding,) = (one for one in told.findings if one.code == "REPEATED_FAILURE")

    assert finding.evidence["recovered"] is False
    agree(store)


def test_a_call_that_failed_is_not_cancelled(store: Store) -> None:
    """A tool that recorded its error, and whose response says that it was cancelled."""
    collect(
        store,
        [
            sent("tool_call_request", 1, "A", tool="a"),
            sent("error", 2, "A", tool="a", content=DOWN),
            sent("tool_call_response", 3, "A", tool="a", outcome="cancelled"),
        ],
    )
    told = Told(store)

    assert shown(told.tree.nodes) == [("tool", "error", "down")]
    assert not told.found.tools[0].is_cancelled
    agree(store)


@pytest.mark.parametrize(
    "about",
    [{"within": None}, {"within": "1"}, {"within": 2**70}, {"within": -1}, {"ranAt": None}, {"wraps": None}],
)
def test_strange_metadata_of_another_client_changes_no_figure(store: Store, about: dict[str, Any]) -> None:
    """Its records count as all others do."""
    collect(
        store,
        [
            sent("tool_call_request", 1, "A", tool="a"),
            sent(
                "tool_call_response",
                3,
                "A",
                tool="a",
                content={"toolResults": {"error": {**DOWN, "n": "huge"}}},
                **about,
            ),
        ],
    )
    told = Told(store)

    assert [(each.calls, each.errors, each.p50_ms) for each in told.figures.tools] == [(1, 1, 2000)]
    assert told.summary.failed
    agree(store)


def test_errors_that_belong_to_no_call_are_not_kept_for_good() -> None:
    """Whatever is kept to pair later records is bounded."""
    ongoing, sizes = Ongoing(TraceSummary("t")), []
    process = Process("9f2c41aa01be", "t", run="9f2c41aa01be-1")
    for step in range(1, 301):
        ongoing.add(head_of(json.dumps(process.event("error", step, spanId="span_0"))))
        ongoing.count()
        sizes.append(len(ongoing.keep() or ""))

    assert sizes[-1] < 1.1 * sizes[99]


TOOL = {"tool": "a"}
BROKEN = {"content": {"message": "down"}}
REFUSED = {"content": {"toolResults": {"error": {"message": "down"}}}}
ANSWER = {"content": {"content": "Because."}}


@pytest.mark.parametrize(
    ("events", "ended", "failed", "errors"),
    [
        ([("user_message", {}), ("llm_response", ANSWER), ("error", BROKEN | TOOL)], "down", True, 1),
        (
            [("user_message", {}), ("llm_response", ANSWER), ("tool_call_response", REFUSED | TOOL)],
            "down",
            True,
            1,
        ),
        (
            [("tool_call_response", REFUSED | TOOL), ("user_message", {}), ("llm_response", ANSWER)],
            "Because.",
            False,
            1,
        ),
        ([("tool_call_response", REFUSED | TOOL), ("tool_call_response", TOOL)], "", False, 1),
        ([("llm_response", ANSWER), ("user_message", {}), ("error", BROKEN)], "down", True, 1),
        ([("error", BROKEN), ("llm_response", ANSWER)], "Because.", False, 1),
        ([("llm_response", {"content": {"refusal": "No."}})], "No.", False, 0),
        ([("llm_response", ANSWER), ("user_message", {}), ("llm_response", {"content": {}})], "", False, 0),
        ([("embedding_response", {"function": "e", "outcome": "error"})], "failed", True, 1),
        ([("llm_response", ANSWER), ("llm_thinking", {"outcome": "error"})], "Because.", False, 0),
    ],
)
@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
def test_a_trace_ended_alike_in_the_list_and_on_the_page(
    store: Store, events: list[tuple[str, Event]], ended: str, failed: bool, errors: int, backwards: bool
) -> None:
    """Whatever its last record was, and whatever the order in which the records came."""
    batch = [
        sent(
            kind,
            number,
            content=members.get("content", {}),
            **{k: v for k, v in members.items() if k != "content"},
        )
        | {"stepId": number}
        for number, (kind, members) in enumerate(events, 1)
    ]
    collect(store, batch[::-1] if backwards else batch, size=1)
    told = Told(store)

    assert (told.summary.ended_with, told.summary.failed, told.summary.errors) == (ended, failed, errors)
    assert (told.story.ended, told.story.ended_reason == "error") == (ended, failed)
    agree(store)


def test_a_block_that_ends_well_takes_back_the_error_of_a_tool_and_not_of_a_model(tmp_path: Path) -> None:
    """What follows from the error of a tool is for the program to decide; without its model it can only give up."""
    with WhyOps(agent_name="x", home=tmp_path) as sdk:
        for name, model in (("tool", False), ("model", True)):
            with sdk.trace(name) as trace, contextlib.suppress(OSError):
                trace.user_message_sync(USER)
                trace.llm_response_sync("m", "p", "Because.")
                work = (traced_llm if model else traced_tool)(_fail)
                work()
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        ends = {trace: (store.trace(trace), Told(store, trace).story) for trace in ("tool", "model")}

    assert {trace: (summary.ended_with, summary.failed) for trace, (summary, _) in ends.items()} == {
        "tool": ("Because.", False),
        "model": ("OSError: down", True),
    }
    assert [story.status for _, story in ends.values()] == [
        "answered: 1 call failed, not recovered",
        "failed: OSError: down",
    ]


def test_a_trace_that_goes_on_after_its_block_failed_may_end_well(tmp_path: Path) -> None:
    """In a later block, or by an answer."""
    with WhyOps(agent_name="x", home=tmp_path) as sdk:
        for name in ("block", "answer", "nothing"):
            with contextlib.suppress(OSError), sdk.trace(name):
                traced_tool(_fail)()
        with sdk.trace("block"):
            traced_tool(str)("a")
        sdk.trace("answer").llm_response_sync("m", "p", "Because.")
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        told = [Told(store, name) for name in ("block", "answer", "nothing")]

    expected = [("", False), ("Because.", False), ("OSError: down", True)]
    assert [(one.summary.ended_with, one.summary.failed) for one in told] == expected
    assert [(one.story.ended, one.story.ended_reason == "error") for one in told] == expected


def test_a_tool_that_answers_before_its_error_arrives_failed_once(store: Store) -> None:
    """Its error event and its failed response tell of the same failure."""
    events = [
        sent("tool_call_request", 1, "A", **TOOL),
        sent("error", 2, "A", content={"message": "down"}, **TOOL),
        sent("tool_call_response", 3, "A", content={"toolResults": {"error": {"message": "down"}}}, **TOOL),
    ]
    numbered = [event | {"stepId": step} for step, event in enumerate(events, 1)]
    collect(store, [numbered[0], numbered[2], numbered[1]], size=1)

    assert store.trace("t").errors == 1
    agree(store)


def _fail() -> str:
    raise OSError("down")
