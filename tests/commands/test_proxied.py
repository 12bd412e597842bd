"""``whyops-trace verify`` of traces that the WhyOps proxy reports to: which turns a server has of those known here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from backend import now
from click.testing import CliRunner, Result
from collector import Collector
from hybrid import KINDS, agent, ask, connected, kept
from hypothesis import given
from hypothesis import strategies as st
from packages import ANTHROPIC, LOST, anthropic, got, items, openai
from programs import NOWHERE
from provider import Provider
from replies import Cut, Gate, Reply, Thinking
from wire import Answer, Request

from whyops_trace import WhyOps, traced_llm, traced_tool
from whyops_trace.cli import main
from whyops_trace.commands.proxied import losses
from whyops_trace.commands.verification import Known, Row, There, Turn

TRACE = "checkout-8841"
STATUS = (openai.APIStatusError, anthropic.APIStatusError)
OF_EACH = pytest.mark.parametrize("kind", [openai.OpenAI, anthropic.AsyncAnthropic])
ASYNC = pytest.mark.parametrize("kind", [openai.AsyncOpenAI, anthropic.AsyncAnthropic])
pytestmark = [pytest.mark.anyio, pytest.mark.asyncio_only]
#: Decides whether the server stores what the proxy reports; what it refuses is in nobody's sight.
Refuse = Callable[[bool], None]


@pytest.fixture
def sdk(collector: Collector, provider: Provider) -> WhyOps:
    """An agent whose clients go through the proxy to a provider that never says the same twice."""
    numbers = itertools.count(1)
    provider.script = lambda request: Reply(f"Answer {next(numbers)}.")
    return agent(collector, provider)


@pytest.fixture
def refuse(collector: Collector) -> Refuse:
    """Lets the server refuse whatever the proxy reports, or store it again."""

    def call(refused: bool) -> None:
        collector.reject = lambda event: "down" if refused and "idempotencyKey" not in event else None

    return call


@pytest.fixture
def verify(sdk: WhyOps, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Verifies the trace once all is delivered."""

    def call(*options: str) -> Result:
        sdk.flush_sync(30.0)
        monkeypatch.setenv("WHYOPS_ANALYSE_URL", collector.url)
        monkeypatch.setenv("WHYOPS_API_KEY", "whyops_test")
        return CliRunner().invoke(main, ["verify", TRACE, *options])

    return call


@pytest.fixture
def missing(verify: Callable[..., Result]) -> Callable[[], list[tuple[str, str, str]]]:
    """Verifies the trace; returns the key of each event that is named missing, its type and the cause."""

    def call() -> list[tuple[str, str, str]]:
        result = verify("--json")
        said = json.loads(result.stdout)

        assert result.exit_code == (0 if said["complete"] else 1)
        assert said["complete"] is not bool(said["missing"])
        return [(event["idempotencyKey"], event["eventType"], event["cause"]) for event in said["missing"]]

    return call


def named(records: Iterable[dict[str, Any]], cause: str) -> list[tuple[str, str, str]]:
    """Records as they are named missing for a cause."""
    return [(record["idempotencyKey"], record["eventType"], cause) for record in records]


@traced_tool
def charge_card(amount: int) -> int:
    """Charge a card."""
    return amount


async def tick() -> None:
    """Let the clock go on by a millisecond, so that what comes next has another time."""
    before = now()
    while now() == before:
        await asyncio.sleep(0)


# Repeats


@KINDS
async def test_prompts_that_the_server_dropped_as_repeats_are_named(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, verify: Any, missing: Any
) -> None:
    """The first of five equal ones is there, and so are all answers; nothing is said of the turn with another one."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(TRACE):
            for number in range(5):
                await ask(made, "Try again.")
                charge_card(number)
            await ask(made, "Enough.")
    prompts = [record for record in kept(sdk, TRACE) if record["eventType"] == "user_message"]
    lines = verify().stdout.splitlines()

    assert missing() == named(prompts[1:5], "repeat")
    assert lines[0] == f"{TRACE} at {collector.url}: 18 of 22 events are there."
    assert lines[1].startswith("Missing: dropped by the server as a repeat. ")
    assert "proxy=False" in lines[1]
    assert [line.split("  ")[2] for line in lines[2:]] == ["user_message"] * 4


@KINDS
async def test_answers_that_the_server_dropped_as_repeats_are_named(
    sdk: WhyOps, provider: Provider, kind: Any, missing: Any
) -> None:
    """Under prompts that differ, and under equal ones, of which no more than one turn is there then."""
    provider.script = lambda request: Reply("OK.")
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(TRACE):
            for number in range(3):
                await ask(made, f"Question {number}?")
        differing = missing()
        with sdk.trace(TRACE):
            for _ in range(2):
                await ask(made, "Question 0?")
    records = kept(sdk, TRACE)
    repeats = named([*records[3:6:2], *records[6:]], "repeat")

    assert differing == repeats[:2]
    assert missing() == repeats


@OF_EACH
async def test_equal_errors_are_repeats(sdk: WhyOps, provider: Provider, kind: Any, missing: Any) -> None:
    """The provider refused each turn, and the proxy reported all of them."""
    provider.script = None
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(TRACE):
            for number in range(3):
                provider.fail(400, message="No.")
                with pytest.raises(STATUS):
                    await ask(made, f"Question {number}?")
    errors = kept(sdk, TRACE)[1::2]

    assert missing() == named(errors[1:], "repeat")


# Turns that the proxy did not report


@KINDS
async def test_a_turn_that_the_server_never_got_is_named(
    sdk: WhyOps, provider: Provider, kind: Any, refuse: Refuse, verify: Any, missing: Any
) -> None:
    """Its prompt and its answer, and neither of the turns around it."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(TRACE):
            for number in range(4):
                refuse(number == 2)
                await ask(made, f"Question {number}?")
    records = kept(sdk, TRACE)

    assert missing() == named(records[4:6], "not_reported")
    assert "6 of 8 events are there.\nMissing: the server has nothing of the turn" in verify().stdout


@OF_EACH
async def test_a_repeat_is_told_from_a_turn_that_the_server_never_got(
    sdk: WhyOps, provider: Provider, kind: Any, refuse: Refuse, missing: Any
) -> None:
    """Both in one trace, and the prompt of that turn is a repeat or not."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(TRACE):
            for number, text in enumerate(("One?", "One?", "Two?", "Three?", "One?")):
                refuse(number in (2, 4))
                await ask(made, text)
    records = kept(sdk, TRACE)

    assert missing() == [
        *named(records[2:3], "repeat"),
        *named(records[4:6], "not_reported"),
        *named(records[8:10], "not_reported"),
    ]


@OF_EACH
async def test_a_turn_that_the_proxy_did_not_take_is_named(
    collector: Collector, provider: Provider, kind: Any, verify: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens there, and the trace is on the server with what else it has, or not at all."""
    sdk = agent(collector, provider, proxy_base_url=NOWHERE)
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(TRACE), pytest.raises(LOST):
            await ask(made)
        alone = json.loads((sdk.flush_sync(30.0), verify("--json"))[1].stdout)
        with sdk.trace(TRACE):
            charge_card(1)
    sdk.flush_sync(30.0)
    result = verify("--json")
    both = json.loads(result.stdout)

    assert [[event["cause"] for event in said["missing"]] for said in (alone, both)] == [
        ["not_taken"] * 2
    ] * 2
    assert (alone["known"], alone["there"], both["known"], both["there"]) == (2, 0, 4, 2)
    assert "fallback=True" in both["missing"][0]["reason"]


@OF_EACH
async def test_a_trace_that_was_sampled_out_lacks_the_turns_too(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, missing: Any
) -> None:
    """For the same reason as all else."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("another"):
            await ask(made)
        collector.sampling_rate = 0.0
        with sdk.trace(TRACE):
            await ask(made)

    assert missing() == named(kept(sdk, TRACE), "trace")


async def test_an_answer_that_broke_off_on_its_way(sdk: WhyOps, provider: Provider, missing: Any) -> None:
    """The proxy reported the prompt alone."""
    provider.script = None
    provider.say("Sure thing.", Cut(after=2))
    async with connected(sdk, openai.OpenAI, provider) as made:
        with sdk.trace(TRACE), contextlib.suppress(*LOST):
            await items(await ask(made, stream=True))

    assert missing() == named(kept(sdk, TRACE)[1:], "not_stored")


# Turns that are all there


@KINDS
async def test_failed_turns_and_streams_are_found(
    sdk: WhyOps, provider: Provider, kind: Any, missing: Any, verify: Any
) -> None:
    """The proxy reported the error of the provider, and the stream at its end."""
    provider.script = None
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(TRACE):
            provider.fail(400)
            with pytest.raises(STATUS):
                await ask(made, "One.")
            await items(await ask(made, "Two.", stream=True))

    assert missing() == []
    assert verify().stdout.endswith(": 4 of 4 events are there.\n")


@ANTHROPIC
async def test_what_a_model_thought_is_not_asked_for(
    sdk: WhyOps, provider: Provider, kind: Any, verify: Callable[..., Result]
) -> None:
    """The proxy reports it of one provider alone, and no prompt or answer is missing without it."""
    provider.script = lambda request: Reply("Sure.", thinking=(Thinking("Is it paid for?"),))
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(TRACE):
            await ask(made)
    thoughts = [record for record in kept(sdk, TRACE) if record["eventType"] == "llm_thinking"]

    assert len(thoughts) == 1
    assert ": 2 of 2 events are there.\n" in verify().stdout


@OF_EACH
async def test_a_turn_past_the_proxy_is_none_of_its_own(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, missing: Any
) -> None:
    """A fallback is reported from here, equal prompts and all."""
    collector.script = lambda request: (
        Answer(503, "Service Unavailable", content_type="text/plain") if "/v1/" in request.path else None
    )
    async with connected(sdk, kind, provider, fallback=True) as made:
        with sdk.trace(TRACE):
            for _ in range(3):
                await ask(made)
    collector.script = None

    assert missing() == []
    assert len(collector.trace(TRACE)) == 6


@OF_EACH
async def test_a_function_around_a_client_is_no_turn(
    sdk: WhyOps, provider: Provider, kind: Any, missing: Any
) -> None:
    """The server gets the client's alone, from the proxy."""
    async with connected(sdk, kind, provider) as made:

        @traced_llm
        async def answer(text: str) -> Any:
            return await ask(made, text)

        with sdk.trace(TRACE):
            await answer("One?")
            await answer("Two?")

    assert missing() == []


@OF_EACH
async def test_two_processes_of_a_conversation_are_one_trace(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, refuse: Refuse, missing: Any
) -> None:
    """They number their records apart; a turn that is missing is named, whichever of them made it."""
    other = agent(collector, provider)
    for number, each in enumerate((sdk, other, sdk, other)):
        async with connected(each, kind, provider) as made:
            with each.trace(TRACE):
                refuse(number == 3)
                await ask(made, f"Question {number}?")
                charge_card(number)
        each.flush_sync(30.0)
    records = [record for record in kept(sdk, TRACE) if "tool" not in record["eventType"]]

    assert len(records) == 8
    assert missing() == named(records[6:], "not_reported")


@OF_EACH
async def test_turns_of_another_home_hide_none_by_mistake(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, tmp_path: Any, verify: Any
) -> None:
    """There are more turns on the server than are known here, and no loss is claimed."""
    elsewhere = agent(collector, provider, home=tmp_path / "elsewhere")
    for each in (sdk, elsewhere, sdk):
        async with connected(each, kind, provider) as made:
            with each.trace(TRACE):
                await ask(made, f"Question of {each.settings.home.name} {len(collector.stored)}?")
        each.flush_sync(30.0)
    result = verify()

    assert "4 of 4 events are there.\n2 more are there that this home does not know" in result.stdout
    assert result.exit_code == 0


@ASYNC
@pytest.mark.parametrize("unreported", [None, 0, 2, 3])
async def test_turns_at_the_same_time(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, unreported: int | None, missing: Any
) -> None:
    """However they come together: all are found, and one that is not reported is one turn that is missing."""
    gates = {f"Question {number}?": Gate() for number in range(4)}

    def reply(request: Request) -> Reply:
        text = request.json["messages"][-1]["content"]
        return Reply(f"Answer to {text}", incidents=(gates[text],))

    provider.script = reply
    collector.reject = lambda event: "down" if f"Question {unreported}?" in str(event["content"]) else None
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(TRACE):
            asking = {text: asyncio.create_task(ask(made, text)) for text in gates}
            for gate in gates.values():
                await asyncio.to_thread(gate.reached.wait, 30)
            for text in reversed(gates):
                gates[text].open()
                await asking[text]
                await tick()
    unstored = [
        record for record in kept(sdk, TRACE) if f"Question {unreported}?" in json.dumps(record["content"])
    ]

    assert len(unstored) == (0 if unreported is None else 2)
    assert missing() == named(unstored, "not_reported")


async def test_a_turn_that_goes_on_is_not_missed(
    sdk: WhyOps, provider: Provider, verify: Callable[..., Result]
) -> None:
    """Nobody knows yet who reports it."""
    gate = Gate()
    provider.script = lambda request: Reply("Sure.", incidents=(gate,))
    async with connected(sdk, openai.AsyncOpenAI, provider) as made:
        with sdk.trace(TRACE):
            asking = asyncio.create_task(ask(made))
            await asyncio.to_thread(gate.reached.wait, 30)
            result = await asyncio.to_thread(verify)
            gate.open()
            await asking

    assert result.exit_code == 0


@OF_EACH
async def test_a_journal_says_what_a_store_would(
    collector: Collector, provider: Provider, kind: Any, refuse: Refuse, missing: Any
) -> None:
    """As long as it has the records: here another process, which keeps no store, still runs."""
    sdk = agent(collector, provider, store=False)
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(TRACE):
            for number in range(3):
                refuse(number == 1)
                await ask(made, f"Question {number}?")
        sdk.flush_sync(30.0)
        causes = [each[1:] for each in missing()]

    assert causes == [("user_message", "not_reported"), ("llm_response", "not_reported")]


async def test_embeddings_are_turns(
    sdk: WhyOps, provider: Provider, refuse: Refuse, missing: Callable[[], Any]
) -> None:
    """One that was not reported is named, and so are answers, as equal ones without their vectors are repeats."""
    async with connected(sdk, openai.OpenAI, provider) as made:
        with sdk.trace(TRACE):
            for number in range(3):
                refuse(number == 1)
                await got(made.embeddings.create(model="text-embedding-3-small", input=f"Text {number}"))

    records = kept(sdk, TRACE)

    assert missing() == [*named(records[2:4], "not_reported"), *named(records[5:], "repeat")]


# The rule alone


def turn(number: int, began: int, ended: int) -> Turn:
    """A turn that says what no other does."""
    times = [f"2026-11-21T22:30:{ms // 1000:02}.{ms % 1000:03}Z" for ms in (began, ended)]
    prompt, answer = (
        Known(2 * number + place, kind, "", f"{number}-{kind}", "", time, said=(kind, number))
        for place, (kind, time) in enumerate(zip(("user_message", "llm_response"), times, strict=True))
    )
    return Turn(prompt, answer)


def server_with(turns: Iterable[Turn], late_ms: int = 0) -> There:
    """A server that has these turns; its clock is ahead by that."""
    there = There()
    for event in itertools.chain.from_iterable(turns):
        seconds = int(event.timestamp[17:19]) * 1000 + int(event.timestamp[20:23]) + late_ms
        time = f"2026-11-21T22:30:{seconds // 1000:02}.{seconds % 1000:03}Z"
        there.add(
            Row(event.key, event.type, timestamp=time, metadata={"idempotencyKey": f"hash_{event.key}"})
        )
    return there


@given(kept=st.lists(st.booleans(), max_size=12), late_ms=st.integers(0, 40))
def test_turns_one_after_the_other_are_told_by_their_times(kept: list[bool], late_ms: int) -> None:
    """Whichever are missing, and although the server's clock is a little ahead."""
    turns = [turn(number, 1000 * number, 1000 * number + 900) for number in range(len(kept))]
    there = server_with(itertools.compress(turns, kept), late_ms)
    lost = [event.key for event, _ in losses(turns, there)]

    assert lost == [
        event.key for each, is_kept in zip(turns, kept, strict=True) if not is_kept for event in each
    ]


@given(
    spans=st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 9000)), max_size=12),
    there=st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 9000)), max_size=12),
)
def test_as_many_are_missing_as_there_are_fewer(
    spans: list[tuple[int, int]], there: list[tuple[int, int]]
) -> None:
    """Whatever the times, no more prompts or answers are named than are missing in number."""
    turns, others = (
        [turn(number, began, began + took) for number, (began, took) in enumerate(each)]
        for each in (spans, there)
    )
    lost = [event for event, _ in losses(turns, server_with(others))]

    assert [sum(event.type == kind for event in lost) for kind in ("user_message", "llm_response")] == [
        max(0, len(turns) - len(others))
    ] * 2
