"""Where the arguments of tool calls came from, as the values before them tell."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lines import Process, tool_request, tool_response

from whyops_trace import flush_sync, trace, traced_llm, traced_tool
from whyops_trace._reading.processes import in_time
from whyops_trace.export import export_json
from whyops_trace.store import Store
from whyops_trace.story import Origin, Story, provenance, tell, why
from whyops_trace.testing import capture_events

#: A call of a tool: its name, its arguments, and what it returns or raises.
Step = tuple[str, dict[str, Any], Any]


def run(script: list[Step], question: str = "Do it.", **request: Any) -> Story:
    """Return the story of an agent whose model asks for some calls, one a turn, and gives up."""
    now: dict[str, Any] = {}

    @traced_llm(model="gpt-4o", provider="openai")
    def ask(messages: list[Any], tools: list[Any] | None = None) -> Any:
        return {"choices": [{"message": now["answer"], "finish_reason": "stop"}]}

    def returns(**arguments: Any) -> Any:
        if isinstance(now["result"], Exception):
            raise now["result"]
        return now["result"]

    messages: list[Any] = [
        {"role": "system", "content": "You run a shop."},
        {"role": "user", "content": question},
    ]
    with capture_events(local=True) as records, trace():
        for number, (tool, arguments, result) in enumerate(script):
            call = {"id": f"c{number}", "function": {"name": tool, "arguments": json.dumps(arguments)}}
            now["answer"], now["result"] = {"content": None, "tool_calls": [call]}, result
            ask(messages, **request)
            try:
                told = traced_tool(name=tool)(returns)(**arguments)
            except ValueError as error:
                told = f"Error: {error}"
            messages = [
                *messages,
                {"role": "assistant", **now["answer"]},
                {"role": "tool", "tool_call_id": f"c{number}", "content": json.dumps(told)},
            ]
        now["answer"] = {"content": "I could not do it."}
        ask(messages, **request)
    return tell(records)


def last(story: Story) -> dict[str, Origin]:
    """Return the origins of the last call by the names of its arguments."""
    step = max(use.node.step for section in story.sections for use in section.uses)
    return {origin.argument: origin for origin in provenance(story).get(step, [])}


ASKED = {"id": "c1", "function": {"name": "use", "arguments": '{"value": "A-99999"}'}}
FOUND = (
    "find",
    {"who": "anna"},
    {"orders": [{"id": "A-7713", "total": 1299.5, "link": "https://x.example/o/9"}]},
)


@pytest.mark.parametrize(
    ("given", "match", "place"),
    [
        ("A-7713", "exact", "orders[0].id"),
        ("a-7713 ", "normalised", "orders[0].id"),
        ("1,299.50", "normalised", "orders[0].total"),
        (1299.5, "exact", "orders[0].total"),
        ("x.example", "part", "orders[0].link"),
    ],
)
def test_a_value_is_found_in_a_result(given: Any, match: str, place: str) -> None:
    """As it is, written otherwise, or in a longer text."""
    origin = last(run([FOUND, ("use", {"value": given}, "ok")]))["value"]

    assert (origin.match, origin.source, origin.name, origin.step) == (match, "result", "find", 4)
    assert origin.place == place


def test_a_value_is_found_in_a_long_list() -> None:
    """With what stands beside it there, and what a later list has in its place."""

    def orders(prefix: str) -> dict[str, Any]:
        rows = [{"id": f"{prefix}-{10_000 + n}", "customer": f"C-{20_000 + n}"} for n in range(90)]
        return {"orders": rows, "next": f"{prefix}-token-77"}

    first, second = ("list", {"page": 1}, orders("A")), ("list", {"page": 2}, orders("B"))
    found = last(run([first, second, ("use", {"customer": "A-10057", "next": "A-token-77"}, "ok")]))

    assert found["customer"].text == (
        'customer is from the result of list #4 (orders[57].id), whose customer is "C-20057"; '
        'the later #8 has "B-10057" there'
    )
    assert (
        found["next"].text == 'next is from the result of list #4 (next); the later #8 has "B-token-77" there'
    )


def test_a_value_is_found_among_names_and_beyond_what_is_looked_at() -> None:
    """So nothing is told as nowhere that is there."""
    named = ("find", {"who": "anna"}, {"cards": {"card_48213": {"brand": "visa"}}})
    many = (
        "find",
        {"who": "anna"},
        {"rows": [{"id": number} for number in range(9_000)], "note": "card_48213"},
    )

    assert last(run([named, ("use", {"value": "card_48213"}, "ok")]))["value"].match == "part"
    assert last(run([many, ("use", {"value": "card_48213"}, "ok")]))["value"].match == "part"


@pytest.mark.parametrize(
    ("question", "tools", "text"),
    [
        ("Refund order 48213, please.", None, "order is from the user message #1"),
        (
            "Refund it.",
            [{"name": "refund", "description": "As 48213."}],
            "order is a part of the tools on offer #1 ([0].description)",
        ),
    ],
)
def test_a_value_is_found_in_what_a_model_is_given(question: str, tools: list[Any] | None, text: str) -> None:
    """As words of their own."""
    more = {} if tools is None else {"tools": tools}
    origin = last(run([("refund", {"order": "48213"}, "ok")], question, **more))["order"]

    assert origin.text == text


@pytest.mark.parametrize(
    "given",
    [True, 1, "en", None, 100, 2500, 2026, 0.7, "none", "tea", "a long text that somebody wrote himself", ""],
)
def test_short_and_common_values_are_no_evidence(given: Any) -> None:
    """Wherever they stand."""
    assert last(run([("find", {}, {"value": given}), ("use", {"value": given}, "ok")])) == {}


def test_values_of_any_depth_and_size_are_taken() -> None:
    """What is deeper than is looked at has no origin."""
    deep: Any = "A-7713"
    for _ in range(40):
        deep = [{"in": deep}]
    given = {"deep": deep, "many": [[]] * 3, "huge": 10**40 + 7, "text": "1" * 100, "odd": "7e999,1"}

    assert [*last(run([("find", {}, given), ("use", given, "ok")]))] == ["huge", "text", "odd"]


@pytest.mark.parametrize("given", ["Springfield", "2026-12-24", 12.25, "417"])
def test_what_a_model_may_choose_is_not_told_as_nowhere(given: Any) -> None:
    """Such as names, dates and amounts."""
    assert last(run([FOUND, ("use", {"value": given}, "ok")])) == {}


def test_a_value_that_is_nowhere_is_told() -> None:
    """Though a part of it is there, and with where the model said it first."""
    origin = last(run([FOUND, ("use", {"value": "A-77"}, ValueError("no such order"))]))["value"]

    assert (origin.match, origin.source, origin.step) == ("nowhere", "", 0)
    assert origin.text == "value is nowhere before this call"


def test_an_error_that_repeats_the_arguments_of_its_call_is_no_origin() -> None:
    """The value was nowhere before that call either."""
    failed: Step = ("use", {"value": "A-99999"}, ValueError("no such order: A-99999"))

    assert last(run([FOUND, failed, failed]))["value"].match == "nowhere"
    assert last(run([FOUND, ("use", {}, ValueError("use A-99999")), failed]))["value"].match == "exact"


def test_nothing_is_nowhere_that_may_have_been_cut_off_or_seen() -> None:
    """In a text that is not whole, or in a picture; nor in a program that asks no model."""
    cut = ("find", {"who": "anna"}, {"text": "head ... [cut 40,000 of 41,000 characters] ... tail"})
    picture = [{"type": "image_url", "image_url": {"url": "https://x.example/p.png"}}]
    with capture_events(local=True) as records, trace():
        traced_tool(lambda value: "ok")("A-99999")

    with capture_events(local=True) as private, trace():
        traced_tool(capture_output=False)(lambda: "A-99999")()
        traced_llm(lambda question: {"choices": [{"message": {"tool_calls": [ASKED]}}]})("Use it.")
        traced_tool(name="use")(lambda value: "ok")("A-99999")

    assert provenance(tell(private)) == {}
    assert last(run([cut, ("use", {"value": "A-99999"}, "ok")])) == {}
    assert last(run([("use", {"value": "A-99999"}, "ok")], picture)) == {}  # type: ignore[arg-type]
    assert provenance(tell(records)) == {}


def test_the_arguments_of_the_call_around_are_an_origin() -> None:
    """Of what it passes on."""

    @traced_tool
    def inner(order: str) -> None: ...

    @traced_tool
    def outer(order: str) -> None:
        inner(order)

    with capture_events(local=True) as records, trace():
        outer("A-7713")
    found = provenance(tell(records))

    assert [(step, origin.text) for step, (origin,) in found.items()] == [
        (2, "order is from the arguments of outer #1 (order)")
    ]


def test_records_of_several_processes_are_compared_by_their_times() -> None:
    """Whatever their steps are; here the process that was stored later ran first."""
    here, there = Process(), Process("0123456789ab")
    records = [
        tool_request(here, 1, tool="use", arguments={"id": "A-7713"}, at=30),
        tool_response(here, 2, 1, tool="use", at=40),
        tool_request(there, 100_001, tool="find", arguments={}, at=10),
        tool_response(there, 100_002, 100_001, tool="find", results={"id": "A-7713"}, at=20),
    ]

    assert [origin.text for origin in provenance(tell(in_time(records)))[1]] == [
        "id is from the result of find #100002 (id)"
    ]


def test_only_the_calls_that_are_asked_for_are_told() -> None:
    """By their steps."""
    story = run([FOUND, ("use", {"value": "A-7713"}, "ok"), ("use", {"value": "A-7713"}, "ok")])

    assert [*provenance(story)] == [7, 11]
    assert [*provenance(story, [11, 4])] == [11]


def test_an_export_has_the_origins(tmp_path: Path) -> None:
    """By the steps of the calls, in the names of JSON."""

    @traced_tool
    def find() -> dict[str, str]:
        return {"id": "A-7713"}

    @traced_tool
    def use(id: str) -> None: ...

    with trace("t"):
        use(find()["id"])
    flush_sync()
    told = json.loads(export_json(Store(tmp_path / "home" / "traces.db"), "t"))["provenance"]

    assert told == [
        {
            "step": 3,
            "arguments": [
                {
                    "argument": "id", "value": '"A-7713"', "match": "exact", "source": "result", "step": 2,
                    "name": "find", "place": "id", "later": "", "laterStep": 0, "named": "", "meant": "",
                }
            ],
        }
    ]  # fmt: skip


def seeded(rng: random.Random) -> Iterator[tuple[list[Step], tuple[str, ...]]]:
    """Yield fifty failures with the words that must be told of their origin."""

    def made() -> str:
        return rng.choice(
            (f"{rng.choice('ABC')}-{rng.randrange(1013, 99991)}", f"{rng.randrange(10_013, 99_991)}")
        )

    for number in range(50):
        one, other = made(), made()
        between: list[Step] = [("policy", {"topic": "cards"}, {"policy": "Within 30 days."})] * rng.randrange(
            4
        )
        failure: Any = rng.choice(
            [ValueError("refused"), {"error": "refused"}, f"Error: order {one} is refused"]
        )
        if number % 4 == 0:
            key = rng.choice(["id", "order_id", "reference"])
            yield (
                [
                    ("find", {"since": "2026-01-01"}, {"orders": [{key: one, "state": "open"}]}),
                    *between,
                    ("find", {"since": "2026-03-01"}, rng.choice([{key: other}, {"orders": [{key: other}]}])),
                    ("refund", {"order_id": one}, failure),
                ],
                ("order_id is from the result of find #4", f'has "{other}" there'),
            )
        elif number % 4 == 1:
            found = ("find", {"email": "anna@example.com"}, {"customer_id": other})
            yield (
                [found, *between, ("get", {"order_id": one}, failure)],
                ("order_id is nowhere before this call",),
            )
        elif number % 4 == 2:
            yield (
                [
                    ("items", {"query": "cups"}, {"items": ["cup"], "next_page": f"tok_{one}"}),
                    (
                        "items",
                        {"query": "cups", "page": f"tok_{one}"},
                        {"items": [], "next_page": f"tok_{other}"},
                    ),
                    *between,
                    ("items", {"query": "cups", "page": f"tok_{one}", "size": 25}, failure),
                ],
                ("page is from the result of items #4 (next_page)", f'has "tok_{other}" there'),
            )
        else:
            sender, receiver = rng.choice([("sender", "receiver"), ("from_account", "to_account")])
            yield (
                [
                    ("order", {"number": "P-1"}, {sender: one, receiver: other}),
                    *between,
                    ("transfer", {sender: other, receiver: one}, failure),
                ],
                (f"{sender} is from the result of order #4 ({receiver}), whose {sender} is", one),
            )


def test_the_origin_of_a_failure_is_among_its_first_lines() -> None:
    """An id of an older result, an invented one, an old page, two that were swapped: fifty failures in all."""
    missed = []
    for script, words in seeded(random.Random(7)):
        story = run(script)
        texts = [moment.text for moment in why(story).moments[:3]]
        if not any(all(word in text for word in words) for text in texts):
            missed.append((words, texts))

    assert missed == []


def test_a_run_without_failures_has_no_line_more() -> None:
    """Whatever its arguments are."""
    assert [line.kind for line in run([FOUND, ("use", {"value": "A-99999"}, "ok")]).whys] == []
