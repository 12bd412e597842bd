"""Experiments: a recorded run is replayed up to a step, which is answered otherwise, and runs on from there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import anyio
import pytest
from packages import got, items, method
from provider import Provider
from pydantic import BaseModel
from replies import Failure, Reply, Usage
from traced import ANSWERS, CHATS, CLAUDES, Api, both_faces, traced
from wire import Request

from whyops_trace import WhyOps, flush_sync, propagate, trace, traced_llm, traced_tool
from whyops_trace._home import STORE_FILE, home_directory
from whyops_trace.exceptions import AgentRunaway, ConfigurationError, ReplayError, ReplayMiss
from whyops_trace.replay import Answer, Replay, replay
from whyops_trace.store import Store
from whyops_trace.testing import capture_events
from whyops_trace.whatif import plan, whatif

pytestmark = pytest.mark.asyncio_only

#: The calls whose bodies ran.
ran: list[Any] = []


class Missing(LookupError):
    pass


class Order(BaseModel):
    status: str


@traced_tool
def look_up(order: int) -> dict[str, str]:
    ran.append(f"look_up {order}")
    return {"status": "sent"}


@traced_tool
def refund(order: int) -> str:
    ran.append(f"refund {order}")
    return "done"


@traced_tool
def wait(order: int) -> str:
    ran.append(f"wait {order}")
    return "waiting"


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def plain_agent() -> str:
    """Decide without a model."""
    status = look_up(8841)["status"]
    return refund(8841) if status == "sent" else wait(8841)


def recorded(agent: Callable[[], Any]) -> list[dict[str, Any]]:
    with capture_events(local=True) as events, trace("t"):
        agent()
    ran.clear()
    return events


def step_of(events: list[dict[str, Any]], name: str, place: int = 0) -> int:
    """Return the step of a call."""
    steps = [
        event["stepId"]
        for event in events
        if name in (event["metadata"].get("tool"), event["metadata"].get("function"))
        and event["eventType"] in ("tool_call_request", "user_message", "tool_result", "embedding_request")
    ]
    return int(steps[place])


def in_trace(agent: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with trace("t"):
            return agent()

    return run


# The answer, and what follows


def test_a_tool_that_returns_something_else_leads_elsewhere() -> None:
    """The call is answered with the given result, and what the agent does then is done for real."""
    events = recorded(plain_agent)
    experiment = whatif(
        events,
        in_trace(plain_agent),
        step=1,
        answer=Answer(result={"status": "packed"}),
        repeat=3,
        store=False,
    )

    assert ran == ["wait 8841"] * 3
    assert [run.passed for run in experiment.runs] == [True] * 3
    assert experiment.paths == {
        "at once it calls wait(order=8841), where the recorded run calls refund(order=8841)": 3
    }
    assert experiment.interval == pytest.approx((0.4385, 1.0), abs=1e-3)
    assert (experiment.plan.recorded, experiment.plan.instead) == (
        'returned {"status": "sent"}',
        'returns {"status": "packed"}',
    )
    assert experiment.plan.tools == {"refund": 1}


def test_a_tool_may_raise_instead() -> None:
    """The exception is of the class that is named, or the given one, and the run fails with it."""
    events = recorded(plain_agent)
    for error in ("ValueError: no such order", Missing("no such order")):
        experiment = whatif(events, in_trace(plain_agent), step=1, answer=Answer(error=error), store=False)
        name = type(error).__name__ if isinstance(error, Missing) else "ValueError"

        assert not experiment.runs[0].passed
        assert experiment.runs[0].reason == f"it raised {name}: no such order"
        assert experiment.runs[0].path == "at once it ends, where the recorded run calls refund(order=8841)"
    assert ran == []


def test_without_an_answer_the_step_runs_again() -> None:
    events = recorded(plain_agent)
    experiment = whatif(events, in_trace(plain_agent), step=step_of(events, "refund"), store=False)

    assert ran == ["refund 8841"]
    assert experiment.paths == {"the same to the end": 1}


def test_the_step_of_the_end_of_a_call_names_it_as_well() -> None:
    events = recorded(plain_agent)

    assert plan(events, 2, Answer(result={})).call == "look_up(order=8841)"


def test_a_result_is_made_of_the_class_that_the_function_returns() -> None:
    """JSON is enough to answer a function that returns a model."""

    @traced_tool
    def find(order: int) -> Order:
        return Order(status="sent")

    def agent() -> str:
        return find(1).status

    events = recorded(agent)
    seen: list[Any] = []
    answer = Answer(result={"status": "packed"})
    whatif(
        events, in_trace(agent), step=1, answer=answer, store=False,
        check=lambda _, returned: seen.append(returned),
    )  # fmt: skip

    assert seen == ["packed"]


def test_a_generator_is_answered_with_its_items() -> None:
    @traced_tool
    def pages() -> Iterator[str]:
        yield "one"

    def agent() -> list[str]:
        return [*pages()]

    events = recorded(agent)
    seen: list[Any] = []
    answer = Answer(result=["two", "three"])
    whatif(
        events, in_trace(agent), step=1, answer=answer, store=False,
        check=lambda _, returned: seen.append(returned),
    )  # fmt: skip

    assert seen == [["two", "three"]]
    with pytest.raises(ReplayError, match="list of its items"):
        plan(events, 1, Answer(result="two"))


def test_calls_in_flight_beside_the_step_are_answered_as_recorded() -> None:
    """What began before the call had ended could not depend on it, and is not run again."""

    @traced_tool
    async def ask(shop: str) -> str:
        ran.append(f"ask {shop}")
        await asyncio.sleep(0)
        return "yes"

    async def agent() -> Any:
        async with trace("t"):
            answers = await asyncio.gather(ask("a"), ask("b"), ask("c"))
            return await ask("d") if "no" in answers else "nobody"

    with capture_events(local=True) as events:
        asyncio.run(agent())
    ran.clear()
    experiment = whatif(events, agent, step=step_of(events, "ask"), answer=Answer(result="no"), store=False)

    assert ran == ["ask d"]
    assert experiment.runs[0].passed


def test_calls_of_other_threads_are_answered_as_recorded() -> None:
    def agent() -> Any:
        with trace("t"), ThreadPoolExecutor(2) as pool:
            first = look_up(1)
            rest = list(pool.map(propagate(look_up), [2, 3]))
            return [first, *rest, refund(1)]

    with capture_events(local=True) as events:
        agent()
    ran.clear()
    experiment = whatif(
        events, agent, step=step_of(events, "refund"), answer=Answer(result="no"), store=False
    )

    assert ran == []
    assert experiment.paths == {"the same to the end": 1}


def test_a_step_inside_a_nested_agent_is_answered() -> None:
    """The functions around the step run, though they are answered as a whole in any other replay."""

    @traced_tool
    def helper(order: int) -> str:
        return str(look_up(order)["status"])

    def agent() -> str:
        return refund(1) if helper(1) == "sent" else wait(1)

    events = recorded(agent)
    answer = Answer(result={"status": "packed"})
    experiment = whatif(events, in_trace(agent), step=step_of(events, "look_up"), answer=answer, store=False)

    assert ran == ["wait 1"]
    assert experiment.plan.tools == {"refund": 1}


def test_a_nested_agent_is_answered_as_a_whole() -> None:
    """Nothing inside of it is asked."""

    @traced_llm(model="gpt-4o")
    def think(messages: list[Any]) -> str:
        ran.append("think")
        return "sent"

    @traced_tool
    def helper(order: int) -> str:
        return think([{"role": "user", "content": str(order)}])

    def agent() -> str:
        return refund(1) if helper(1) == "sent" else wait(1)

    events = recorded(agent)
    whatif(events, in_trace(agent), step=step_of(events, "helper"), answer=Answer(result="lost"), store=False)

    assert ran == ["wait 1"]


def test_a_model_of_a_plain_function_is_answered_with_a_text() -> None:
    @traced_llm(model="gpt-4o")
    def think(messages: list[Any]) -> str:
        ran.append("think")
        return "refund"

    def agent() -> str:
        said = think([{"role": "user", "content": "What now?"}])
        return refund(1) if said == "refund" else wait(1)

    events = recorded(agent)
    whatif(events, in_trace(agent), step=1, answer=Answer(text="wait"), store=False)

    assert ran == ["wait 1"]


def test_what_must_not_run_is_swapped_behind_the_step_only() -> None:
    """Before the step the recording answers, also what is swapped."""

    def agent() -> list[str]:
        return [refund(1), str(look_up(1)["status"]), refund(2)]

    events = recorded(agent)
    seen: list[Any] = []
    whatif(
        events, in_trace(agent), step=step_of(events, "look_up"), answer=Answer(result={"status": "packed"}),
        swap={"refund": lambda order: f"not paid {order}"}, store=False,
        check=lambda _, returned: seen.append(returned),
    )  # fmt: skip

    assert seen == [["done", "packed", "not paid 2"]]
    assert ran == []


# Models over the wire


async def converse(made: Any, api: Api, way: str) -> str:
    """An agent that does what its model says, in words, whatever the API."""
    said = ["Refund order 8841."]
    async with trace("t"):
        for _ in range(4):
            word = (await ask(made, api, way, said)).strip()
            said.append(word)
            if word == "look_up":
                said.append(json.dumps(look_up(8841)))
            elif word == "refund":
                said.append(refund(8841))
            else:
                break
    return said[-1]


async def ask(made: Any, api: Api, way: str, said: list[str]) -> str:
    turns = [
        {"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(said)
    ]
    body = {**api.body, "input" if api is ANSWERS else "messages": turns}
    answer = await got(
        method(made, f"{api.name}.create")(**body, **({"stream": True} if way == "stream" else {}))
    )
    if way == "stream":
        return "".join(map(piece, await items(answer)))
    if api is CHATS:
        return str(answer.choices[0].message.content)
    return str(answer.output_text if api is ANSWERS else answer.content[0].text)


def piece(event: Any) -> str:
    """Return the text that an event of a stream adds."""
    if getattr(event, "choices", None):
        return event.choices[0].delta.content or ""
    if getattr(event, "type", "") == "response.output_text.delta":
        return str(event.delta)
    return str(event.delta.text) if getattr(event, "type", "") == "content_block_delta" else ""


def model(request: Request) -> Reply | Failure:
    """Say what is to be done by what was said last."""
    told = json.dumps(request.json.get("messages") or request.json["input"])
    last = "packed" if "packed" in told else "done" if '"done"' in told else "sent" if "sent" in told else ""
    word = {"packed": "It is packed still.", "done": "I refunded it.", "sent": "refund"}.get(last, "look_up")
    return Reply(word, usage=Usage(fresh=100, output=10))


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["whole", "stream"])
@both_faces(CHATS, ANSWERS, CLAUDES)
async def test_a_model_is_asked_for_real_behind_the_step(
    api: Api, kind: Any, way: str, provider: Provider
) -> None:
    """Before the step no request leaves the process; behind it the model sees the other result, and decides."""
    provider.script = model
    async with traced(kind, provider) as made:
        with capture_events(local=True) as events:
            assert await converse(made, api, way) == "I refunded it."
        ran.clear()
        before = len(provider.requests)
        with replay(
            events, until=step_of(events, "look_up"), answer=Answer(result={"status": "packed"}), store=False
        ) as run:
            assert await converse(made, api, way) == "It is packed still."

    assert len(provider.requests) - before == 1
    assert ran == []
    run.called("look_up", times=1)
    run.not_called("refund")
    assert run.live_from > step_of(run.events, "look_up")


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["whole", "stream"])
@both_faces(CHATS, ANSWERS, CLAUDES)
async def test_a_turn_is_answered_with_another_text(
    api: Api, kind: Any, way: str, provider: Provider
) -> None:
    """The package of the provider makes its answer or its stream of the text."""
    provider.script = model
    async with traced(kind, provider) as made:
        with capture_events(local=True) as events:
            await converse(made, api, way)
        ran.clear()
        before = len(provider.requests)
        with replay(
            events, until=step_of(events, api.name, 1), answer=Answer(text="No, later."), store=False
        ):
            assert await converse(made, api, way) == "No, later."

    assert len(provider.requests) == before
    assert ran == []


@pytest.mark.anyio
@both_faces(CHATS, ANSWERS, CLAUDES)
async def test_a_turn_is_asked_again(api: Api, kind: Any, provider: Provider) -> None:
    """Without an answer the turn at the step is asked for real, with the client's own connection."""
    provider.script = model
    async with traced(kind, provider) as made:
        with capture_events(local=True) as events:
            await converse(made, api, "whole")
        ran.clear()
        before = len(provider.requests)
        provider.script = lambda _: Reply("Something else.")
        with replay(events, until=step_of(events, api.name, 1), store=False) as run:
            assert await converse(made, api, "whole") == "Something else."

    assert len(provider.requests) - before == 1
    assert ran == []
    assert run.live_from == step_of(run.events, api.name, 1)


@pytest.mark.anyio
@both_faces(CHATS, CLAUDES)
async def test_a_turn_is_refused_or_lost(api: Api, kind: Any, provider: Provider) -> None:
    """A status is the refusal of the provider, anything else a connection that was lost."""
    provider.script = model
    async with traced(kind, provider) as made:
        with capture_events(local=True) as events:
            await converse(made, api, "whole")
        for error, expected in (("429 slow down", "RateLimitError"), ("no route", "APIConnectionError")):
            with (
                pytest.raises(Exception, match=r".") as caught,
                replay(events, until=step_of(events, api.name, 1), answer=Answer(error=error), store=False),
            ):
                await converse(made, api, "whole")

            assert type(caught.value).__name__ == expected


def test_the_cost_is_that_of_what_ran() -> None:
    """The plan has the cost of the recorded rest, each run that of its own turns."""
    pytest.importorskip("genai_prices")

    @traced_llm(model="gpt-4o", provider="openai")
    def think(messages: list[Any]) -> dict[str, Any]:
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        said = {"role": "assistant", "content": "Well."}
        return {"model": "gpt-4o", "choices": [{"index": 0, "message": said}], "usage": usage}

    def agent() -> None:
        for _ in range(1 if look_up(1)["status"] == "packed" else 2):
            think([{"role": "user", "content": "What now?"}])

    events = recorded(agent)
    answer = Answer(result={"status": "packed"})
    experiment = whatif(events, in_trace(agent), step=1, answer=answer, repeat=2, store=False)

    turn = 100 * 2.5e-6 + 10 * 10e-6
    assert experiment.plan.models == {"gpt-4o": 2}
    assert experiment.plan.cost == pytest.approx(2 * turn)
    assert [run.cost for run in experiment.runs] == pytest.approx([turn, turn])
    assert experiment.cost == pytest.approx(2 * turn)
    assert experiment.paths == {"the same until turn 1, then it ends, where the recorded run answers": 2}


# What passes


def test_a_run_passes_by_its_check() -> None:
    """The check has the assertions of a run, and what the agent returned."""
    events = recorded(plain_agent)
    answer = Answer(result={"status": "packed"})

    def told(check: Callable[[Replay, Any], object]) -> tuple[bool, str]:
        experiment = whatif(events, in_trace(plain_agent), step=1, answer=answer, check=check, store=False)
        return experiment.runs[0].passed, experiment.runs[0].reason

    assert told(lambda run, _: run.called("wait", times=1)) == (True, "")
    assert told(lambda _, returned: returned == "waiting") == (True, "")
    assert told(lambda _, returned: returned == "done") == (False, "the check returned False")
    assert told(lambda run, _: run.not_called("wait")) == (False, "wait was called.")


def test_a_check_that_fails_itself_costs_no_run() -> None:
    """It is told as the reason; a check that is none is refused before anything runs."""
    events = recorded(plain_agent)

    def check(_run: Replay, returned: Any) -> bool:
        return bool(returned["status"])

    async def later(_run: Replay, _returned: Any) -> bool:
        return False

    wrong: Any
    for wrong in ({"check": "wait"}, {"check": later}, {"repeat": 1.5}, {"repeat": "3"}):
        with pytest.raises(ConfigurationError, match="it must be a"):
            whatif(events, in_trace(plain_agent), step=1, store=False, **wrong)
    wrong = "agent"
    with pytest.raises(ConfigurationError, match="it must be a function that runs the agent"):
        whatif(events, wrong, step=1, store=False)
    assert ran == []

    experiment = whatif(events, in_trace(lambda: look_up(1)), step=1, check=check, store=False)
    assert experiment.passed == 1
    experiment = whatif(events, in_trace(lambda: wait(1)), step=1, check=check, store=False)
    assert experiment.runs[0].reason.startswith("the check raised TypeError: string indices")


def test_a_live_call_that_failed_for_good_fails_the_run() -> None:
    """A failure before the step is none of the experiment."""

    @traced_tool
    def fragile(place: int) -> None:
        if place > 1:
            raise OSError("lost")

    @traced_tool
    def gone() -> None:
        raise KeyError("gone")

    def agent(last: int = 1) -> str:
        for call in (gone, lambda: look_up(1), lambda: fragile(last)):
            with contextlib.suppress(OSError, KeyError):
                call()
        return "done"

    events = recorded(agent)
    step, answer = step_of(events, "look_up"), Answer(result={})
    fine = whatif(events, in_trace(agent), step=step, answer=answer, store=False).runs[0]
    bad = whatif(events, in_trace(lambda: agent(2)), step=step, answer=answer, store=False).runs[0]

    assert (fine.passed, bad.passed, bad.reason) == (True, False, "fragile failed: OSError: lost")


# Its traces


@pytest.mark.anyio
async def test_an_agent_is_tried_inside_an_event_loop() -> None:
    """As in a notebook: it has a loop of its own."""

    async def agent() -> str:
        await anyio.sleep(0)
        return plain_agent()

    events = recorded(plain_agent)
    experiment = whatif(
        events,
        agent,
        step=step_of(events, "look_up"),
        answer=Answer(result={"status": "packed"}),
        store=False,
    )

    assert experiment.runs[0].reason == ""
    assert experiment.passed == 1


@pytest.mark.parametrize("way", ["cause", "context", "group", "circle"])
def test_the_exceptions_behind_a_failure_are_told_in_its_line(way: str) -> None:
    """The last one says little where a framework wraps what happened."""

    def agent() -> None:
        plain_agent()
        lost = ConnectionError("lost")
        if way == "group":
            raise ExceptionGroup("two", [lost, KeyError("x")])
        try:
            raise lost
        except ConnectionError as error:
            if way == "context":
                raise RuntimeError("failed")  # noqa: B904 - that is the case
            failure = RuntimeError("failed")
            error.__cause__ = failure if way == "circle" else None
            raise failure from error

    events = recorded(plain_agent)
    [run] = whatif(events, agent, step=step_of(events, "look_up"), store=False).runs
    expected = "RuntimeError: failed, from ConnectionError: lost"
    if way == "group":
        expected = "ExceptionGroup: two (2 sub-exceptions): ConnectionError: lost; KeyError: 'x'"

    assert run.reason == f"it raised {expected}"


def test_each_run_is_a_trace_that_is_linked_to_its_source() -> None:
    """The metadata name the source and the answer, and the store finds the runs of a source."""
    sdk = WhyOps(agent_name="shop", tracing="local")

    def agent() -> str:
        with sdk.trace("refund-1", metadata={"shop": "north"}):
            return plain_agent()

    agent()
    flush_sync()
    answer = Answer(result={"status": "packed"})
    experiment = whatif("latest", agent, step=1, answer=answer, repeat=2)
    with closing(Store(home_directory(None) / STORE_FILE)) as store:
        summary = store.trace(experiment.runs[0].trace_id)
        replays = store.replays("refund-1")
        other = store.replays(summary.trace_id)

    assert summary.metadata == {
        "shop": "north",
        "replayOf": "refund-1",
        "whatIf": '#1 look_up(order=8841) returns {"status": "packed"}',
        "liveFrom": 3,
    }
    assert replays == [run.trace_id for run in reversed(experiment.runs)]
    assert other == []
    with replay("refund-1") as run:
        agent_again = [event["traceId"] for event in run.events]
        agent()
    assert agent_again == []


# What cannot be tried


def test_an_agent_that_goes_another_way_before_the_step_is_a_miss() -> None:
    events = recorded(plain_agent)
    step = step_of(events, "refund")

    with pytest.raises(ReplayMiss, match=r"look_up\(order=1\) is not in the recording"):
        whatif(events, in_trace(lambda: look_up(1)), step=step, store=False)
    with pytest.raises(ReplayMiss, match=r"ended before step 3, refund\(order=8841\)"):
        whatif(events, in_trace(lambda: None), step=step, store=False)
    assert ran == []


def test_why_a_run_ends_before_the_step_is_told() -> None:
    events = recorded(plain_agent)

    def fail() -> None:
        raise FileNotFoundError("no orders.csv.")

    def leave() -> None:
        raise SystemExit("usage: agent ORDER")

    with pytest.raises(ReplayMiss, match=r"step 3, .*: it raised FileNotFoundError: no orders.csv. These"):
        whatif(events, fail, step=3, store=False)
    with pytest.raises(ReplayMiss, match="it exited with 'usage: agent ORDER'"):
        whatif(events, leave, step=3, store=False)


def test_a_run_without_a_call_does_not_come_to_the_first_step() -> None:
    """Nothing comes before the step, and still it is no run of an agent that passes."""
    events = recorded(plain_agent)

    with pytest.raises(ReplayMiss, match=r"The run ended before step 1, look_up\(order=8841\)\.$"):
        whatif(events, lambda: None, step=1, store=False)


def test_an_interruption_before_the_step_goes_on() -> None:
    events = recorded(plain_agent)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        whatif(events, interrupted, step=3, store=False)


def test_nothing_leaves_the_process_before_the_step(provider: Provider) -> None:
    """The network is shut until the recording is used up, and open from then on."""
    import socket

    def reach() -> None:
        socket.create_connection(("127.0.0.1", provider.port)).close()

    def early() -> str:
        reach()
        return plain_agent()

    def late() -> None:
        plain_agent()
        reach()

    events = recorded(plain_agent)
    with pytest.raises(ReplayMiss, match=r"socket\."):
        whatif(events, in_trace(early), step=3, store=False)
    assert whatif(events, in_trace(late), step=3, store=False).runs[0].passed


def test_a_step_that_is_no_call_is_named_with_those_that_are() -> None:
    from whyops_trace import step

    def agent() -> None:
        with step("plan"):
            plain_agent()

    events = recorded(agent)
    with pytest.raises(ReplayError, match="There is no step 99 in t; its calls are 2 look_up, 4 refund"):
        plan(events, 99)
    with pytest.raises(ReplayError, match="Step 1 of t is a record of llm_thinking, which has no result"):
        plan(events, 1)


def test_a_fixture_has_no_steps(tmp_path: Any) -> None:
    from whyops_trace._replay.fixture import write_fixture
    from whyops_trace._replay.recording import read_calls

    path = tmp_path / "t.whyops"
    path.write_text(write_fixture(read_calls(recorded(plain_agent))))

    with pytest.raises(ReplayError, match="a fixture, which has no steps"):
        plan(path, 1)


def test_a_running_recording_is_refused() -> None:
    events = recorded(plain_agent)[:3]

    with pytest.raises(ReplayError, match="still runs"):
        plan(events, 1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"capture_output": False}, "was not captured"), ({}, "held a secret"), ({"cut": True}, "was cut")],
)
def test_a_call_before_the_step_that_cannot_be_answered_is_refused(
    options: dict[str, Any], reason: str
) -> None:
    """It is named before anything runs, and can be swapped or live."""
    is_cut = options.pop("cut", False)

    @traced_tool(**options)
    def secret() -> Any:
        return "x" * 2_000_000 if is_cut else {"password": "hunter2-hunter2"}

    def agent() -> str:
        secret()
        return refund(1)

    events = recorded(agent)
    step = step_of(events, "refund")
    with pytest.raises(ReplayError, match=f"secret.. at step 1 .*{reason}"):
        whatif(events, in_trace(agent), step=step, store=False)
    ways: list[dict[str, Any]] = [{"live": ["secret"]}, {"swap": {"secret": lambda: {}}}]
    for more in ways:
        assert whatif(events, in_trace(agent), step=step, store=False, **more).runs[0].passed
    assert ran == ["refund 1", "refund 1"]


def test_answers_that_do_not_fit_are_refused() -> None:
    events = recorded(plain_agent)

    with pytest.raises(ConfigurationError, match="one of result, error and text"):
        Answer(result=1, text="one")
    with pytest.raises(ConfigurationError, match="answer goes with until"):
        replay(events, answer=Answer(text="one"))
    with pytest.raises(ConfigurationError, match="repeat is 0"):
        whatif(events, plain_agent, step=1, repeat=0)
    with pytest.raises(ReplayError, match="no call of a model"):
        plan(events, 1, Answer(text="one"))
    wrong: Any
    for wrong in ({"error": ValueError}, {"text": 3}, {"result": {1}}, {"result": float("nan")}):
        with pytest.raises(ConfigurationError, match="it must be"):
            Answer(**wrong)
    for wrong in ({"step": "1"}, {"step": 1, "answer": {"status": "packed"}}):
        with pytest.raises(ConfigurationError, match="it must be"):
            plan(events, **wrong)
    wrong = {"refund": "done"}
    with pytest.raises(ConfigurationError, match="swap has 'done' for 'refund'; it must be a function"):
        replay(events, swap=wrong)
    wrong = r"\d+"
    with pytest.raises(ConfigurationError, match="it must be a function from a text"):
        replay(events, normalise=wrong)


def test_a_limit_of_the_trace_stops_a_run_of_an_experiment() -> None:
    """Guards hold for what runs behind the step."""
    events = recorded(plain_agent)

    def agent() -> None:
        with trace("t", max_steps=4):
            look_up(8841)
            for order in range(9):
                refund(order)

    experiment = whatif(events, agent, step=1, answer=Answer(result={}), store=False)

    assert not experiment.runs[0].passed
    assert AgentRunaway.__name__ in experiment.runs[0].reason
