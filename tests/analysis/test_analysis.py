"""Findings over traces: the server's rules to the letter, and those of this library."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import msgspec
import pytest
from findings import findings as double
from hypothesis import given
from hypothesis import strategies as st
from programs import ROOT, run, run_code, stored
from provider import Provider
from strategies import STEADY, json_values
from traces import Record, Story, call, usage

from whyops_trace._reading.excerpt import get
from whyops_trace._rules.exchanges import exchanges
from whyops_trace._rules.views import views
from whyops_trace.analysis import (
    OWN_CODES,
    SERVER_RULES,
    SEVERITIES,
    Finding,
    findings,
    findings_across,
    rank,
    server_findings,
)
from whyops_trace.store import TraceSummary

KEY = "sk-ant-api03-" + "4f6Qw" * 8


def codes(found: list[Finding]) -> list[tuple[str, str]]:
    """Return what was found, as code and severity."""
    return [(one.code, one.severity) for one in found]


def only(found: list[Finding], code: str) -> Finding:
    """Return the one finding there is, which has this code."""
    assert [one.code for one in found] == [code]
    return found[0]


# The server's rules

_calls = st.sampled_from(
    [{"name": "f"}, {"name": "f", "arguments": {"a": 1, "b": 2}}, {"name": "f", "arguments": {"b": 2, "a": 1}},
     {"function": {"name": "f", "arguments": '{"a": 1, "b": 2}'}}, {"function": {"arguments": "{"}}, "f", None]
)  # fmt: skip
_numbers = st.sampled_from([0, 1, 10, 16, 1000, 12.5, "16ms", "1-2", "", None, True, float("inf")])
_contents = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.fixed_dictionaries(
        {},
        optional={
            "toolCalls": st.lists(_calls, min_size=1, max_size=2) | st.none() | st.just("x"),
            "tool_calls": st.lists(_calls, min_size=1, max_size=2),
            "latencyMs": _numbers,
            "usage": st.fixed_dictionaries({"total_tokens": _numbers}) | st.just("x"),
        },
    ),
)
_metadata = st.fixed_dictionaries(
    {},
    optional={
        "tool": st.sampled_from(["f", "", None]),
        "model": st.sampled_from(["m", "", None]),
        "provider": st.just("p"),
        "latencyMs": _numbers,
        "latency_ms": _numbers,
        "usage": st.fixed_dictionaries({}, optional={"totalTokens": _numbers, "total_tokens": _numbers}),
        "totalTokens": _numbers,
    },
)
_rows = st.lists(
    st.fixed_dictionaries(
        {
            "eventType": st.sampled_from(
                ["tool_call_request", "tool_call_request", "tool_call_response", "llm_response", "error",
                 "user_message", "tool_result", "llm_thinking"]
            ),
            "stepId": st.integers(1, 12),
            "parentStepId": st.none() | st.integers(0, 14),
            "spanId": st.sampled_from(["a", "b", "c", ""]),
            "timestamp": st.integers(0, 30).map("2026-01-01T00:00:00.{:03d}Z".format),
            "metadata": _metadata,
            "content": _contents,
        }
    ),
    max_size=30,
)  # fmt: skip


@STEADY
@given(_rows, st.booleans())
def test_the_servers_rules_find_what_the_server_does(rows: list[Record], deep: bool) -> None:
    """The same findings with the same severities in the same order, whatever the events are."""
    assert codes(server_findings(rows, deep=deep)) == double(rows, deep=deep)


@STEADY
@given(st.lists(st.integers(1, 40).map(lambda n: n * n), min_size=10, max_size=60))
def test_outliers_are_those_of_the_server(values: list[int]) -> None:
    """Latencies of all events together, and tokens."""
    rows = [
        {"eventType": "llm_response", "stepId": n + 1, "parentStepId": n, "spanId": "s", "content": None,
         "timestamp": f"2026-01-01T00:00:00.{n:03d}Z",
         "metadata": {"model": "m", "provider": "p", "latencyMs": value, "usage": {"totalTokens": value}}}
        for n, value in enumerate(values)
    ]  # fmt: skip

    assert codes(server_findings(rows)) == double(rows)


@pytest.mark.parametrize(("highest", "found"), [(15, 0), (16, 1)])
def test_half_as_much_again_is_no_outlier(highest: int, found: int) -> None:
    """What is more is."""
    story = Story()
    for n, latency in enumerate([10] * 20 + [highest]):
        story.ask(f"question {n}")
        story.answer(f"answer {n}", metadata={"latencyMs": latency})

    assert codes(server_findings(story.records)) == [("LATENCY_OUTLIER", "low")] * found


@pytest.mark.parametrize("nothing", [None, "", 0, False])
def test_tool_calls_have_two_names(nothing: Any) -> None:
    """The second counts where the first holds what is false to the server; an empty list is not."""
    story, none = Story(), Story()
    story.answer(content={"toolCalls": nothing, "tool_calls": [call()]})
    none.answer(content={"toolCalls": [], "tool_calls": [call()]})

    assert codes(server_findings(story.records)) == [("TOOL_CALL_WITHOUT_FOLLOWUP_EVENTS", "medium")]
    assert server_findings(none.records) == []


def test_recorded_analyses_of_a_server_are_repeated() -> None:
    """One of a trace with bad parents, one of a trace in which the proxy took numbers that were in use."""
    bad = [
        {"eventType": "user_message", "stepId": step, "parentStepId": parent, "timestamp": f"{second:02d}"}
        for second, (step, parent) in enumerate([(2, 2), (2, 99)])
    ]
    mixed = [(1, "user_message"), (2, "user_message"), (3, "llm_response"), (2, "tool_call_request"),
             (3, "tool_call_response")]  # fmt: skip
    rows = [
        {"eventType": kind, "stepId": step, "parentStepId": step - 1, "spanId": "s",
         "timestamp": f"2026-11-21T20:26:{second:02d}.000Z",
         "metadata": {"tool": "f", "model": "m", "provider": "p"}}
        for second, (step, kind) in enumerate(mixed)
    ]  # fmt: skip
    analysed = server_findings(rows)

    assert codes(server_findings(bad)) == [("DUPLICATE_STEP_ID", "medium"), ("MISSING_PARENT_STEP", "high")]
    assert [one.evidence for one in server_findings(bad)] == [
        {"stepId": 2, "duplicateCount": 2},
        {"stepId": 2, "parentStepId": 99},
    ]
    assert codes(analysed) == [
        ("STEP_ORDER_DECREASED", "high"),
        ("DUPLICATE_STEP_ID", "medium"),
        ("DUPLICATE_STEP_ID", "medium"),
    ]


def test_the_server_has_no_local_records() -> None:
    """How a step or a trace ended is no event to its rules, nor is it out of order."""
    story = Story()
    step = story.event("llm_thinking", metadata={"step": "plan"})
    story.tool()
    story.event("step_end", step=step)
    story.event("trace_end", step=1)

    assert server_findings(story.records) == []
    assert codes(server_findings(story.records[-2:])) == [("TRACE_HAS_NO_EVENTS", "critical")]


# What holds of all findings


@STEADY
@given(st.lists(st.dictionaries(
    st.sampled_from(["eventType", "traceId", "stepId", "parentStepId", "spanId", "timestamp", "metadata", "content",
                     "idempotencyKey", "run"]),
    json_values | st.sampled_from(["tool_call_request", "llm_response", "user_message", "error"]),
), max_size=5))  # fmt: skip
def test_nothing_in_a_record_breaks_a_rule(records: list[Record]) -> None:
    """Any value under any name."""
    for found in (findings(records), server_findings(records)):
        assert all(msgspec.json.encode(one) for one in found)


_names = st.sampled_from(
    ["messages", "toolCalls", "toolResults", "content", "finishReason", "error", "type", "message", "function", "tool",
     "model", "provider", "usage", "params", "tools", "latencyMs", "requestedBy", "within", "outcome", "wraps"]
)  # fmt: skip
_parts = st.dictionaries(_names, json_values, max_size=6)
_kinds = st.sampled_from(
    ["tool_call_request", "tool_call_response", "llm_response", "user_message", "tool_result", "error"]
)


@STEADY
@given(st.lists(st.tuples(_kinds, st.integers(0, 5), _parts, _parts), max_size=8))
def test_nothing_in_metadata_and_content_breaks_a_rule(events: list[tuple[str, int, Any, Any]]) -> None:
    """Any value under the names that rules look at."""
    records = [
        {"eventType": kind, "stepId": n + 1, "parentStepId": parent, "metadata": metadata, "content": content}
        for n, (kind, parent, metadata, content) in enumerate(events)
    ]

    assert all(msgspec.json.encode(one) for one in findings(records))


def test_what_a_trace_says_reaches_no_terminal() -> None:
    """Names and errors of a trace are shown without what would move a cursor or turn a line."""
    evil = "\x1b[2J\x9b\u202e\n<script>"
    story = Story(evil)
    for _ in range(3):
        story.tool(evil, {evil: 1}, {"error": {"type": evil, "message": evil}})
    story.ask(evil, function=evil, metadata={"params": {"extra_headers": {"X-Trace-ID": f"other{evil}"}}})
    story.answer(metadata={"model": evil}, function=evil, content={"finishReason": "length"})
    story.request(evil)
    found = findings(story.records)

    assert {one.code for one in found} >= {"REPEATED_FAILURE", "ANSWER_CUT", "MISSING_TOOL_CALL_RESPONSE"}
    assert json.dumps([msgspec.to_builtins(one) for one in found], ensure_ascii=False).isprintable()


def test_every_code_is_known_and_has_a_rank() -> None:
    """Thirteen of the server, and those of this library."""
    assert len(SERVER_RULES) == 13
    assert not set(OWN_CODES) & set(SERVER_RULES)
    assert [rank(severity) for severity in SEVERITIES] == [0, 1, 2, 3]


def test_every_rule_is_explained() -> None:
    """With its severities, as the table of its page gives them."""
    page = (ROOT / "docs" / "reference" / "findings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([a-z, ]+) \|", page, re.MULTILINE))

    assert rows.keys() == {*SERVER_RULES, *OWN_CODES}
    assert {code: rows[code] for code in SERVER_RULES} == {
        code: rule.severity for code, rule in SERVER_RULES.items()
    }


def test_the_most_severe_come_first() -> None:
    """Then by step."""
    story = Story()
    story.tool("a", {"n": 1}, took=10)
    story.ask("hello")
    story.answer(content={"finishReason": "length"})
    story.request("b")
    story.request("a")

    assert [(one.severity, one.steps[0]) for one in findings(story.records)] == [
        ("high", 5),
        ("high", 6),
        ("medium", 4),
    ]


# No false alarms


def test_the_demo_has_no_findings(tmp_path: Any) -> None:
    """Though a tool fails in it, parcels are tracked in parallel, and a prompt changes its tools."""
    run("-m", "whyops_trace", "demo", home=tmp_path)
    ids = run("-m", "whyops_trace", "ls", "--json", home=tmp_path).stdout
    events = stored(tmp_path, json.loads(ids)[0]["traceId"])

    assert len(events) > 30
    assert findings(events) == server_findings(events) == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("0*.py")), ids=lambda path: path.stem)
def test_the_examples_have_no_findings(path: Any, tmp_path: Any) -> None:
    """Decorated, asynchronous, by hand, in threads, with clients and streams."""
    with Provider() as provider:
        done = run(path, home=tmp_path, **provider.environment)
    traces = json.loads(run("-m", "whyops_trace", "ls", "--json", home=tmp_path).stdout)

    assert done.returncode == 0
    assert traces
    assert [findings(stored(tmp_path, trace["traceId"])) for trace in traces] == [[]] * len(traces)


def test_more_calls_than_span_ids_have_no_findings(tmp_path: Any) -> None:
    """Span ids come back after 400; nested calls, generators and threads do not mix them up."""
    run_code(
        """
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        from whyops_trace import flush_sync, propagate, step, trace, traced_tool

        @traced_tool
        def leaf(n): return n * n

        @traced_tool
        def count(n):
            for k in range(n):
                yield leaf(k)

        @traced_tool
        async def outer(n):
            await asyncio.sleep(0)
            return [leaf(n), *count(3)]

        async def main():
            await asyncio.gather(*(outer(n) for n in range(50)))

        with trace("busy"):
            asyncio.run(main())
            open_ones = [count(n + 1) for n in range(20)]
            for generator in open_ones:
                next(generator)
            with step("pool"), ThreadPoolExecutor(4) as pool:
                list(pool.map(propagate(leaf), range(600)))
            for generator in open_ones:
                generator.close()
        flush_sync()
        """,
        tmp_path,
    )
    events = stored(tmp_path, "busy")

    assert len(events) > 1_500
    assert findings(events) == []


# Tools


def test_a_span_id_that_the_response_does_not_share_is_named() -> None:
    """The response is told by its parent or tool, so the call counts as answered."""
    story = Story(foreign=True)
    asked = story.request("charge_card", span="span_a")
    story.respond("charge_card", asked, span="span_b")
    one = only(findings(story.records), "UNPAIRED_SPAN")

    assert (one.severity, one.steps) == ("high", [2, 1])
    assert one.evidence == {"tool": "charge_card", "requestSpanId": "span_a", "responseSpanId": "span_b"}
    assert codes(server_findings(story.records)) == [
        ("MISSING_TOOL_CALL_RESPONSE", "high"),
        ("ORPHAN_TOOL_CALL_RESPONSE", "medium"),
    ]


def test_responses_find_their_requests_whatever_else_is_open() -> None:
    """By span and parent, by span and tool, in the order in which they were asked for."""
    story = Story(foreign=True)
    first, second, third = (story.request(name, {"n": n}, span="s") for n, name in enumerate("aab"))
    story.respond("b", first, {"n": 3})
    story.respond("a", second, {"n": 2})
    story.respond("a", third, {"n": 1})
    calls = exchanges(views(story.records)).tools

    assert findings(story.records) == []
    assert [get(one.results, "n") for one in calls] == [1, 2, 3]


def test_only_what_a_process_left_open_is_unanswered() -> None:
    """While it runs its calls go on; what another program left open is judged as it stands."""
    story, other = Story(), Story(foreign=True)
    story.request("charge_card")
    other.request("charge_card")

    assert findings(story.records, lambda token: token != "9f2c41aa01be") == []
    assert only(findings(story.records), "MISSING_TOOL_CALL_RESPONSE").steps == [1]
    assert only(findings(other.records, lambda _: False), "MISSING_TOOL_CALL_RESPONSE").steps == [1]


def test_a_reused_span_hides_no_open_call() -> None:
    """A WhyOps server takes any response of that span for its response."""
    story = Story()
    story.request("charge_card", span="span_7")
    story.tool("other", span="span_7")

    assert only(findings(story.records), "MISSING_TOOL_CALL_RESPONSE").steps == [1]
    assert server_findings(story.records) == []


@pytest.mark.parametrize(
    ("arguments", "results", "severity"),
    [
        ({"order": 8841}, [{"state": "late"}] * 4, "high"),
        (
            {"order": 8841},
            [{"state": "late"}, {"state": "late"}, {"state": "packed"}, {"state": "sent"}],
            "low",
        ),
        ({}, [{"state": "late"}] * 4, "low"),
        ({}, [{}] * 4, None),
    ],
)
def test_a_loop_is_one_finding(arguments: Any, results: list[Any], severity: str | None) -> None:
    """It is high where the same question had the same answer; where nothing was recorded, it cannot be told."""
    story = Story()
    for result in results:
        story.tool("track", arguments, result)
    found = findings(story.records)

    assert codes(found) == ([("IDENTICAL_TOOL_CALL_LOOP", severity)] if severity else [])
    assert [one.steps for one in found] == ([[1, 3, 5, 7]] if severity else [])
    assert codes(server_findings(story.records)) == [("IDENTICAL_TOOL_CALL_LOOP", "high")] * 2


@pytest.mark.parametrize(("recovers", "severity"), [(True, "medium"), (False, "high")])
def test_a_failure_that_comes_back_is_named(recovers: bool, severity: str) -> None:
    """From the third time on, whatever the arguments; it is worse if the tool never worked after that."""
    story = Story()
    error = {"error": {"type": "TimeoutError", "message": "no answer"}}
    for n in range(3):
        story.tool("track", {"n": n}, error)
        story.tool("log", {"n": n})
    if recovers:
        story.tool("track", {"n": 9})
    one = only(findings(story.records), "REPEATED_FAILURE")

    assert (one.severity, one.steps) == (severity, [1, 5, 9])
    assert one.evidence == {
        "name": "track", "error": "TimeoutError: no answer", "count": 3, "recovered": recovers,
    }  # fmt: skip


def test_two_failures_are_a_hiccup_and_its_retry() -> None:
    """And failures that differ are not the same one."""
    story = Story()
    for message in ("a", "a", "b", "b"):
        story.tool("track", {"n": story.step}, {"error": {"type": "E", "message": message}})

    assert findings(story.records) == []


def test_a_model_that_fails_again_and_again_is_named() -> None:
    """Its error event closes the turn."""
    story = Story()
    for n in range(3):
        asked = story.ask(f"question {n}")
        about = {"function": "ask", "model": "gpt-4o"}
        story.event(
            "error", asked, within=asked, metadata=about, content={"type": "RateLimitError", "message": "429"}
        )
        story.tool("wait", {"n": n})

    assert only(findings(story.records), "REPEATED_FAILURE").steps == [2, 6, 10]


def conversation(*later: Any) -> Story:
    """Return a story in which a model asks for a tool, which runs, and then is asked these messages."""
    story = Story()
    story.ask("Charge me.")
    asked = story.answer(calls=[call()])
    story.tool(results={"id": "ch_81"}, requestedBy=asked)
    if later:
        story.ask(*later)
        story.answer("Bye.")
    return story


def test_a_result_that_no_model_was_given_is_named() -> None:
    """If a model asked for it, and there were turns after it."""
    one = only(findings(conversation("Something else.").records), "UNUSED_TOOL_RESULT")

    assert (one.severity, one.steps) == ("low", [4, 2])
    assert one.evidence == {"tool": "charge_card", "askedBy": 2, "turnsAfter": 1}


@pytest.mark.parametrize(
    "later",
    [
        [{"role": "tool", "tool_call_id": "call_1", "content": "paid"}],
        [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "paid"}]}],
        [{"type": "function_call_output", "call_id": "call_1", "output": "paid"}],
        ["The card was charged: {'id': 'ch_81'}"],
        [],
    ],
)
def test_a_result_is_given_in_many_forms(later: list[Any]) -> None:
    """As an answer to the call's id, or as a text; where nothing follows, nothing is missing."""
    assert findings(conversation(*later).records) == []


def test_a_call_of_a_tool_in_a_message_is_not_its_result() -> None:
    """Nor is one under its id."""
    later = {"type": "function_call", "call_id": "call_1", "name": "charge_card", "arguments": "{}"}

    assert only(findings(conversation("Go on.", later, "Go on.").records), "UNUSED_TOOL_RESULT").steps == [
        4,
        2,
    ]


@pytest.mark.parametrize(
    ("later", "results"),
    [(None, {"id": "ch_81"}), ("Go on.", {"result": None}), ("Go on.", {"result": True})],
)
def test_what_cannot_be_told_is_no_unused_result(later: str | None, results: Any) -> None:
    """A prompt that was not recorded may hold it, and nothing can be looked for of a result without texts."""
    story = Story()
    story.ask("Charge me.")
    story.tool(results=results, requestedBy=story.answer(calls=[call()]))
    story.event(
        "user_message", metadata={"function": "ask"}, content={} if later is None else {"messages": [later]}
    )
    story.answer("Bye.")

    assert findings(story.records) == []


# Turns


def test_a_report_by_hand_beside_one_of_a_client_is_doubled() -> None:
    """The one to leave out is shown first; the tokens that count twice are told."""
    story = Story()
    story.ask("Hello", function="chat.completions")
    story.answer("Hi!", function="chat.completions", usage=usage(100))
    story.answer("Hi!", function="", usage=usage(100))
    one = only(findings(story.records), "DOUBLED_TURN")

    assert (one.severity, one.steps) == ("medium", [3, 2])
    assert one.evidence == {"model": "gpt-4o", "tokensTwice": 110}


def test_a_whole_turn_by_hand_around_one_of_a_client_is_doubled() -> None:
    """Whether its request was told before the call, or both after it; the model may have its provider's name."""
    before, after = Story(), Story()
    before.ask("Hello", function="")
    before.ask("Hello", function="chat.completions")
    before.answer("Hi!", function="chat.completions")
    before.answer("Hi!", function="", metadata={"model": "openai/gpt-4o"})
    after.ask("Hello", function="chat.completions")
    after.answer("Hi!", function="chat.completions")
    after.ask("Hello", function="")
    after.answer("Hi!", function="")

    assert only(findings(before.records), "DOUBLED_TURN").steps == [4, 3]
    assert only(findings(after.records), "DOUBLED_TURN").steps == [4, 2]


def test_a_turn_inside_another_that_says_the_same_is_doubled() -> None:
    """A report by hand in a traced function; one traced function in another if both count the tokens."""

    def nested(function: str, *, outer: Any, inner: Any, wraps: bool = False) -> list[Finding]:
        story = Story()
        first = story.ask("Hello", function="outer")
        within = story.ask("Hello", function=function, within=first) if function else first
        story.answer("Hi!", function=function, parent=within, within=within, usage=inner)
        story.answer(
            "Hi!", function="outer", parent=first, usage=outer, metadata={"wraps": True} if wraps else {}
        )
        return findings(story.records)

    assert only(nested("", outer=None, inner=None), "DOUBLED_TURN").steps[0] == 2
    assert only(nested("ask", outer=usage(9), inner=usage(9)), "DOUBLED_TURN").steps == [4, 3]
    assert nested("ask", outer=None, inner=usage(9)) == []
    assert nested("ask", outer=usage(9), inner=usage(9), wraps=True) == []


def test_a_turn_by_hand_beside_one_of_the_proxy_is_doubled() -> None:
    """The proxy leaves signs in texts and in the arguments of tools."""
    signed, called = Story(foreign=True), Story(foreign=True)
    signed.ask("Hello", function="")
    signed.answer("Hi!\u200b\u200c", function="")
    signed.answer("Hi!", function="")
    called.ask("Charge me.", function="")
    called.answer(calls=[call(arguments='{"amount": 1, "_whyops_trace_id": "checkout-8841"}')], function="")
    called.answer(calls=[call(arguments='{"amount": 1}')], function="")
    called.tool()

    for story in (signed, called):
        assert only(findings(story.records), "DOUBLED_TURN").steps == [3, 2]


def test_what_a_model_says_again_is_no_doubled_turn() -> None:
    """Asked again, asked something else by hand, asked twice at the same time, or several answers to one question."""
    again, other, twice, several, later = (Story() for _ in range(5))
    for _ in range(2):
        again.ask("Still there?")
        again.answer("Yes.", usage=usage(5))
    other.ask("Still there?")
    other.answer("Yes.")
    other.ask("Are you sure?", function="")
    other.answer("Yes.", function="")
    requests = [twice.ask("Still there?"), twice.ask("Still there?")]
    for request in requests:
        twice.answer("Yes.", parent=request, usage=usage(5), metadata={"latencyMs": 7})
    several.ask("Still there?", function="")
    for _ in range(3):
        several.answer("Yes.", function="", usage=usage(5), metadata={"latencyMs": 7})
    later.ask("Still there?")
    later.answer("Yes.")
    later.gap = 61_000
    later.answer("Yes.", function="")

    assert [findings(story.records) for story in (again, other, twice, several, later)] == [[]] * 5


def test_a_report_that_was_recognised_is_no_doubled_turn() -> None:
    """Nor is what stands beside it."""
    story = Story()
    story.ask("Hello", function="chat.completions")
    story.answer("Hi!", function="chat.completions")
    story.answer("Hi!", function="", metadata={"wraps": True, "doubles": 2})
    story.answer("Hi!", function="")

    assert findings(story.records) == []


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "max_output_tokens"])
def test_an_answer_that_was_cut_off_is_named(reason: str) -> None:
    """With the limit that was set; one that asks for tools may ask for half of one."""
    text, tools = Story(), Story()
    text.ask("Tell me a story.", metadata={"params": {"max_tokens": 16}})
    text.answer("Once", usage=usage(10, 16), content={"finishReason": reason})
    tools.ask("Charge me.")
    tools.answer(calls=[call(arguments='{"amo')], content={"finishReason": reason})
    tools.tool()
    one = only(findings(text.records), "ANSWER_CUT")

    assert (one.severity, one.steps) == ("medium", [2])
    assert one.evidence == {
        "model": "gpt-4o",
        "finishReason": reason,
        "completionTokens": 16,
        "max_tokens": 16,
    }
    assert only(findings(tools.records), "ANSWER_CUT").severity == "high"


@pytest.mark.parametrize(
    ("usual", "slow", "found"),
    [([100] * 8, 1_200, 1), ([100] * 8, 1_090, 0), ([100] * 6, 9_000, 0), ([5_000] * 8, 9_900, 0),
     ([5_000] * 8, 10_100, 1), ([100, 900, 1800, 2700, 3600, 4500, 5400, 6300], 9_000, 0)],
)  # fmt: skip
def test_a_call_far_slower_than_its_like_is_named(usual: list[int], slow: int, found: int) -> None:
    """Above the median by 3.5 deviations, by as much again, and by a second; calls of other tools do not count."""
    story = Story()
    for n, latency in enumerate([*usual, slow]):
        asked = story.request("track", {"n": n})
        story.respond("track", asked, {"n": n}, latencyMs=latency)
        story.tool("other", {"n": n})
    slow_ones = [one for one in findings(story.records) if one.code == "SLOW_CALL"]

    assert [(one.severity, one.steps) for one in slow_ones] == [("low", [4 * len(usual) + 1])] * found


def test_a_slow_step_is_named_once() -> None:
    """The server's rule says no more than ours about it, and stays where ours finds nothing."""
    story = Story()
    for n, latency in enumerate([100] * 30 + [9_000]):
        story.ask(f"question {n}")
        story.answer(f"answer {n}", metadata={"latencyMs": latency})

    assert codes(server_findings(story.records)) == [("LATENCY_OUTLIER", "low")]
    assert codes(server_findings(story.records, deep=True)) == [("LATENCY_OUTLIER", "medium")]
    assert codes(findings(story.records)) == [("SLOW_CALL", "low")]


def test_a_turn_far_costlier_than_its_like_is_named() -> None:
    """What came from the cache counts a tenth, what the model wrote five times."""
    story = Story()
    counts = [usage(1_000)] * 9 + [usage(1_000, 10, 90_000), usage(1_000, 3_000)]
    for n, tokens in enumerate(counts):
        story.ask(f"question {n}")
        story.answer(f"answer {n}", usage=tokens)
    one = only(findings(story.records), "COSTLY_TURN")

    assert (one.severity, one.steps) == ("low", [22])
    assert one.evidence["completionTokens"] == 3_000


def test_addresses_that_change_from_request_to_request_are_named() -> None:
    """Not one that is always the same."""
    one_address, many = Story(), Story()
    for n in range(3):
        params = {"params": {"base_url": "http://127.0.0.1:1"}}
        one_address.ask(f"{n}", metadata=params)
        one_address.answer(f"answer {n}")
        many.ask(f"{n}", metadata=params if n == 1 else {})
        many.answer(f"answer {n}")

    assert findings(one_address.records) == []
    assert only(findings(many.records), "ADDRESS_OVERRIDDEN").steps == [3]


# Prompts


def turns(prompts: list[list[Any]], *, read: tuple[int, ...] = (), gap: float = 10.0, **about: Any) -> Story:
    """Return a story of turns with these messages, each of which has 2,000 tokens and more."""
    story = Story()
    for n, prompt in enumerate(prompts):
        metadata = {name: values[n] for name, values in about.items()}
        story.gap = gap if n else 10.0
        story.ask(*prompt, metadata=metadata)
        story.gap = 10.0
        story.answer(f"answer {n}", usage=usage(2_000 + 100 * n, read=read[n] if read else 0))
    return story


SYSTEM = {"role": "system", "content": "You run the shop."}
GROWING = [[SYSTEM, *"abcdef"[: n + 1]] for n in range(4)]


def test_a_prompt_that_only_grew_and_missed_the_cache_is_named() -> None:
    """It is worse where the cache of that model has been seen to work."""
    never = only(findings(turns(GROWING).records), "PROMPT_CACHE_MISSED")
    once = only(findings(turns(GROWING, read=(0, 1_024, 0, 1_024)).records), "PROMPT_CACHE_MISSED")

    assert (never.severity, never.steps) == ("low", [4, 6, 8])
    assert never.evidence == {"model": "gpt-4o", "turns": 3, "tokens": 6_300, "changed": "nothing"}
    assert (once.severity, once.steps) == ("medium", [6])


@pytest.mark.parametrize(
    ("prompts", "about", "changed"),
    [
        (
            [[{"role": "system", "content": f"It is {n} o'clock."}, *"abcd"[: n + 1]] for n in range(3)],
            {},
            "system",
        ),
        (GROWING, {"systemPrompt": ["It is 1.", "It is 2.", "It is 3.", "It is 4."]}, "system"),
        (GROWING, {"tools": [[{"name": name}] for name in "abcd"]}, "tools"),
        ([["a", f"edited {n}", "c", "d", *"efg"[:n]] for n in range(3)], {}, "messages"),
    ],
)
def test_what_changed_in_a_prompt_that_missed_the_cache_is_named(
    prompts: Any, about: Any, changed: str
) -> None:
    """A time in the system prompt, other tools, an earlier message that was edited."""
    found = findings(turns(prompts, **about).records)
    one = only([one for one in found if one.code != "TOOLS_UNUSED"], "PROMPT_CACHE_MISSED")

    assert (one.severity, one.evidence["changed"]) == ("medium", changed)
    assert one.evidence.get("message") == (
        2 if changed == "messages" else None if about else one.evidence.get("message")
    )


def test_prompts_that_cannot_come_from_the_cache_are_not_named() -> None:
    """Short ones, others, late ones, and those of models that are not known to have a cache."""
    short = turns(GROWING)
    for record in short.records:
        if record["eventType"] == "llm_response":
            record["metadata"]["usage"] = usage(1_000)
    unknown = turns(GROWING)
    for record in unknown.records:
        record["metadata"] |= {"provider": "basement"}
    others = turns([[SYSTEM, "one"], [SYSTEM, "two"], [SYSTEM, "three"]])
    cut = turns([["a", "x [cut 7 of 900 characters] y", "c", "d"], ["a", "x", "c", "d", "e"]])
    unlike = turns([["a", "b", "c", "d"], ["x", "y", "z", "d", "e"]])
    agents = turns(
        [[{"role": "system", "content": name}, "Where is order 8841?"] for name in ("clerk", "judge")]
    )

    for story in (short, unknown, others, cut, unlike, agents, turns(GROWING, gap=301_000)):
        assert findings(story.records) == []


def test_conversations_that_take_turns_are_told_apart() -> None:
    """Each turn goes on with the last one of its own conversation."""
    prompts = [[name, *"xyz"[:n]] for n in range(3) for name in ("one", "two", "three")]

    assert only(findings(turns(prompts).records), "PROMPT_CACHE_MISSED").evidence["turns"] == 6


def growing(sizes: list[int], *, messages: bool = True) -> Story:
    """Return a story of turns with prompts of so many tokens."""
    story = Story()
    for n, size in enumerate(sizes):
        story.ask(*(["start", *map(str, range(n))] if messages else []))
        story.answer(f"answer {n}", usage=usage(size - size // 2, read=size // 2))
    return story


@pytest.mark.parametrize("messages", [True, False])
def test_a_context_that_only_grows_is_named(messages: bool) -> None:
    """Eight turns or more, to four times its size and 20,000 tokens, whether or not its messages were recorded."""
    sizes = [5_000 * n for n in range(1, 9)]
    one = only(findings(growing(sizes, messages=messages).records), "CONTEXT_GROWTH")

    assert (one.severity, one.steps) == ("medium", [16, 2])
    assert one.evidence == {
        "model": "gpt-4o", "turns": 8, "firstTokens": 5_000, "lastTokens": 40_000, "tokensPerTurn": 5_000,
    }  # fmt: skip


@pytest.mark.parametrize(
    "sizes",
    [
        [5_000 * n for n in range(1, 8)],
        [2_000 * n for n in range(1, 10)],
        [20_000 + 1_000 * n for n in range(20)],
        [5_000, 10_000, 15_000, 20_000, 6_000, 12_000, 18_000, 24_000],
    ],
)
def test_a_context_that_is_kept_in_bounds_is_not_named(sizes: list[int]) -> None:
    """Few turns, small ones, slow growth, and one that is shortened on the way."""
    assert [one for one in findings(growing(sizes).records) if one.code == "CONTEXT_GROWTH"] == []


# Payloads


def test_a_credential_is_named_and_never_shown() -> None:
    """By its form, wherever it stands; the same in every later prompt is one finding."""
    story = Story()
    for n in range(3):
        story.ask(f"My key is {KEY}", *map(str, range(n)))
        story.answer(f"answer {n}")
    one = only(findings(story.records), "SECRET_IN_PAYLOAD")

    assert (one.severity, one.steps) == ("critical", [1, 3, 5])
    assert one.evidence == {
        "kind": "a key of Anthropic's", "where": "content.messages[0].content", "records": 3,
    }  # fmt: skip
    assert KEY[-8:] not in json.dumps(msgspec.to_builtins(one))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"url": "postgres://mia:correct-horse@db/shop"}, "a password in a URL"),
        ({"token": "ghp_" + "a1B2" * 9}, "a token of GitHub's"),
        ({"sk-" + "a1B2" * 9: 1}, "a key as OpenAI's and others are"),
        ({"header": "Bearer abcdef1234567890"}, "a credential"),
    ],
)
def test_credentials_of_many_kinds_are_named(content: Any, kind: str) -> None:
    """In texts and in keys."""
    story = Story()
    story.event("tool_result", content=content)

    assert only(findings(story.records), "SECRET_IN_PAYLOAD").evidence["kind"] == kind


def test_a_text_under_the_name_of_a_secret_is_named_in_traces_of_others() -> None:
    """This library records none unless it is told to, and then it is no mistake; placeholders are none either."""
    own, other, harmless = Story(), Story(foreign=True), Story(foreign=True)
    for story in (own, other):
        story.tool("log_in", {"user": "mia", "password": "hunter2-hunter2"})
    values = [
        "",
        "[redacted]",
        "********",
        "<your key>",
        "${API_KEY}",
        "abc",
        7,
        True,
        None,
        {"type": "string"},
    ]
    for value in values:
        harmless.tool("log_in", {"api_key": value, "n": len(harmless.records)})
    one = only(findings(other.records), "SECRET_IN_PAYLOAD")

    assert (one.severity, one.steps) == ("medium", [1])
    assert one.evidence["where"] == "content.toolCalls[0].arguments.password"
    assert findings(own.records) == findings(harmless.records) == []


def test_numbers_and_surrogates_hide_no_credential() -> None:
    """What JSON can hold and an encoder does not take."""
    story = Story()
    story.event("tool_result", content={"a": 10**40, "b": "\ud800", "c": KEY})

    assert only(findings(story.records), "SECRET_IN_PAYLOAD").steps == [1]


# Workflows


def test_another_trace_id_in_a_request_is_named() -> None:
    """In its headers, and in what the proxy adds to the arguments of tools."""
    headers, arguments, same = Story("a"), Story("a"), Story("a")
    for story, trace in ((headers, "b"), (same, "a")):
        story.ask("Hello", metadata={"params": {"extra_headers": {"X-Trace-ID": trace}}})
        story.answer()
        story.tool(arguments={"amount": 1, "_whyops_trace_id": trace if story is same else "a"})
    arguments.tool(arguments={"amount": 1, "_whyops_trace_id": "b"})

    for story in (headers, arguments):
        one = only(findings(story.records), "TRACE_ID_CHANGED")
        assert (one.severity, one.steps, one.evidence) == ("high", [1], {"traces": ["a", "b"]})
    assert findings(same.records) == []


def summary(number: int, **members: Any) -> TraceSummary:
    """Return the summary of a trace that took a second, a second after the one before."""
    start, end = (f"2026-11-21T22:30:{2 * number + more:02d}.000Z" for more in (0, 1))
    about = {"agent_name": "shop", "started_at": start, "last_at": end, "event_count": 2, **members}
    return TraceSummary(f"trace-{number}", **about)


def test_a_workflow_in_many_traces_is_named() -> None:
    """Traces of single calls in a row, some of models and some of tools, or with half a call each."""
    mixed = [summary(n, **({"llm_responses": 1} if n % 2 else {"tool_calls": 1})) for n in range(4)]
    halves = [summary(n, event_count=1) for n in range(3)]
    one = only(findings_across(reversed(mixed)), "TRACE_ID_CHANGED")

    assert (one.severity, one.steps) == ("medium", [])
    assert one.evidence == {"agent": "shop", "traces": [f"trace-{n}" for n in range(4)]}
    assert len(findings_across(halves)) == 1


def test_traces_that_belong_to_nothing_are_not_named() -> None:
    """Calls of one kind, whole workflows, other users, long pauses, and too few."""
    kinds = itertools.cycle([{"llm_responses": 1}, {"tool_calls": 1}])
    alike = [summary(n, llm_responses=1) for n in range(9)]
    whole = [summary(n, event_count=9, tool_calls=2, llm_responses=2) for n in range(9)]
    users = [summary(n, external_user_id=f"user-{n}", **next(kinds)) for n in range(9)]
    paused = [summary(n, **next(kinds), last_at="2026-11-21T22:00:00.000Z") for n in range(9)]
    few = [summary(n, **next(kinds)) for n in range(2)]

    assert [findings_across(traces) for traces in (alike, whole, users, paused, few)] == [[]] * 5


def test_a_call_that_ends_in_another_trace_is_named() -> None:
    """Told by its span and tool."""
    asked, answered = Story("trace-0", foreign=True), Story("trace-1", foreign=True)
    asked.request("charge_card", span="span_a")
    answered.event(
        "tool_call_response",
        0,
        metadata={"tool": "charge_card"},
        content={"toolResults": {}},
        spanId="span_a",
    )
    traces = {"trace-0": asked.records, "trace-1": answered.records}
    summaries = [summary(n, event_count=1) for n in range(2)]
    one = only(findings_across(summaries, traces.__getitem__), "TRACE_ID_CHANGED")

    assert one.severity == "high"
    assert one.evidence == {"traces": ["trace-0", "trace-1"], "tool": "charge_card", "steps": [1, 1]}


# The rule of the server that has to know more


def test_tools_that_a_model_asked_for_may_still_run() -> None:
    """And an answer in the form of a call that the request forced needs no tool."""
    story, forced = Story(), Story()
    for one, params in (
        (story, {}),
        (forced, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ):
        one.ask("Hello.", metadata={"params": params})
        one.answer("Hello.")
        one.ask("Charge me.", metadata={"params": params})
        one.answer(calls=[call()])

    assert findings(story.records, lambda _: False) == []
    assert codes(findings(story.records)) == [("TOOL_CALL_WITHOUT_FOLLOWUP_EVENTS", "medium")]
    assert codes(server_findings(forced.records)) == [("TOOL_CALL_WITHOUT_FOLLOWUP_EVENTS", "medium")]
    assert findings(forced.records) == []


def test_a_trace_of_one_turn_does_not_say_that_its_tools_never_ran() -> None:
    """A client outside any trace makes a trace of each request, and the tools run elsewhere."""
    story = Story()
    story.ask("Charge me.")
    story.answer(calls=[call()])

    assert codes(server_findings(story.records)) == [("TOOL_CALL_WITHOUT_FOLLOWUP_EVENTS", "medium")]
    assert findings(story.records) == []
