"""Traces that two sides report to: the proxy the calls of models, the library all else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, Hang
from findings import findings
from hybrid import KINDS, METADATA, agent, answered, ask, connected, is_openai, kept, types
from packages import CHAT, CLAUDE, anthropic, got, items, method, openai, told
from programs import outline, start_code, stored
from provider import Provider
from replies import Gate, Reply, ToolCall, Usage
from serving import KEY, posts, sent
from wire import Row

from whyops_trace import TailSampling, WhyOps, propagate, settings, traced_llm, traced_tool
from whyops_trace._delivery.worker import Delivery
from whyops_trace._recording import recorder
from whyops_trace.providers import _link
from whyops_trace.store import Store
from whyops_trace.tree import build

#: Seconds that a test waits for what must happen at all.
PATIENCE = 30.0
#: The same for what must not wait: less than any request to a server that hangs.
SOON = 10.0
QUESTIONS = itertools.count(1)
ONE_OF_EACH = pytest.mark.parametrize("kind", [openai.OpenAI, anthropic.AsyncAnthropic])
ASYNC = pytest.mark.parametrize("kind", [openai.AsyncOpenAI, anthropic.AsyncAnthropic])
pytestmark = [pytest.mark.anyio, pytest.mark.asyncio_only]


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests wait for what was recorded before them as long as it takes on a machine that is busy."""
    monkeypatch.setattr(settings, "PROXY_WAIT", PATIENCE)
    monkeypatch.setattr(_link, "FIRST_WAIT", PATIENCE)


@pytest.fixture
def sdk(collector: Collector, provider: Provider) -> WhyOps:
    """An agent whose clients go through the proxy to a provider that never says the same twice."""
    said = itertools.count(1)
    provider.script = lambda request: Reply(f"Answer {next(said)}.")
    return agent(collector, provider)


@traced_tool
def charge_card(amount: int) -> dict[str, int]:
    """Charge a card."""
    return {"charged": amount}


@traced_tool
async def send_receipt(amount: int) -> str:
    """Send a receipt, later."""
    await asyncio.sleep(0)
    return f"receipt for {amount}"


def question() -> str:
    """A question that was not asked before: the server drops what it has already."""
    return f"Question {next(QUESTIONS)}?"


def sound(collector: Collector, sdk: WhyOps, trace_id: str) -> list[Row]:
    """The rows of a trace once all is delivered, in which the server's analysis finds nothing wrong."""
    ledger = sdk.flush_sync(PATIENCE)
    rows = collector.trace(trace_id)

    assert ledger["whyops"].pending == ledger["whyops"].rejected == 0
    assert collector.dead_letters == []
    assert findings(rows) == [], [(row["stepId"], row["parentStepId"], row["eventType"]) for row in rows]
    return rows


def from_here(rows: list[Row]) -> list[bool]:
    """Whether the library sent each row, and not the proxy."""
    return [not str(row["metadata"]["idempotencyKey"]).startswith("hash_") for row in rows]


# The whole flow


@KINDS
@pytest.mark.parametrize("trace_id", ["checkout-8841", None])
async def test_a_checkout_is_whole_on_both_sides(
    collector: Collector, provider: Provider, kind: Any, trace_id: str | None
) -> None:
    """The server gets each turn once, from the proxy; the store has the same ones, with their tokens."""
    sdk = agent(collector, provider)
    provider.reply(
        Reply(
            tool_calls=(ToolCall("charge_card", {"amount": 4999}, "call_1"),), usage=Usage(fresh=20, cached=8)
        ),
        Reply("Your order is paid."),
    )
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(trace_id, external_user_id="user-1") as opened, sdk.step("check out"):
            first = await ask(made, "Charge me 49.99.")
            charge_card(**arguments(first))
            await send_receipt(4999)
            second = await ask(made, "Is it paid?")
    rows = sound(collector, sdk, opened.id)
    records = kept(sdk, opened.id)

    assert answered(second) == "Your order is paid."
    assert types(rows) == [
        "llm_thinking", "user_message", "llm_response", "tool_call_request", "tool_call_response",
        "tool_call_request", "tool_call_response", "user_message", "llm_response",
    ]  # fmt: skip
    assert from_here(rows) == [True, False, False, True, True, True, True, False, False]
    assert types(records) == types(rows)
    assert [record.get("for") for record in records if record["eventType"] == "user_message"] == ["local"] * 2
    assert records[2]["metadata"]["usage"]["promptTokens"] == 20
    assert records[2]["metadata"]["usage"]["cacheReadTokens"] == 8
    assert records[3]["metadata"]["requestedBy"] == records[2]["stepId"]
    assert "requestedBy" not in rows[3]["metadata"]  # that step is another event's on the server
    assert [node[1:3] for node in outline(records)] == [
        ("step", "check out"),
        ("llm", "chat.completions" if is_openai(kind) else "messages"),
        ("tool", "charge_card"),
        ("tool", "send_receipt"),
        ("llm", "chat.completions" if is_openai(kind) else "messages"),
    ]
    assert {row.get("sent", {}).get("externalUserId") for row in rows} == {"user-1"}


def arguments(answer: Any) -> dict[str, Any]:
    """The arguments of the tool that an answer of either package asks for, as users read them."""
    if hasattr(answer, "choices"):
        (call,) = told(answer)["choices"][0]["message"]["tool_calls"]
        loaded: dict[str, Any] = json.loads(call["function"]["arguments"])
        return loaded
    return dict(answer.content[-1].input)


FLOWS = [
    "ask tool ask",
    "tool ask tool",
    "step",
    "manual ask tool",
    "ask ask tool tool ask",
    "ask",
    "tool tool ask",
]


@ONE_OF_EACH
@pytest.mark.parametrize("trace_id", ["checkout-8841", None])
@pytest.mark.parametrize("flow", FLOWS)
async def test_whatever_comes_first_the_numbers_are_sound(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, trace_id: str | None, flow: str
) -> None:
    """A call of a model, a tool, a step, an event by hand."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(trace_id) as opened:
            await go(sdk, made, flow)
    rows = sound(collector, sdk, opened.id)

    assert rows[0]["parentStepId"] is None
    assert types(rows).count("llm_response") == flow.count("ask") + ("step" in flow)


@ONE_OF_EACH
@pytest.mark.parametrize("trace_id", ["checkout-8841", None])
async def test_a_client_that_is_made_later_finds_room(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, trace_id: str | None
) -> None:
    """In the middle of a trace that was numbered without gaps until then."""
    with sdk.trace(trace_id) as opened:
        charge_card(next(QUESTIONS))
        async with connected(sdk, kind, provider) as made:
            await go(sdk, made, "ask tool ask tool")
    rows = sound(collector, sdk, opened.id)

    steps = [row["stepId"] for row in rows]
    third, fourth, last = steps[4], steps[5], steps[-1]

    assert steps[:4] == [1, 2, 3, 4]
    assert 3001 <= third < 4001
    assert steps[5:] == [third + 1000, fourth + 1, fourth + 2, fourth + 3000, last]
    assert last == fourth + 4000


async def go(sdk: WhyOps, made: Any, flow: str) -> None:
    """Do what a flow says, one after the other."""
    for number, what in enumerate(flow.split()):
        if what == "ask":
            await ask(made, question())
        elif what == "tool":
            charge_card(number)
        elif what == "manual":
            with sdk.trace() as here:
                here.user_message_sync([{"role": "user", "content": "By hand."}])
        else:
            with sdk.step("inner"), sdk.step("innermost"):
                await ask(made, question())
                charge_card(number)


# Conversations


@ONE_OF_EACH
@pytest.mark.parametrize("idle_ms", [0, 3_600_000], ids=["a run each", "one run"])
@pytest.mark.parametrize("turns", list(itertools.product(["ask tool", "tool ask tool"], repeat=3)))
async def test_a_conversation_goes_on_under_its_id(
    sdk: WhyOps,
    collector: Collector,
    provider: Provider,
    kind: Any,
    turns: list[str],
    idle_ms: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Turn after turn, whoever begins it, whether the recorder took it for a new run or not."""
    monkeypatch.setattr(recorder, "IDLE_MS", idle_ms)
    async with connected(sdk, kind, provider) as made:
        for number, flow in enumerate(turns):
            with sdk.trace("conversation-7"):
                await go(sdk, made, flow.replace("ask", "step", number % 2))
    rows = sound(collector, sdk, "conversation-7")

    assert types(rows) == types(kept(sdk, "conversation-7"))
    assert types(rows).count("llm_response") == 3


@ONE_OF_EACH
async def test_clients_of_one_agent_take_turns_on_a_conversation(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, tmp_path: Path
) -> None:
    """As two processes do, each of which numbers its own events."""
    other = agent(collector, provider)
    for number, each in enumerate((sdk, other, sdk, other)):
        async with connected(each, kind, provider) as made:
            with each.trace("conversation-7"):
                await go(each, made, "tool ask" if number % 2 else "ask tool")
        each.flush_sync(PATIENCE)

    assert len(sound(collector, sdk, "conversation-7")) == 4 * 4


#: A process that takes one turn of a conversation.
PROCESS = """
import os
import {package} as package
from whyops_trace import WhyOps, traced_tool
from whyops_trace.providers import _link
_link.FIRST_WAIT = 30.0

@traced_tool
def charge_card(amount): return amount

sdk = WhyOps({key!r}, "shop", {metadata!r}, {proxy!r}, {url!r}, store=True, proxy_wait=30)
{client}
with sdk.trace("conversation-7"):
    for number, what in enumerate(os.environ["FLOW"].split()):
        messages = [dict(role="user", content=f"Question {{number}} of turn {{os.environ['TURN']}}?")]
        ask(messages=messages) if what == "ask" else charge_card(number)
sdk.close_sync(30)
"""
CLIENTS = {
    "openai": """
client = sdk.openai(package.OpenAI(api_key="sk-test", max_retries=0))
def ask(**asked): client.chat.completions.create(model="gpt-4o", **asked)
""",
    "anthropic": """
client = sdk.anthropic(package.Anthropic(api_key="sk-ant-test", max_retries=0))
def ask(**asked): client.messages.create(model="claude-test", max_tokens=9, **asked)
""",
}


def take_turn(collector: Collector, home: Path, package: str, turn: int, flow: str) -> Any:
    """Start a process that takes one turn of a conversation."""
    options = {"key": KEY, "metadata": METADATA, "proxy": collector.proxy_url, "url": collector.url}
    code = PROCESS.format(package=package, client=CLIENTS[package], **options)
    return start_code(code, home, TURN=str(turn), FLOW=flow)


@pytest.mark.parametrize("package", CLIENTS)
def test_processes_take_turns_on_a_conversation(
    collector: Collector, provider: Provider, tmp_path: Path, package: str
) -> None:
    """Each goes on where the last one has got to, whoever begins its turn; nothing is reported twice."""
    numbers = itertools.count(1)
    collector.upstream = provider
    provider.script = lambda request: Reply(f"Answer {next(numbers)}.")
    for turn, flow in enumerate(("tool ask tool", "ask tool", "ask")):
        with take_turn(collector, tmp_path, package, turn, flow) as process:
            _, err = process.communicate(timeout=60)

        assert (process.returncode, err) == (0, "")
    rows = collector.trace("conversation-7")
    records = [
        record for record in stored(tmp_path, "conversation-7") if not record["eventType"].endswith("_end")
    ]

    assert findings(rows) == []
    assert len(rows) == 6 + 4 + 2
    assert types(records) == types(rows)
    assert {init["status"] for init in collector.inits} == {"created", "existing"}


@pytest.mark.parametrize("package", CLIENTS)
def test_a_process_killed_in_the_middle_of_a_call_loses_nothing(
    collector: Collector, provider: Provider, tmp_path: Path, package: str
) -> None:
    """What it had recorded is in the store, the call as one that never ended; the next process goes on with it."""
    gate = Gate()
    collector.upstream = provider
    provider.reply(Reply("Never heard.", incidents=(gate,)), Reply("Heard."))
    with take_turn(collector, tmp_path, package, 1, "tool ask") as process:
        reached = gate.reached.wait(PATIENCE)
        process.kill()
        process.communicate(timeout=60)
    gate.open()
    collector.wait_for(lambda: types(collector.trace("conversation-7")).count("llm_response") == 1)
    with take_turn(collector, tmp_path, package, 2, "ask tool") as process:
        _, err = process.communicate(timeout=60)
    rows = collector.trace("conversation-7")
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        tree = build(store.events("conversation-7"), store.ended_processes().__contains__)

    assert reached
    assert (process.returncode, err) == (0, "")
    assert findings(rows) == []
    assert types(rows) == [
        *["tool_call_request", "tool_call_response", "user_message", "llm_response"],
        *["user_message", "llm_response", "tool_call_request", "tool_call_response"],
    ]
    assert [(node.kind, node.status) for node in tree.nodes] == [
        ("tool", "ok"),
        ("llm", "unfinished"),
        ("llm", "ok"),
        ("tool", "ok"),
    ]


# Several clients, several flows


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_clients_of_two_providers_share_a_trace(
    sdk: WhyOps, collector: Collector, provider: Provider, face: str
) -> None:
    """Of OpenAI and of Anthropic."""
    kinds = (
        (openai.OpenAI, anthropic.Anthropic)
        if face == "sync"
        else (openai.AsyncOpenAI, anthropic.AsyncAnthropic)
    )
    async with connected(sdk, kinds[0], provider) as one, connected(sdk, kinds[1], provider) as other:
        with sdk.trace("checkout-8841"):
            for number, made in enumerate((one, other, other, one)):
                charge_card(number)
                await ask(made, question())
    rows = sound(collector, sdk, "checkout-8841")

    assert len(rows) == 4 * 4
    assert [row["metadata"]["provider"] for row in rows if row["eventType"] == "llm_response"] == [
        "openai", "anthropic", "anthropic", "openai",
    ]  # fmt: skip


@ASYNC
async def test_tools_run_while_models_answer(collector: Collector, provider: Provider, kind: Any) -> None:
    """In tasks of one trace: what they record is stored without delay, before the answers come."""
    gates = [Gate(), Gate()]
    sdk = agent(collector, provider)
    async with connected(sdk, kind, provider) as made:
        await ask(made)
        deliveries = lingering(sdk)
        provider.reply(*(Reply(f"Answer {number}.", incidents=(gate,)) for number, gate in enumerate(gates)))
        with sdk.trace("checkout-8841"):
            asking = [asyncio.create_task(ask(made, question())) for _ in gates]
            for gate in gates:
                await asyncio.to_thread(gate.reached.wait, PATIENCE)
            await asyncio.gather(send_receipt(1), send_receipt(2))
            await asyncio.to_thread(
                collector.wait_for, lambda: types(collector.stored).count("tool_call_response") == 2
            )
            for gate in gates:
                gate.open()
            await asyncio.gather(*asking)
            charge_card(3)
    expedited = [delivery._pace._expedited for delivery in deliveries]
    rows = sound(collector, sdk, "checkout-8841")

    assert set(expedited) == {0}
    assert types(rows)[:6] == [
        "user_message",
        "user_message",
        *["tool_call_request"] * 2,
        *["tool_call_response"] * 2,
    ]
    assert types(rows)[6:] == ["llm_response", "llm_response", "tool_call_request", "tool_call_response"]
    assert len(kept(sdk, "checkout-8841")) == 10


def lingering(sdk: WhyOps) -> list[Delivery]:
    """The workers of an agent, who from now on would let a burst gather for an hour."""
    sdk.flush_sync(PATIENCE)
    for delivery in sdk._deliveries:
        delivery._pace.linger = 3600.0
    return sdk._deliveries


@KINDS
async def test_tools_run_while_a_model_streams(collector: Collector, provider: Provider, kind: Any) -> None:
    """What they record is stored without delay, before the stream ends and the proxy tells of it."""
    gate = Gate(after=1)
    sdk = agent(collector, provider)
    async with connected(sdk, kind, provider) as made:
        await ask(made)
        deliveries = lingering(sdk)
        provider.say("Sure thing.", gate)
        with sdk.trace("checkout-8841"):
            stream = await ask(made, question(), stream=True)
            charge_card(1)
            await asyncio.to_thread(
                collector.wait_for, lambda: types(collector.stored).count("tool_call_response") == 1
            )
            gate.open()
            await items(stream)
            charge_card(2)
    expedited = [delivery._pace._expedited for delivery in deliveries]
    rows = sound(collector, sdk, "checkout-8841")

    assert set(expedited) == {0}
    assert types(rows) == [
        "user_message",
        *["tool_call_request", "tool_call_response"],
        "llm_response",
        *["tool_call_request", "tool_call_response"],
    ]


@ASYNC
async def test_many_flows_at_once_stay_apart(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """Each task has a trace of its own, and each trace is sound."""
    async with connected(sdk, kind, provider) as made:

        async def work(number: int) -> None:
            with sdk.trace(f"order-{number}"):
                charge_card(number)
                await ask(made, question())
                await send_receipt(number)

        await asyncio.gather(*(work(number) for number in range(10)))

    for number in range(10):
        assert len(sound(collector, sdk, f"order-{number}")) == 6


@KINDS
async def test_tries_of_the_package_are_one_turn(collector: Collector, provider: Provider, kind: Any) -> None:
    """In the store; the proxy tells of each."""
    sdk = agent(collector, provider)
    provider.fail(500, headers={"retry-after-ms": "1"})
    provider.say("Sure.")
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            charge_card(1)
            await ask(made.with_options(max_retries=1), question())
            charge_card(2)
    rows = sound(collector, sdk, "checkout-8841")

    assert [kind for kind in types(rows) if "tool" not in kind] == ["user_message", "error", "llm_response"]
    assert [kind for kind in types(kept(sdk, "checkout-8841")) if "tool" not in kind] == [
        "user_message",
        "llm_response",
    ]


@KINDS
async def test_a_client_under_another_agent_s_trace_has_one_of_its_own(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """The trace that is open is none of its agent's, and the proxy would report to the wrong one."""
    other = agent(collector, provider, agent_name="desk")
    async with connected(sdk, kind, provider) as made:
        with other.trace("desk-1"):
            await ask(made, question())
            charge_card(1)
    (request,) = collector.proxied
    own = request.headers["X-Trace-ID"]

    assert request.headers["X-Agent-Name"] == "shop"
    assert own != "desk-1"
    assert types(sound(collector, other, "desk-1")) == ["tool_call_request", "tool_call_response"]
    assert types(kept(sdk, own)) == ["user_message", "llm_response"]


@KINDS
async def test_a_trace_that_is_not_sampled_stays_out_of_the_store(
    collector: Collector, provider: Provider, kind: Any
) -> None:
    """The proxy reports the call all the same, under its trace."""
    sdk = agent(collector, provider, sample_rate=0.0)
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            charge_card(1)
            await ask(made, question())

    assert kept(sdk, "checkout-8841") == []
    assert types(sound(collector, sdk, "checkout-8841")) == ["user_message", "llm_response"]


@KINDS
async def test_a_trace_with_a_turn_of_the_proxy_s_goes_to_the_server_whole(
    collector: Collector, provider: Provider, kind: Any
) -> None:
    """Whatever else is left out: the server has a part of it, and its order there is sound."""
    sdk = agent(collector, provider, tail_sampling=TailSampling(share=0))
    async with connected(sdk, kind, provider) as made:
        for trace_id in ("asked", "not asked"):
            with sdk.trace(trace_id):
                charge_card(1)
                charge_card(2)
                if trace_id == "asked":
                    await ask(made, question())
                charge_card(3)
    rows = sound(collector, sdk, "asked")

    assert types(rows) == types(kept(sdk, "asked"))
    assert collector.trace("not asked") == []


# Functions that are models themselves, or wrap one


def nested(made: Any, text: str) -> Any:
    """Ask through another function."""
    return use(made, text)


def use(made: Any, text: str) -> Any:
    """Ask, without being traced."""
    messages = [{"role": "user", "content": text}]
    if is_openai(type(made)):
        return made.chat.completions.create(**{**CHAT, "messages": messages})
    return made.messages.create(**{**CLAUDE, "messages": messages})


@traced_llm(name="agent", model="agent")
def plain_agent(made: Any, text: str) -> Any:
    """Ask a model."""
    return use(made, text)


@traced_llm(name="agent", model="agent")
def nested_agent(made: Any, text: str) -> str:
    """Ask through two functions, one of which is traced as well."""
    charge_card(7)
    return answered(plain_agent(made, text)) + "!"


@traced_llm(name="agent", model="agent")
def threaded_agent(made: Any, text: str) -> str:
    """Ask in a thread."""
    heard: list[Any] = []

    def ask() -> None:
        heard.append(use(made, text))

    thread = threading.Thread(target=propagate(ask))
    thread.start()
    thread.join()
    return answered(heard[0])


@traced_llm(name="agent", model="agent")
def generating_agent(made: Any, text: str) -> Iterator[str]:
    """Ask between two items."""
    yield "So: "
    yield answered(nested(made, text))


@traced_llm(name="agent", model="agent")
def streaming_agent(made: Any, text: str) -> Any:
    """Return the provider's own stream."""
    messages = [{"role": "user", "content": text}]
    if is_openai(type(made)):
        return made.chat.completions.create(**{**CHAT, "messages": messages, "stream": True})
    return made.messages.create(**{**CLAUDE, "messages": messages, "stream": True})


@traced_llm(name="agent", model="agent")
async def awaiting_agent(made: Any, text: str) -> Any:
    """Ask a model."""
    return await use(made, text)


@traced_llm(name="agent", model="agent")
async def tasking_agent(made: Any, text: str) -> str:
    """Ask in a task."""
    await send_receipt(7)
    return answered(await asyncio.create_task(ask(made, text)))


@traced_llm(name="agent", model="agent")
async def yielding_agent(made: Any, text: str) -> AsyncIterator[str]:
    """Ask between two items."""
    yield "So: "
    yield answered(await use(made, text))


SYNC_AGENTS = [plain_agent, nested_agent, threaded_agent, generating_agent, streaming_agent]
ASYNC_AGENTS = [awaiting_agent, tasking_agent, yielding_agent]


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        *itertools.product((openai.OpenAI, anthropic.Anthropic), SYNC_AGENTS),
        *itertools.product((openai.AsyncOpenAI, anthropic.AsyncAnthropic), ASYNC_AGENTS),
    ],
)
async def test_a_function_around_a_client_is_none_of_the_server_s_turns(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, function: Callable[..., Any]
) -> None:
    """The server never gets it; the store shows it around the turn, without tokens."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            charge_card(1)
            returned = function(made, question())
            if hasattr(returned, "__await__"):
                await returned
            elif hasattr(returned, "__next__") or hasattr(returned, "__anext__"):
                await items(returned)
            charge_card(2)
    rows = sound(collector, sdk, "checkout-8841")
    records = kept(sdk, "checkout-8841")
    wrappers = [record for record in records if record["metadata"].get("function") == "agent"]
    ends = [record for record in wrappers if record["eventType"] == "llm_response"]
    turns = [record for record in records if "usage" in record["metadata"]]

    assert [row["eventType"] for row in rows if not row["eventType"].startswith("tool")] == [
        "user_message", "llm_response",
    ]  # fmt: skip
    assert not any(event["metadata"].get("function") for event in sent(collector))
    assert all(record["for"] == "local" for record in wrappers)
    assert all(record["metadata"]["wraps"] is True for record in ends)
    assert (len(wrappers), len(ends)) == ((4, 2) if function is nested_agent else (2, 1))
    assert len(turns) == (0 if function is streaming_agent and is_openai(kind) else 1)


@ONE_OF_EACH
@pytest.mark.parametrize("trace_id", ["checkout-8841", None])
@pytest.mark.parametrize("flow", ["own", "own ask", "ask own ask", "tool own tool"])
async def test_a_model_that_no_client_asks_is_reported_from_here(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, trace_id: str | None, flow: str
) -> None:
    """Beside clients that go through the proxy: under the step kept for it, tools inside it and all."""

    @traced_llm(model="local/llama", provider="local")
    def own(text: str) -> str:
        charge_card(next(QUESTIONS))
        return f"Of my own: {text}"

    async with connected(sdk, kind, provider) as made:
        with sdk.trace(trace_id) as opened:
            for what in flow.split():
                if what == "own":
                    own(question())
                else:
                    await go(sdk, made, what)
    rows = sound(collector, sdk, opened.id)
    mine = [row for row in rows if row["metadata"].get("function") == "own"]

    assert types(mine) == ["user_message", "llm_response"]
    assert mine[1]["parentStepId"] == mine[0]["stepId"]
    assert mine[1]["metadata"]["model"] == "local/llama"
    assert types(kept(sdk, opened.id)) == types(rows)


@ONE_OF_EACH
async def test_a_model_that_fails_is_reported_from_here(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """Where no client of a provider was asked in it."""

    @traced_llm(model="local/llama")
    def own(text: str) -> str:
        raise RuntimeError("no memory left")

    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            with pytest.raises(RuntimeError):
                own(question())
            await ask(made, question())
    rows = sound(collector, sdk, "checkout-8841")

    assert types(rows) == ["user_message", "error", "user_message", "llm_response"]
    assert from_here(rows) == [True, True, False, False]


@KINDS
async def test_a_turn_that_is_reported_by_hand_as_well_stays_here(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, said: Callable[[], list[str]]
) -> None:
    """The server has it from the proxy; a warning names the mistake, and another model's turn is another turn."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841") as opened:
            answer = await ask(made, question())
            opened.llm_response_sync(answer.model, "openai", answered(answer))
            opened.llm_response_sync("local/llama", "local", "Something else.")
            charge_card(1)
    rows = sound(collector, sdk, "checkout-8841")
    (warning,) = said()

    assert [row["metadata"]["model"] for row in rows if row["eventType"] == "llm_response"] == [
        answer.model,
        "local/llama",
    ]
    assert [record.get("for") for record in kept(sdk, "checkout-8841") if record["eventType"] == "llm_response"] == [
        "local", "local", None,
    ]  # fmt: skip
    assert answer.model in warning
    assert "leave it out" in warning


# The proxy or the server is late


def next_millisecond() -> None:
    """Wait until what is recorded has a later timestamp than what was."""
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == now:
        pass


@KINDS
async def test_events_of_the_proxy_s_that_come_late_leave_one_finding(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """They are numbered after what came meanwhile, though they were before it; no number is there twice."""
    collector.emit_late = True
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            charge_card(1)
            await ask(made, question())
            collector.wait_for(lambda: collector.held)
            next_millisecond()  # of events that share one the steps count
            charge_card(2)
            sdk.flush_sync(PATIENCE)
            collector.let_emit()
            collector.emit_late = False
            await ask(made, question())
            charge_card(3)
    sdk.flush_sync(PATIENCE)
    rows = collector.trace("checkout-8841")

    assert len(rows) == 6 + 4
    assert findings(rows) == [("STEP_ORDER_DECREASED", "high")]


@KINDS
async def test_a_server_that_hangs_does_not_hold_a_call_up(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on after a moment, while what was recorded before is still on its way, and so does the next one."""
    sdk = agent(collector, provider, proxy_wait=0.1)
    async with connected(sdk, kind, provider) as made:
        await ask(made, question())  # the agent is registered
        collector.script = lambda request: (
            Hang() if (request.method, request.path) == ("POST", "/api/events") else None
        )
        with sdk.trace("checkout-8841"):
            charge_card(1)
            await ask(made, question())
            charge_card(2)
            try:
                await in_time(made)
                stored_meanwhile = [row["eventType"] for row in collector.stored if from_here([row])[0]]
            finally:
                collector.script = None
                collector.release()
    sdk.flush_sync(PATIENCE)

    assert stored_meanwhile == []
    assert len(collector.trace("checkout-8841")) == 8


async def in_time(made: Any) -> Any:
    """Ask a model something; fail if that takes too long."""
    awaits = isinstance(made, openai.AsyncOpenAI | anthropic.AsyncAnthropic)
    return await asyncio.wait_for(
        ask(made, question()) if awaits else asyncio.to_thread(use, made, question()), SOON
    )


@KINDS
async def test_a_request_that_is_no_turn_waits_for_nothing(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy reports no event of it, so what was recorded before may still be on its way."""
    monkeypatch.setattr(settings, "PROXY_WAIT", PATIENCE * 2)
    async with connected(sdk, kind, provider, _strict_response_validation=False) as made:
        await ask(made, question())  # the agent is registered
        list_models = method(made, "models.list")
        collector.fail(Hang())
        with sdk.trace("checkout-8841"):
            charge_card(1)
            await asyncio.to_thread(collector.wait_for, lambda: len(posts(collector)) == 1)
            try:
                listed = await asyncio.wait_for(asyncio.to_thread(list_models), SOON)
                page = await asyncio.wait_for(got(listed), SOON)
                stored_meanwhile = collector.trace("checkout-8841")
            finally:
                collector.release()
    rows = sound(collector, sdk, "checkout-8841")

    assert page.data[0].id == "gpt-4o"
    assert stored_meanwhile == []
    assert types(rows) == ["tool_call_request", "tool_call_response"]


@KINDS
async def test_a_server_that_is_down_does_not_hold_a_call_up(
    collector: Collector, provider: Provider, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its first failure nobody waits for it; what was recorded is delivered when it is back."""
    monkeypatch.setattr(_link, "FIRST_WAIT", 0.1)
    with Collector() as down:
        sdk = agent(collector, provider, server=down, proxy_wait=PATIENCE * 2)
        down.stop()
        async with connected(sdk, kind, provider) as made:
            with sdk.trace("checkout-8841"):
                charge_card(1)
                await ask(made, "One?")
                charge_card(2)
                await in_time(made)
        down.start()
        sdk.flush_sync(PATIENCE)
        rows = down.trace("checkout-8841")

    assert sdk.stats()["whyops"].pending == 0
    assert types(rows) == ["tool_call_request", "tool_call_response"] * 2
    assert len(collector.proxied) == 2


# Who tells the server of the agent


@KINDS
@pytest.mark.parametrize("first", ["ask", "tool"])
async def test_the_agent_is_registered_before_the_proxy_tells_of_it(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, first: str
) -> None:
    """Also where a call of a model is the very first thing; or the server makes up a version of the agent."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            await go(sdk, made, f"{first} ask tool")
    sound(collector, sdk, "checkout-8841")
    paths = [request.path for request in collector.requests]
    versions = collector.agents["tenant", "shop"].versions

    assert paths[0] == "/api/entities/init"
    assert paths.count("/api/entities/init") == 1
    assert [version.metadata for version in versions] == [METADATA]


@KINDS
async def test_an_agent_that_was_registered_before_is_not_waited_for(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process knows, and its first request to a model goes out at once."""
    async with connected(sdk, kind, provider) as made:
        await ask(made, question())
    monkeypatch.setattr(_link, "FIRST_WAIT", PATIENCE * 2)
    collector.script = lambda request: Hang() if request.path == "/api/entities/init" else None
    again = agent(collector, provider)
    async with connected(again, kind, provider) as made:
        await in_time(made)

    assert [request.path for request in collector.requests].count("/api/entities/init") == 1


@KINDS
async def test_a_server_that_does_not_register_the_agent_does_not_hold_a_call_up(
    collector: Collector, provider: Provider, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call goes on after a while, and the next one at once."""
    monkeypatch.setattr(settings, "PROXY_WAIT", 0.1)
    monkeypatch.setattr(_link, "FIRST_WAIT", 0.1)
    collector.script = lambda request: Hang() if request.path == "/api/entities/init" else None
    sdk = agent(collector, provider)
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            await ask(made, question())
            monkeypatch.setattr(_link, "FIRST_WAIT", PATIENCE * 2)
            try:
                await in_time(made)
                paths = [request.path for request in collector.requests]
            finally:
                collector.release()

    assert paths.count("/api/entities/init") == 1
    assert len(collector.proxied) == 2


async def test_a_call_that_waits_does_not_block_its_event_loop(
    sdk: WhyOps, collector: Collector, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another task goes on while the events before a call are on their way, and is what lets them arrive."""
    monkeypatch.setattr(settings, "PROXY_WAIT", PATIENCE)
    collector.fail(Hang())
    async with connected(sdk, openai.AsyncOpenAI, provider) as made:

        async def release() -> None:
            await asyncio.to_thread(collector.wait_for, lambda: len(posts(collector)) == 1)
            asked = len(collector.proxied)
            collector.release()

            assert asked == 0

        with sdk.trace("checkout-8841"):
            charge_card(1)
            await asyncio.gather(ask(made, question()), release())
    rows = sound(collector, sdk, "checkout-8841")

    assert types(rows) == ["tool_call_request", "tool_call_response", "user_message", "llm_response"]


@pytest.mark.parametrize("kind", [anthropic.Anthropic, anthropic.AsyncAnthropic])
async def test_a_trace_that_begins_with_a_system_prompt_in_blocks_is_stored(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """The server knows the trace from here when the proxy reports such a turn, which it could not begin one with."""
    system = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            for turn in range(2):
                await ask(made, f"Question {turn}?", system=system)
    sdk.flush_sync(30.0)
    rows = collector.trace("checkout-8841")

    assert collector.dead_letters == []
    assert [row["content"]["content"] for row in rows if row["eventType"] == "llm_response"] == [
        "Answer 1.",
        "Answer 2.",
    ]
    assert types(rows) == ["user_message", "user_message", "llm_response", "user_message", "llm_response"]
    assert rows[0]["metadata"]["systemPrompt"] == "Be kind."
    assert findings(rows) == []


@pytest.mark.parametrize("way", ["whole", "as it comes", "stream"])
async def test_what_is_recorded_is_free_of_what_the_proxy_adds(
    sdk: WhyOps, provider: Provider, way: str
) -> None:
    """However the answer is read: its text is the provider's, and so are the arguments of its tool calls."""
    asked = ToolCall("charge_card", {"amount": 1}, "call_1")
    provider.script = lambda request: Reply("Paid.", tool_calls=(asked,))
    async with connected(sdk, openai.OpenAI, provider) as made:
        with sdk.trace("checkout-8841"):
            if way == "whole":
                made.chat.completions.create(**CHAT)
            elif way == "stream":
                list(made.chat.completions.create(**CHAT, stream=True))
            else:
                with made.chat.completions.with_streaming_response.create(**CHAT) as response:
                    list(response.iter_bytes())
    (answer,) = (record for record in kept(sdk, "checkout-8841") if record["eventType"] == "llm_response")
    (call,) = answer["content"]["toolCalls"]

    assert answer["content"]["content"] == "Paid."
    assert json.loads(call["function"]["arguments"]) == {"amount": 1}
