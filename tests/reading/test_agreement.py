"""All who read a trace say the same of its calls: the tree, the checks, the figures, verification, list and page."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lines import Process, encoded, tool_request, tool_response
from readers import Call, Event, Told, agree, collect, drawn, sent, unanswered

from whyops_trace._reading.halves import half_of
from whyops_trace._reading.pairing import pair
from whyops_trace._reading.record import StoredRecord
from whyops_trace.server.readings import read
from whyops_trace.store import Store

#: Tokens of processes of this library.
TOKENS = ("9f2c41aa01be", "77aa00bb11cc")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that all examples use, one after the other."""
    with contextlib.closing(Store(tmp_path_factory.mktemp("home") / "traces.db")) as store:
        yield store


@pytest.fixture
def store(shared: Store) -> Store:
    """The store, with nothing in it."""
    shared.delete_all(["t"])
    return shared


# Other SDKs

_spans = st.sampled_from(["", "", "span_0", "s1", "s2", "s3"])
_kinds = st.sampled_from(
    ["tool_call_request", "tool_call_response", "error"] * 3
    + ["user_message", "llm_response"] * 2
    + ["embedding_request", "embedding_response", "tool_result", "llm_thinking"]
)
_failures = st.sampled_from(
    [{"type": "E", "message": "no"}, {"message": "no", "n": "huge"}, "no", None, False, {}, 3]
)
_results: st.SearchStrategy[Any] = st.one_of(
    st.just({"result": 1}),
    st.fixed_dictionaries({"error": _failures}),
    st.sampled_from([None, "error", [], {"cancelled": True}, {"error": {"message": "no"}, "more": 1}]),
    st.sampled_from(
        [{"result": "Error: no"}, {"success": False}, {"rows": []}, {"isError": True, "content": "no"}]
    ),
)
_strange = st.sampled_from(
    [None, "error", 3, [], [{"error": "no"}], {"error": {"message": "no"}}, {"error": "no"}]
)


@st.composite
def sent_events(draw: st.DrawFn, *, steps: bool = True) -> list[Event]:
    """Events of a client in another language, as it may send them: in any order, and some of them twice."""
    events: list[Event] = []
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(_kinds)
        event: Event = {
            "eventType": kind,
            "traceId": "t",
            "agentName": "x",
            "spanId": draw(_spans),
            "timestamp": f"2026-01-01T00:00:{draw(st.integers(0, 20)):02d}.000Z",
            "metadata": draw(_metadata(kind)),
            "content": draw(_strange) if draw(st.integers(0, 9)) == 9 else draw(_content(kind)),
        }
        if draw(st.booleans()):
            event["idempotencyKey"] = draw(st.sampled_from(["k1", "k2", "k3", f"e{len(events)}"]))
        events.append(event)
        if steps and draw(st.booleans()):
            event["parentStepId"] = draw(st.integers(1, 12))
            event["stepId"] = len(events)
    doubled = draw(st.lists(st.sampled_from(events), max_size=2))
    return [*events, *doubled]


@st.composite
def _metadata(draw: st.DrawFn, kind: str) -> Event:
    metadata: Event = {}
    if kind.startswith("tool_call") or (kind == "error" and draw(st.booleans())):
        metadata["tool"] = draw(st.sampled_from(["a", "b"]))
    elif kind != "tool_result" and draw(st.integers(0, 3)) == 3:
        metadata["function"] = draw(st.sampled_from(["ask", "embed"]))
    if kind in ("llm_response", "embedding_response", "error"):
        metadata |= {"model": draw(st.sampled_from(["gpt-4o", "m"])), "provider": "openai"}
        metadata["usage"] = {"promptTokens": draw(st.integers(0, 9)), "completionTokens": 1}
    if kind.endswith("response") or kind == "error":
        metadata |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "latencyMs": st.one_of(st.integers(0, 9), st.sampled_from([-1, "3", None, 0.5, True])),
                    "outcome": st.sampled_from(["error", "cancelled", "Retry", None, 3]),
                    "ranAt": st.sampled_from(["provider", None]),
                    "wraps": st.sampled_from([True, False, None, "yes"]),
                    "failed": st.sampled_from([True, False, None, "no", 3]),
                },
            )
        )
    elif draw(st.integers(0, 9)) == 9:
        metadata["outcome"] = "error"
    if draw(st.integers(0, 3)) == 3:
        metadata["within"] = draw(
            st.one_of(st.integers(-1, 6), st.sampled_from([None, "1", True, 2**70, 1.0]))
        )
    return metadata


@st.composite
def _content(draw: st.DrawFn, kind: str) -> Any:
    if kind.startswith("tool_call"):
        results = {"toolResults": draw(_results)} if kind.endswith("response") else {}
        return {"toolCalls": [{"name": "a"}], **results}
    if kind == "llm_response":
        reasons = st.sampled_from(["stop", "error", "length", None])
        return {"content": draw(st.sampled_from(["", "Yes", "error"])), "finishReason": draw(reasons)}
    if kind == "error":
        return draw(
            st.sampled_from([{"type": "E", "message": "no"}, {"message": "down"}, {"error": "x"}, {}])
        )
    return {"messages": [{"role": "user", "content": "Why?"}]} if kind == "user_message" else {}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sent_events(), st.sampled_from([1, 3, 50]))
def test_readers_agree_on_what_other_clients_sent(shared: Store, events: list[Event], size: int) -> None:
    """Out of order, under other spans or none, unanswered, twice; whatever comes in one request."""
    shared.delete_all(["t"])
    collect(shared, events, size)

    agree(shared)


def test_readers_agree_on_a_call_that_failed_before_its_result_says_so(shared: Store) -> None:
    """The run stopped there for the list as well as for the story, whatever else of the trace is open."""
    about = {"traceId": "t", "agentName": "x", "spanId": "", "timestamp": "2026-01-01T00:00:00.000Z"}
    tool = {**about, "metadata": {"tool": "b"}}
    said = {"toolCalls": [{"name": "b"}], "toolResults": "error"}
    answer = {"content": "", "finishReason": "stop"}
    events: list[Event] = [
        {
            **about,
            "eventType": "llm_response",
            "metadata": {"model": "m", "provider": "p"},
            "content": answer,
        },
        {**tool, "eventType": "tool_call_request", "content": {"toolCalls": [{"name": "b"}]}},
        {**tool, "eventType": "error", "content": {"type": "E", "message": "no"}},
        {**tool, "eventType": "tool_call_response", "content": said},
    ]
    shared.delete_all(["t"])
    collect(shared, events, 1)

    agree(shared)
    assert Told(shared).summary.ended_with == "stopped after b, which said that it failed: error"


# Our own

_acts = st.sampled_from(
    ["tool", "turn", "embedding", "step", "hand", "fails", "leaves", "cancels", "ends"]
    + 2 * ["asks", "answers", "errs"]
    + ["calls", "returns", "says", "embeds", "spoils", "spoiled"]
)
#: What the acts of a program that records by hand record, and of whom.
_BY_HAND: dict[str, tuple[str, Event, Event]] = {
    "asks": ("user_message", {}, {}),
    "answers": ("llm_response", {"model": "m", "provider": "p"}, {"content": "Yes"}),
    "spoils": ("llm_response", {"model": "m", "provider": "p"}, {"finishReason": "error"}),
    "errs": ("error", {}, {"message": "down"}),
    "calls": ("tool_call_request", {"tool": "a"}, {"toolCalls": [{"name": "a"}]}),
    "returns": ("tool_call_response", {"tool": "a"}, {"toolResults": {"result": 1}}),
    "says": ("tool_call_response", {"tool": "a"}, {"toolResults": {"result": "Error: no"}}),
    "spoiled": ("tool_call_response", {"tool": "a", "outcome": "error"}, {"toolResults": {"result": 1}}),
    "embeds": ("embedding_request", {}, {"input": ["a"]}),
}


class Program:
    """A process that records calls inside each other on a trace, numbered as the library does it."""

    def __init__(self, token: str, first: int = 1) -> None:
        self.process = Process(token, "t", run=f"{token}-1")
        self.events: list[Event] = []
        self._step = first - 1
        self._open: list[tuple[str, int, str]] = []
        self._called = 0

    def record(self, kind: str, parent: int = 0, *, step: int = 0, **members: Any) -> int:
        """Record an event; return its step."""
        if not step:
            self._step += 1
        members.setdefault("within", self._open[-1][1] if self._open else 0)
        event = self.process.event(
            kind, step or self._step, parent or max(0, self._step - 1), at=len(self.events), **members
        )
        self.events.append(event)
        return int(event["stepId"])

    def act(self, what: str) -> None:
        """Do one thing: begin a call, record by hand, or end the innermost call."""
        span = f"span_{1 + len(self._open) % 3}"
        if what in ("tool", "embedding"):
            kind = "tool_call" if what == "tool" else "embedding"
            about = {"tool": "a"} if what == "tool" else {"function": "embed"}
            step = self.record(f"{kind}_request", metadata=about, spanId=span)
            self._open.append((kind, step, span))
        elif what == "turn":
            step = self.record("user_message", metadata={"function": "ask"}, spanId="span_0")
            self._open.append(("llm", step, "span_0"))
        elif what == "step":
            step = self.record("llm_thinking", metadata={"step": "plan"}, spanId="span_0")
            self._open.append(("step", step, "span_0"))
        elif what == "hand":
            self.record("user_message", spanId="span_0")
            self.record("llm_thinking", spanId="span_0", content={"thinking": "Hm"})
            self.record("llm_response", metadata={"model": "m", "provider": "p"}, spanId="span_0")
        elif what in _BY_HAND:
            kind, metadata, content = _BY_HAND[what]
            parent = self._called if kind == "tool_call_response" else 0
            step = self.record(kind, parent, metadata=metadata, content=content, spanId=self._span(kind))
            self._called = step if kind == "tool_call_request" else self._called
        elif self._open:
            self._end(what)

    def _span(self, kind: str) -> str:
        """Return the span of an event that is recorded by hand."""
        return f"span_{7 + len(self.events) % 2}" if kind.startswith("tool_call") else "span_0"

    def _end(self, how: str) -> None:
        kind, step, span = self._open.pop()
        if how == "leaves":
            return
        outcome = {"fails": {"outcome": "error"}, "cancels": {"outcome": "cancelled"}}.get(how, {})
        error = {"type": "E", "message": "no"} if how == "fails" else None
        about: Event = {"latencyMs": 3, **outcome}
        if kind == "step":
            about["step"] = "plan"
            content = {"error": error} if error else {}
            self.record("step_end", step, step=step, metadata=about, spanId=span, content=content)
            return
        named = {"tool_call": {"tool": "a"}, "embedding": {"function": "embed"}, "llm": {"function": "ask"}}[
            kind
        ]
        inside: Event = {"within": step, "spanId": span}
        if error:
            model = {} if kind == "tool_call" else {"model": "m", "latencyMs": 3}
            self.record("error", step, metadata={**named, **model}, content=error, **inside)
        if kind == "tool_call":
            results: Event = {"error": error} if error else {"result": 1}
            response = {**named, **about}
            self.record(
                "tool_call_response", step, metadata=response, content={"toolResults": results}, **inside
            )
        elif not error:
            about |= {**named, "model": "m", "provider": "p"}
            self.record(f"{kind}_response", step, metadata=about, **inside)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_acts, max_size=12), st.lists(_acts, max_size=12), st.randoms(), st.sampled_from([1, 4, 50]))
def test_readers_agree_on_what_this_library_recorded(
    shared: Store, first: list[str], second: list[str], chance: Any, size: int
) -> None:
    """Nested, failed, cancelled, left open, by hand; two processes at once that use the same numbers and spans."""
    programs = [Program(token) for token in TOKENS]
    for program, acts in zip(programs, (first, second), strict=True):
        program.act("tool")
        for act in acts:
            program.act(act)
    batches = [
        (program.process.token, [encoded(event) for event in program.events[start : start + size]])
        for program in programs
        for start in range(0, len(program.events), size)
    ]
    waiting = [[n for n, batch in enumerate(batches) if batch[0] == token] for token in TOKENS]
    shared.delete_all(["t"])
    while any(waiting):
        mine = chance.choice([numbers for numbers in waiting if numbers])
        shared.ingest(batches[mine.pop(0)])

    agree(shared)


@settings(max_examples=100, deadline=None)
@given(sent_events(), st.randoms())
def test_pairs_do_not_depend_on_the_order_of_the_records(
    shared: Store, events: list[Event], chance: Any
) -> None:
    """As long as every record differs from the others in what tells which belong together."""
    shared.delete_all(["t"])
    collect(shared, events)
    records = shared.events("t")
    shuffled = list(records)
    chance.shuffle(shuffled)

    assert _pairs(records) == _pairs(shuffled)


def _pairs(records: Sequence[Event]) -> Counter[tuple[int, int, int]]:
    halves = [half for event in records if (half := half_of(StoredRecord.of(event)))]
    return Counter(
        (
            call.request.step if call.request else 0,
            call.response.step if call.response else 0,
            bool(call.error),
        )
        for call in pair(halves)
    )


# Examples


def test_two_tools_at_once_take_their_own_time(store: Store) -> None:
    """Each response follows from whatever came before it, and shares the span of its request."""
    collect(
        store,
        [
            sent("tool_call_request", 1, "A", tool="a"),
            sent("tool_call_request", 2, "B", tool="b"),
            sent("tool_call_response", 5, "A", tool="a"),
            sent("tool_call_response", 9, "B", tool="b"),
        ],
    )
    told = Told(store)

    assert [(node.name, node.latency_ms) for node in told.tree.nodes] == [("a", 4000), ("b", 7000)]
    assert [(call.name, call.latency_ms) for call in told.found.tools] == [("a", 4000), ("b", 7000)]
    assert {each.name: each.p50_ms for each in told.figures.tools} == {"a": 4000, "b": 7000}
    agree(store)


def test_a_response_without_the_span_of_its_request_is_told_by_its_tool(store: Store) -> None:
    """Nothing is open, and no call is there twice."""
    collect(
        store,
        [
            sent("tool_call_request", 1, tool="a"),
            sent("user_message", 2),
            sent("tool_call_response", 5, tool="a"),
        ],
    )
    told = Told(store)

    assert drawn(told.tree, "tool") == {Call(1, 3, 4000, "ok"): 1}
    assert (told.summary.open_calls, unanswered(told.there)) == (0, [])
    agree(store)


def test_a_response_that_comes_before_its_request_belongs_to_it(store: Store) -> None:
    """Where a span tells it; the collector numbers events as they arrive."""
    collect(
        store,
        [sent("tool_call_response", 5, "A", tool="a"), sent("tool_call_request", 1, "A", tool="a")],
        1,
    )
    told = Told(store)

    assert drawn(told.tree, "tool") == {Call(2, 1, 4000, "ok"): 1}
    assert (told.summary.tool_calls, told.summary.open_calls) == (1, 0)
    agree(store)


def test_a_failure_that_comes_before_its_message_belongs_to_it(store: Store) -> None:
    """One turn that failed, whatever came first."""
    failure = {**sent("error", 1), "stepId": 1, "parentStepId": 2, "content": {"message": "down"}}
    collect(store, [failure, {**sent("user_message", 1), "stepId": 2}], 1)
    told = Told(store)

    assert [(node.kind, node.status) for node in told.tree.nodes] == [("llm", "error")]
    assert told.summary.llm_responses == 1
    agree(store)


@pytest.mark.parametrize("answered", ["s0", "s1100"])
def test_more_open_calls_than_are_remembered_are_counted_all_the_same(store: Store, answered: str) -> None:
    """A response to one of them ends one, be it among the oldest or the newest."""
    requests = [sent("tool_call_request", n % 60, f"s{n}", tool="a") for n in range(1_200)]
    collect(store, [*requests, sent("tool_call_response", 59, answered, tool="a")], 100)

    assert (store.trace("t").tool_calls, store.trace("t").open_calls) == (1_200, 1_199)
    agree(store)


def test_many_messages_without_an_answer_do_not_part_a_call(store: Store) -> None:
    """Requests and responses under other spans, over many small batches."""
    kinds = ("tool_call_request", "user_message", "tool_call_response")
    collect(store, [sent(kinds[n % 3], n % 60, f"s{n % 60}", tool="a") for n in range(300)], 7)

    assert (store.trace("t").tool_calls, store.trace("t").open_calls) == (100, 0)
    agree(store)


def test_a_turn_by_hand_holds_the_thoughts_before_its_answer(store: Store) -> None:
    """A message, what the model thought, and the answer are one turn, and one node."""
    program = Program(TOKENS[0])
    program.act("hand")
    store.ingest((TOKENS[0], [encoded(event) for event in program.events]))
    told = Told(store)

    assert [(node.kind, node.step, node.response) for node in told.tree.nodes] == [("llm", 1, 3)]
    assert [(turn.request.step if turn.request else 0, turn.step) for turn in told.found.turns] == [(1, 3)]
    assert (told.tree.llm_responses, told.summary.llm_responses) == (1, 1)
    (section,) = read(store, "t").story.sections
    assert section.turn
    assert section.turn.thinking == ["Hm"]
    agree(store)


def test_a_failure_by_hand_is_a_turn_that_failed(store: Store) -> None:
    """Until an answer comes, which then belongs to the same turn."""
    program = Program(TOKENS[0])
    program.record("user_message", spanId="span_0")
    program.record("error", spanId="span_0", content={"message": "down"})
    store.ingest((TOKENS[0], [encoded(event) for event in program.events]))
    failed = Told(store)
    program.record("llm_response", metadata={"model": "m", "provider": "p"}, spanId="span_0")
    store.ingest((TOKENS[0], [encoded(event) for event in program.events[2:]]))
    answered = Told(store)

    assert [(node.kind, node.status) for node in failed.tree.nodes] == [("llm", "error")]
    assert [told.summary.llm_responses for told in (failed, answered)] == [1, 1]
    agree(store)


@pytest.mark.parametrize("token", TOKENS)
def test_a_response_answers_the_request_of_its_own_run(token: str) -> None:
    """Though a request of another run has the same number, span and tool."""
    programs = {each: Process(each, "t", run=f"{each}-1") for each in TOKENS}
    events = [tool_request(process, 1, at=n) for n, process in enumerate(programs.values())]
    events.append(tool_response(programs[token], 2, 1, at=9))
    halves = [half for n, event in enumerate(events) if (half := half_of(StoredRecord.of(event), n))]
    (call,) = (call for call in pair(halves) if call.response)

    assert call.request
    assert call.request.run == f"{token}-1"
