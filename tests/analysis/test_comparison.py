"""Two runs of an agent side by side: how long they are the same, and what differs first."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from whyops_trace import step, trace, traced_llm, traced_tool
from whyops_trace.comparison import Comparison, compare
from whyops_trace.testing import capture_events

Run = list[dict[str, Any]]

ORDER = {"id": 8841, "total": 49.9, "express": 12.9}


def asks(tool: str, words: str = "Let me see.", **arguments: Any) -> dict[str, Any]:
    """Return an answer of a model that asks for a tool; each has an id of its own."""
    call = {"id": f"call_{id(arguments)}", "function": {"name": tool, "arguments": json.dumps(arguments)}}
    return {"content": words, "tool_calls": [call], "finish_reason": "tool_calls"}


USUAL = (
    asks("get_order", order=8841),
    asks("refund", order=8841, amount=12.9),
    {"content": "I refunded it.", "finish_reason": "stop"},
)


def run(
    answers: Sequence[dict[str, Any]] = USUAL,
    *,
    question: str = "My parcel came late.",
    system: str = "You work in a shop.",
    model: str = "gpt-4o",
    offered: Sequence[str] = ("get_order", "refund"),
    order: Any = ORDER,
    **parameters: Any,
) -> Run:
    """Run an agent whose model gives these answers, and return its records."""
    given = iter(answers)

    @traced_llm(provider="openai")
    def ask(messages: list[Any], model: str, tools: list[Any], **parameters: Any) -> dict[str, Any]:
        return {"model": model, **next(given)}

    @traced_tool
    def get_order(order: int) -> Any:
        return result

    @traced_tool
    def refund(order: int, amount: float) -> dict[str, float]:
        if amount > 12.9:
            raise ValueError("it exceeds the fee")
        return {"refunded": amount}

    tools: dict[str, Callable[..., Any]] = {"get_order": get_order, "refund": refund}
    result = order
    messages: list[Any] = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    named = [{"type": "function", "function": {"name": name}} for name in offered]
    with capture_events() as events, trace():
        while (answer := ask([*messages], model=model, tools=named, **parameters)).get("tool_calls"):
            messages.append({"role": "assistant", **answer})
            for call in answer["tool_calls"]:
                arguments = json.loads(call["function"]["arguments"])
                try:
                    said = tools[call["function"]["name"]](**arguments)
                except ValueError as error:
                    said = {"error": str(error)}
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(said)})
    return events


def same(comparison: Comparison) -> tuple[int, int]:
    """Return the numbers of turns and calls before the first difference."""
    return comparison.same_turns, comparison.same_calls


def test_the_same_run_twice_is_the_same() -> None:
    """Times, ids of calls and of traces, and the words beside a call make no difference."""
    other = (asks("get_order", "I will look.", order=8841), *USUAL[1:])

    comparison = compare(run(), run(other))

    assert comparison.difference is None
    assert same(comparison) == (3, 2)
    assert comparison.only == ({}, {})


def test_a_decision_of_the_model_is_told_from_what_it_was_given() -> None:
    """The model was given the same, and asked for another amount: the member is named, and what came of it."""
    comparison = compare(run((USUAL[0], asks("refund", order=8841, amount=129.0), USUAL[2])), run())

    found = comparison.difference
    assert found is not None
    assert (found.kind, found.turn, found.text) == (
        "decision",
        2,
        "given the same, the model decides otherwise",
    )
    assert found.sides == ("refund(order=8841, amount=129.0)", "refund(order=8841, amount=12.9)")
    assert [(change.path, change.before, change.after) for change in found.changes] == [
        ("amount", "129.0", "12.9")
    ]
    assert same(comparison) == (1, 1)
    assert comparison.only == (
        {"refund(order=8841, amount=129.0)": 1},
        {"refund(order=8841, amount=12.9)": 1},
    )


def test_a_tool_that_answered_otherwise_comes_before_what_the_model_made_of_it() -> None:
    """The same call returned something else: the world differs, and only then the agent."""
    comparison = compare(
        run(),
        run((USUAL[0], asks("refund", order=8841, amount=9.9), USUAL[2]), order={**ORDER, "express": 9.9}),
    )

    found = comparison.difference
    assert found is not None
    assert (found.kind, found.turn) == ("result", 1)
    assert [(change.path, change.before, change.after) for change in found.changes] == [
        ("express", "12.9", "9.9")
    ]


@pytest.mark.parametrize(
    ("kind", "changed", "sides"),
    [
        ("prompt", {"system": "You work in a bank."}, ("You work in a shop.", "You work in a bank.")),
        ("tools", {"offered": ["get_order"]}, ("get_order, refund", "get_order")),
        ("params", {"temperature": 1}, ('{"model": "gpt-4o"}', '{"model": "gpt-4o", "temperature": 1}')),
        (
            "message",
            {"question": "My parcel is lost."},
            ("user: My parcel came late.", "user: My parcel is lost."),
        ),
    ],
)
def test_what_the_model_was_given_is_named(
    kind: str, changed: dict[str, Any], sides: tuple[str, str]
) -> None:
    """The prompt, the tools on offer, the parameters and the words of the user differ before any decision does."""
    comparison = compare(run(), run(**changed))

    found = comparison.difference
    assert found is not None
    assert (found.kind, found.sides) == (kind, sides)
    assert same(comparison) == (0, 0)


def test_a_call_that_failed_differs_from_one_that_did_not() -> None:
    """The end of a call counts, with its error."""
    dear = (USUAL[0], asks("refund", order=8841, amount=129.0), USUAL[2])
    kind = run(dear)
    for record in kind:  # a shop that pays everything back
        if record["eventType"] == "tool_call_response" and "error" in record["content"]["toolResults"]:
            record["content"]["toolResults"] = {"refunded": 129.0}
            del record["metadata"]["outcome"]
    kind = [record for record in kind if record["eventType"] != "error"]

    found = compare(run(dear), kind).difference

    assert found is not None
    assert (found.kind, found.text) == ("result", "the same call ends otherwise")
    assert found.sides == ("refund → ValueError: it exceeds the fee", 'refund → {"refunded": 129.0}')


def test_a_run_that_ended_is_told_from_one_that_goes_on() -> None:
    """One run is the beginning of the other: that one goes on with a call."""
    events = run()
    beginning = [record for record in events if record["stepId"] <= 2]

    comparison = compare(beginning, events)

    assert comparison.difference is not None
    assert comparison.difference.text == "the first run goes on with nothing more, the second one with a call"
    assert comparison.difference.steps[0] == 0


def test_texts_that_do_not_count_can_be_named() -> None:
    """A date in the prompt differs each day, and need not count."""
    runs = [run(system=f"Today is 2026-11-{day}.") for day in (29, 30)]

    ignoring = compare(*runs, ignore=[re.compile(r"\d{4}-\d\d-\d\d")])

    assert compare(*runs).difference is not None
    assert ignoring.difference is None


def test_steps_of_the_program_are_compared() -> None:
    """A program that takes another path differs at the step."""

    def work(name: str) -> Run:
        with capture_events() as events, trace(), step("plan"), step(name):
            pass
        return events

    found = compare(work("search"), work("buy")).difference

    assert found is not None
    assert (found.kind, found.sides) == ("step", ("search", "buy"))


def test_a_long_text_is_shown_from_where_it_differs() -> None:
    """Both sides begin shortly before the first character that differs, on one line, safe to print."""
    texts = ["Read this.\n" * 100 + f"The fee is {fee}.\x1b[31m" for fee in (12, 13)]

    found = compare(*(run(question=text) for text in texts)).difference

    assert found is not None
    assert [side[:1] + side[-13:] for side in found.sides] == ["…he fee is 12.", "…he fee is 13."]
    assert max(map(len, found.sides)) < 70


@pytest.mark.parametrize("strange", [[], [{}], [{"eventType": "llm_response", "content": [1]}]])
def test_records_of_any_kind_can_be_compared(strange: Run) -> None:
    """An empty trace, and records that hold nothing, differ from a run and not from themselves."""
    assert compare(strange, strange).difference is None
    assert compare(strange, run()).difference is not None


def test_long_runs_are_compared_in_a_glance() -> None:
    """Runs of thousands of calls that differ throughout are aligned as far as that costs little."""
    runs = []
    for name in ("a", "b"):

        @traced_tool(name=name)
        def call(n: int) -> int:
            return n

        with capture_events() as events, trace():
            for n in range(3_000):
                call(n)
        runs.append(events)

    comparison = compare(*runs)

    assert comparison.difference is not None
    assert sum(comparison.only[0].values()) == 1_000


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_branches_are_compared_whichever_of_them_is_faster(order: Sequence[int]) -> None:
    """Each with all that is in it."""

    @traced_tool
    async def look(place: str) -> str:
        return place

    async def branches(order: Sequence[int]) -> None:
        turns = [asyncio.Event() for _ in range(4)]

        async def branch(number: int) -> None:
            async with step(f"branch {number}"):
                await look(f"{number}a")
                await turns[order.index(number)].wait()
                await look(f"{number}b")
                turns[order.index(number) + 1].set()

        turns[0].set()
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(branch(number))

    runs = []
    for each in ((0, 1, 2), order):
        with capture_events() as events, trace():
            asyncio.run(branches(each))
        runs.append(events)

    assert compare(*runs).difference is None
