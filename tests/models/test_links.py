"""Which turn asked for a tool call, and which report by hand tells of a turn again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from packages import items, openai
from provider import Provider
from recorded import Recorded
from replies import Reply, ToolCall
from traced import APIS, CHATS, Api, both_faces, create, traced

from whyops_trace import TokenUsage, Trace, WhyOps, trace, traced_llm, traced_tool
from whyops_trace._models.links import AskedTools
from whyops_trace._recording.state import LINKED_TRACES
from whyops_trace.exceptions import ConfigurationError

CHARGE = ToolCall("charge_card", {"amount": 4999}, "call_1")
ADDED = "_whyops_trace_id"
pytestmark = pytest.mark.asyncio_only


@pytest.fixture
def ask(provider: Provider) -> Iterator[Callable[..., None]]:
    """Return a function that makes a turn of a traced client in which the model asks for these tool calls."""
    plain = openai.OpenAI(api_key=provider.openai_key, base_url=provider.openai_url, max_retries=0)
    made = WhyOps(agent_name="shop").openai(plain)

    def ask(*calls: ToolCall) -> None:
        provider.reply(Reply(tool_calls=calls))
        made.chat.completions.create(**CHATS.body)

    with plain:
        yield ask


def links(events: Recorded) -> list[int | None]:
    """Return of each tool call the step of the turn that asked for it."""
    requests = [record for record in events.records if record["eventType"] == "tool_call_request"]
    return [record["metadata"].get("requestedBy") for record in requests]


@traced_tool
def charge_card(amount: int, currency: str = "usd") -> dict[str, Any]:
    """Charge a card."""
    return {"id": "ch_1", "amount": amount}


@traced_tool
def refund(charge: str, tool_call_id: str = "") -> str:
    """Refund a charge."""
    return "re_1"


# Which turn asked for a call


@both_faces(*APIS)
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.anyio
async def test_a_tool_call_names_the_turn_that_asked_for_it(
    provider: Provider, events: Recorded, api: Api, kind: Any, streams: bool
) -> None:
    """By its name and arguments; those that have a default need not be asked for."""
    provider.reply(Reply("Sure.", (CHARGE,)))

    async with traced(kind, provider) as made:
        with trace("checkout-1"):
            answer = await create(made, api, **({"stream": True} if streams else {}))
            if streams:
                await items(answer)
            charge_card(4999)
    turn, request = events.records[1], events.records[2]

    assert turn["eventType"] == "llm_response"
    assert (request["metadata"]["requestedBy"], request["parentStepId"]) == (turn["stepId"], turn["stepId"])
    assert links(events) == [turn["stepId"]]


def test_a_tool_call_is_found_by_its_id(events: Recorded, ask: Any) -> None:
    """In the parameter ``tool_call_id``, whatever the other arguments are."""
    with trace("checkout-1"):
        ask(ToolCall("refund", {"charge": "ch_1"}, "call_1"))
        ask(ToolCall("refund", {"charge": "ch_1"}, "call_2"))
        refund("ch_1", tool_call_id="call_2")
        refund("another one", tool_call_id="call_1")

    assert links(events) == [4, 2]


def test_the_parameter_with_the_id_can_have_another_name(events: Recorded, ask: Any) -> None:
    """As the option ``tool_call_id`` names it; so is a tool that has another name than the model knows."""

    @traced_tool(tool_call_id="call_id")
    def pay_back(charge: str, call_id: str) -> str:
        return charge

    with trace("checkout-1"):
        ask(ToolCall("refund", {"charge": "ch_1"}, "call_1"))
        ask(ToolCall("refund", {"charge": "ch_1"}, "call_2"))
        pay_back("ch_1", "call_2")
        pay_back("ch_1", call_id="call_1")

    assert links(events) == [4, 2]


def test_a_parameter_for_the_id_that_does_not_exist_is_refused() -> None:
    """At the decoration, with its name."""
    with pytest.raises(ConfigurationError, match="has no parameter 'call_id'"):

        @traced_tool(tool_call_id="call_id")
        def pay_back(charge: str) -> None:
            """Do nothing."""


def test_an_id_that_no_turn_gave_is_no_hindrance(events: Recorded, ask: Any) -> None:
    """The call is then found by its name and arguments."""
    with trace("checkout-1"):
        ask(ToolCall("refund", {"charge": "ch_1"}, "call_1"))
        refund("ch_1", tool_call_id="an id of my own")
        refund("ch_2", tool_call_id="an id of my own")

    assert links(events) == [2, None]


def test_identical_calls_belong_to_the_turns_in_their_order(events: Recorded, ask: Any) -> None:
    """Two of one turn, then that of the next."""
    with trace("checkout-1"):
        ask(CHARGE, ToolCall("charge_card", {"amount": 4999}, "call_2"))
        ask(ToolCall("charge_card", {"amount": 4999}, "call_3"))
        for _ in range(3):
            charge_card(4999)

    assert links(events) == [2, 2, 4]


def test_a_call_that_is_made_again_belongs_to_the_turn_of_the_last_one(events: Recorded, ask: Any) -> None:
    """A retry of a tool is still what the model asked for."""
    with trace("checkout-1"):
        ask(CHARGE)
        charge_card(4999)
        charge_card(4999)
        ask(CHARGE)
        charge_card(4999)
        charge_card(4999)

    assert links(events) == [2, 2, 8, 8]


def test_a_call_that_nobody_asked_for_has_no_link(events: Recorded, ask: Any) -> None:
    """Another tool, other arguments, an argument that is missing; nor one in another trace."""
    with trace("checkout-1"):
        charge_card(4999)
        ask(
            CHARGE,
            ToolCall("charge_card", {"amount": 1, "tip": 2}, "call_2"),
            ToolCall("refund", "{", "call_3"),
        )
        charge_card(5000)
        charge_card(1)
        refund("ch_1")
    with trace("checkout-2"):
        charge_card(4999)

    assert links(events) == [None] * 5


@pytest.mark.parametrize(
    ("asked", "called", "fits"),
    [
        ("1", 1.0, True),
        ("1.0", 1, True),
        ('{"a": [1, null], "b": {}}', {"b": {}, "a": [1, None]}, True),
        ("-1", -2, False),
        ("1", "1", False),
        ("[1, 2]", [2, 1], False),
        ('"' + "a" * 200_000 + '"', "a" * 200_000, True),
    ],
)
def test_arguments_are_compared_as_data(asked: str, called: Any, fits: bool) -> None:
    """Of any size, and without being kept."""
    tools = AskedTools()
    tools.note(3, [{"function": {"name": "write", "arguments": f'{{"value": {asked}}}'}}])

    assert tools.find("write", {"value": called, "more": 1}, None, lambda _: False) == (3 if fits else 0)


def test_links_of_traces_that_are_not_open_are_forgotten_at_last(
    events: Recorded, ask: Callable[..., None]
) -> None:
    """A trace that is entered again soon goes on with them, an open one keeps them."""
    conversation, process = trace("checkout-1"), trace("process")
    with conversation:
        ask(CHARGE)
    with conversation:
        charge_card(4999)
    with process:
        ask(CHARGE)
        for number in range(LINKED_TRACES + 2):
            trace(f"other-{number}").llm_response_sync(
                "m", "p", tool_calls=[{"function": {"name": "x", "arguments": ""}}]
            )
        charge_card(4999)
    with conversation:
        charge_card(4999)

    assert [link is not None for link in links(events)] == [True, True, False]


def test_what_the_proxy_adds_to_arguments_is_no_difference(events: Recorded, ask: Any) -> None:
    """Neither where the model's turn has it nor where the call has."""
    given: dict[str, Any] = {"amount": 1, ADDED: "checkout-1"}
    with trace("checkout-1"):
        ask(ToolCall("charge_card", {"amount": 4999, ADDED: "checkout-1"}, "call_1"))
        charge_card(4999)
        ask(ToolCall("charge_card", {"amount": 1}, "call_2"))
        charge_card(**given)

    assert links(events) == [2, 6]


def test_secrets_among_the_arguments_are_neither_compared_nor_shown(events: Recorded, ask: Any) -> None:
    """The call is found by the rest of them, and its records do not have the secret."""

    @traced_tool
    def sign_in(user: str, password: str) -> bool:
        return True

    with trace("checkout-1"):
        ask(ToolCall("sign_in", {"user": "ada", "password": "hunter2"}, "call_1"))
        sign_in("ada", "hunter2")
        sign_in("bob", "hunter2")

    assert links(events) == [2, None]
    assert "hunter2" not in json.dumps(events.records[2:])


def test_a_parameter_that_is_redacted_is_not_shown(events: Recorded, ask: Any) -> None:
    """A call that hides an argument which the model gave has other arguments; its id still tells."""

    @traced_tool(redact=["card"])
    def pay(card: str, tool_call_id: str) -> bool:
        return True

    with trace("checkout-1"):
        ask(ToolCall("pay", {"card": "4111"}, "call_1"))
        pay("4111", "call_1")

    assert links(events) == [2]
    assert "4111" not in json.dumps(events.records[2:])


def test_a_tool_call_reported_by_hand_names_its_turn(events: Recorded, ask: Any) -> None:
    """By its name and arguments, or by the id of the call."""
    with trace("checkout-1") as handle:
        ask(CHARGE)
        handle.tool_call_request_sync("charge_card", [{"name": "charge_card", "arguments": {"amount": 4999}}])
        handle.tool_call_request_sync("refund", [{"name": "refund", "arguments": {}}])

    assert links(events) == [2, None]


def test_a_turn_reported_by_hand_asks_for_tools_as_well(events: Recorded) -> None:
    """Also one of a function of one's own."""
    asked = {"tool_calls": [{"id": "c", "function": {"name": "charge_card", "arguments": '{"amount": 7}'}}]}

    @traced_llm
    def decide(prompt: str) -> Any:
        return asked

    with trace("checkout-1") as handle:
        handle.llm_response_sync(
            "m",
            "p",
            tool_calls=[{"id": "c", "function": {"name": "charge_card", "arguments": '{"amount": 8}'}}],
        )
        charge_card(8)
        decide("Charge.")
        charge_card(7)

    assert links(events) == [1, 5]


# What the proxy adds to arguments


class Shop:
    """A shop with tools of every kind; none of them can have another argument than the amount."""

    @traced_tool
    def method(self, amount: int) -> int:
        """Return the amount."""
        return amount

    @classmethod
    @traced_tool
    def of_class(cls, amount: int) -> int:
        """Return the amount."""
        return amount

    @staticmethod
    @traced_tool
    def static(amount: int) -> int:
        """Return the amount."""
        return amount


@traced_tool
async def awaited(amount: int) -> int:
    """Return the amount."""
    return amount


@traced_tool
def generated(amount: int) -> Iterator[int]:
    """Yield the amount."""
    yield amount


@traced_tool
async def agenerated(amount: int) -> AsyncIterator[int]:
    """Yield the amount."""
    yield amount


@pytest.mark.parametrize(
    "tool",
    [Shop().method, Shop.of_class, Shop.static, charge_card, awaited, generated, agenerated],
    ids=["method", "class method", "static method", "function", "coroutine", "generator", "async generator"],
)
@pytest.mark.anyio
async def test_what_the_proxy_adds_to_arguments_is_left_out_of_calls(events: Recorded, tool: Any) -> None:
    """The tool, which has no such parameter, is called without, and it is not recorded either."""
    result = tool(**{"amount": 7, ADDED: "checkout-1"})
    if tool is awaited:
        result = await result
    elif tool in (generated, agenerated):
        (result,) = await items(result)
    arguments = events.rows[0][5]

    assert result in (7, {"id": "ch_1", "amount": 7})
    assert arguments["amount"] == 7
    assert ADDED not in json.dumps(events.records)


def test_a_tool_with_any_arguments_does_not_get_what_the_proxy_adds(events: Recorded) -> None:
    """Since nobody meant it for the tool."""

    @traced_tool
    def note(**fields: Any) -> dict[str, Any]:
        return fields

    given = {"amount": 7, ADDED: "checkout-1"}

    assert note(**given) == {"amount": 7}
    assert given == {"amount": 7, ADDED: "checkout-1"}


def test_a_tool_with_such_a_parameter_gets_it(events: Recorded) -> None:
    """By keyword and by position."""

    @traced_tool
    def note(amount: int, _whyops_trace_id: str) -> str:
        return _whyops_trace_id

    given: dict[str, Any] = {"amount": 7, ADDED: "checkout-1"}

    assert note(**given) == "checkout-1"
    assert note(7, "checkout-1") == "checkout-1"


def test_without_tracing_it_is_left_out_all_the_same(provider: Provider) -> None:
    """A program must not fail because nothing is recorded."""
    WhyOps(agent_name="shop", tracing="off")
    given: dict[str, Any] = {"amount": 7, ADDED: "checkout-1"}

    assert charge_card(**given) == {"id": "ch_1", "amount": 7}


# Turns reported by hand beside a client's


TEXT = "Hello, how can I help?"
USAGE: TokenUsage = {"promptTokens": 12, "completionTokens": 5, "totalTokens": 17}


@pytest.fixture
def made(provider: Provider) -> Iterator[Any]:
    """Return a traced client whose model says hello."""
    with openai.OpenAI(api_key=provider.openai_key, base_url=provider.openai_url, max_retries=0) as plain:
        yield WhyOps(agent_name="shop").openai(plain)


async def report(handle: Trace, face: str, model: str, content: str) -> None:
    """Report a turn by hand."""
    if face == "sync":
        handle.llm_response_sync(model, "openai", content, usage=USAGE, latency_ms=5)
    else:
        await handle.llm_response(model, "openai", content, usage=USAGE, latency_ms=5)


@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.parametrize(
    ("model", "content"),
    [("gpt-4o", "As I say."), ("openai/gpt-4o", TEXT), ("gpt-4o-2026-01-01", TEXT)],
    ids=["by its model", "by its model under its provider", "by its text"],
)
@pytest.mark.anyio
async def test_a_turn_of_a_client_that_is_reported_again_stays_here(
    events: Recorded, made: Any, said: Callable[[], list[str]], face: str, model: str, content: str
) -> None:
    """Marked, without its tokens, and with a warning that names the mistake; on the server nothing follows from it."""
    with trace("checkout-1") as handle:
        made.chat.completions.create(**CHATS.body)
        await report(handle, face, model, content)
        charge_card(4999)
    turn, double, following = events.records[1:4]

    assert (double["eventType"], double["for"]) == ("llm_response", "local")
    assert double["metadata"] == {
        "within": 0, "wraps": True, "doubles": turn["stepId"], "model": model, "provider": "openai", "latencyMs": 5,
    }  # fmt: skip
    assert double["content"] == {"content": content}
    assert following["parentStepId"] == turn["stepId"]
    (warning,) = said()
    assert warning.startswith(f"llm_response(model='{model}') in trace 'checkout-1' reports a turn")
    assert "leave it out" in warning


def test_each_turn_is_doubled_once(events: Recorded, made: Any, said: Callable[[], list[str]]) -> None:
    """A second report by hand beside one turn of a client is a turn of its own; the warning is said once."""
    with trace("checkout-1") as handle:
        for _ in range(2):
            made.chat.completions.create(**CHATS.body)
            handle.llm_response_sync("gpt-4o", "openai", TEXT)
        handle.llm_response_sync("gpt-4o", "openai", TEXT)
    answers = [record for record in events.records if record["eventType"] == "llm_response"]

    assert [record["metadata"].get("doubles") for record in answers] == [None, 2, None, 5, None]
    assert len(said()) == 1


def test_another_turn_reported_by_hand_is_a_turn(
    events: Recorded, made: Any, said: Callable[[], list[str]]
) -> None:
    """Of another model that says something else; and any in another trace, or before the client's."""
    with trace("checkout-1") as handle:
        handle.llm_response_sync("gpt-4o", "openai", TEXT)
        made.chat.completions.create(**CHATS.body)
        handle.llm_response_sync("mistral-large", "mistral", "Bonjour.")
    with trace("checkout-2") as handle:
        handle.llm_response_sync("gpt-4o", "openai", TEXT)
    answers = [record for record in events.records if record["eventType"] == "llm_response"]

    assert len(answers) == 4
    assert [record for record in answers if "for" in record or "doubles" in record["metadata"]] == []
    assert said() == []


def test_a_function_around_nothing_is_no_report_of_a_clients_turn(events: Recorded, made: Any) -> None:
    """A turn that ``@traced_llm`` records is one of its own, though its model is the same."""

    @traced_llm(model="gpt-4o")
    def own(prompt: str) -> str:
        return TEXT

    with trace("checkout-1"):
        made.chat.completions.create(**CHATS.body)
        own("Hello")

    assert [record["metadata"].get("doubles") for record in events.records] == [None] * 5
