"""The order of a hybrid trace on a server that is slow, lags behind, and stores what it gets when it likes."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, Hang
from findings import findings
from hybrid import agent
from packages import openai
from programs import Program, start
from provider import Provider
from replies import Cut, Failure, Gate, Reply, Thinking
from serving import KEY
from wire import PATIENCE, Answer, Request, Row

from whyops_trace import WhyOps, propagate, traced_tool
from whyops_trace.exporters import base
from whyops_trace.exporters.whyops import turns

PROGRAM = Path(__file__).with_name("hybrid_program.py")
#: What depends on nothing but the time that calls took.
OUTLIERS = ("LATENCY_OUTLIER", "TOKEN_OUTLIER")


@pytest.fixture
def lagging(collector: Collector, provider: Provider) -> Collector:
    """A server whose events take 20 ms each, with a proxy to a provider that never says the same twice."""
    numbers = itertools.count(1)
    collector.upstream = provider
    collector.event_seconds = 0.02
    collector.stream_late = 0.005
    provider.script = lambda request: Reply(
        f"Answer {next(numbers)}.", thinking=(Thinking(f"Hm {next(numbers)}"),)
    )
    return collector


@pytest.fixture
def repeating(lagging: Collector, provider: Provider) -> Collector:
    """The same server, with a provider that says the same each time: the server stores it once."""
    lagging.lag = 0.05
    provider.script = None
    provider.default = Reply("Hm.", thinking=(Thinking("Hm?"),))
    return lagging


def begin(server: Collector, home: Path, kind: str, *numbers: int, trace: str = "t", **more: str) -> Program:
    """Start a process that takes turns; *numbers* are the first and last turn, the tools and their milliseconds."""
    urls = {"WHYOPS_ANALYSE_URL": server.url, "WHYOPS_PROXY_URL": server.proxy_url}
    about = {"WHYOPS_API_KEY": KEY, "WHYOPS_AGENT_NAME": "shop", **urls, **more}
    return start(PROGRAM, kind, trace, *map(str, numbers), home=home, **about)


def ended(process: Program) -> list[float]:
    """The milliseconds that each request waited, once a process has ended well."""
    with process:
        out, err = process.communicate(timeout=120)

    assert (process.returncode, err) == (0, "")
    waits: list[float] = json.loads(out)
    return waits


def sound(server: Collector, trace: str = "t") -> list[Row]:
    """The rows of a trace, in which the server's analysis finds nothing wrong."""
    rows = server.trace(trace)
    found = [finding for finding in findings(rows) if finding[0] not in OUTLIERS]

    assert server.dead_letters == []
    assert found == [], [(row["timestamp"][14:], row["stepId"], row["eventType"]) for row in rows]
    return rows


@pytest.mark.parametrize("tools", [1, 8])
@pytest.mark.parametrize("tool_ms", [0, 5, 200])
@pytest.mark.parametrize("lag", [0.0, 0.05, 0.5])
def test_a_conversation_of_three_processes_is_in_order(
    lagging: Collector, tmp_path: Path, lag: float, tool_ms: int, tools: int
) -> None:
    """Whatever the tools take, however many there are, and however late the proxy's events are stored."""
    lagging.lag = lag
    turns_each = 1 if tool_ms * tools > 1000 else 2
    for first in (1, 11, 21):
        ended(begin(lagging, tmp_path, "openai", first, first + turns_each - 1, tools, tool_ms))
    lagging.wait_for(lambda: len(lagging.trace("t")) == 3 * turns_each * (2 + 2 * tools))
    sound(lagging)


@pytest.mark.parametrize("lag", [0.05, 0.5])
@pytest.mark.parametrize("kind", ["openai async", "anthropic", "anthropic async"])
def test_every_client_keeps_the_order(lagging: Collector, tmp_path: Path, kind: str, lag: float) -> None:
    """Tools that run at once, and thoughts that the proxy reports after an answer."""
    lagging.lag = lag
    ended(begin(lagging, tmp_path, kind, 1, 3, 3, 0))
    events = 3 + kind.startswith("anthropic")
    lagging.wait_for(lambda: len(lagging.trace("t")) == 3 * (events - 1 + 2 * 3))
    sound(lagging)


@pytest.mark.parametrize("late", [0.005, 0.2])
@pytest.mark.parametrize("lag", [0.0, 0.3])
@pytest.mark.parametrize(
    "kind", ["openai stream", "openai stream async", "anthropic stream", "anthropic stream async"]
)
def test_a_stream_keeps_the_order(
    lagging: Collector, tmp_path: Path, kind: str, lag: float, late: float
) -> None:
    """The proxy dates its answer when its reader has the end already, and goes on."""
    lagging.lag, lagging.stream_late = lag, late
    ended(begin(lagging, tmp_path, kind, 1, 3, 3, 0))
    events = 3 + kind.startswith("anthropic")
    lagging.wait_for(lambda: len(lagging.trace("t")) == 3 * (events - 1 + 2 * 3))
    sound(lagging)


@pytest.mark.parametrize("kind", ["openai", "openai async", "openai stream", "anthropic"])
def test_a_model_that_repeats_itself_keeps_the_order(repeating: Collector, tmp_path: Path, kind: str) -> None:
    """Nothing waits for an answer or a thought that the server drops as a repeat."""
    ended(begin(repeating, tmp_path, kind, 1, 4, 2, 0))
    repeating.wait_for(lambda: len(repeating.trace("t")) == 4 * 5 + 1 + kind.startswith("anthropic"))
    sound(repeating)


def test_conversations_beside_each_other_keep_their_order(lagging: Collector, tmp_path: Path) -> None:
    """Several processes, each with a trace of its own."""
    lagging.lag = 0.2
    traces = [f"t{number}" for number in range(3)]
    programs = [begin(lagging, tmp_path, "openai", 1, 3, 2, 0, trace=trace) for trace in traces]
    for program in programs:
        ended(program)
    lagging.wait_for(lambda: len(lagging.stored) == 3 * 3 * 6)
    for trace in traces:
        sound(lagging, trace)


def test_two_processes_in_one_trace_never_share_a_step(lagging: Collector, tmp_path: Path) -> None:
    """Though their order cannot be kept."""
    programs = [
        begin(lagging, tmp_path, "openai", first, first + 4, 3, 0, WHYOPS_HOME=str(tmp_path / str(first)))
        for first in (1, 11)
    ]
    for program in programs:
        ended(program)
    lagging.wait_for(lambda: len(lagging.trace("t")) == 2 * 5 * (2 + 2 * 3))
    steps = [row["stepId"] for row in lagging.trace("t")]

    assert len(set(steps)) == len(steps)


def test_a_request_never_waits_longer_than_its_setting(lagging: Collector, tmp_path: Path) -> None:
    """It says so, once, that the order may be wrong from then on."""
    lagging.lag = 30.0
    with begin(lagging, tmp_path, "openai", 1, 4, 1, 0, WHYOPS_PROXY_WAIT="0.1") as process:
        out, err = process.communicate(timeout=120)
    waits: list[Any] = json.loads(out)

    assert len(waits) == 4
    assert err.count("WHYOPS_PROXY_WAIT") == 1
    assert len([row for row in lagging.trace("t") if row["eventType"].startswith("tool")]) == 8


# What is held back


@traced_tool
def charge_card(amount: int) -> int:
    """Charge a card."""
    return amount


@contextlib.contextmanager
def asking(sdk: WhyOps) -> Iterator[Callable[..., Any]]:
    """A function that asks a model something through the proxy."""
    numbers = itertools.count(1)
    with sdk.openai(openai.OpenAI(api_key="sk-test", max_retries=0)) as client:

        def ask(**more: Any) -> Any:
            text = f"Question {next(numbers)}?"
            return client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": text}], **more
            )

        yield ask


def is_look(request: Request) -> bool:
    """True for a request for the events of a trace."""
    return (request.method, request.path) == ("GET", "/api/events")


def looks(server: Collector) -> int:
    """How often a trace was looked at."""
    return sum(map(is_look, server.requests))


@pytest.fixture
def late(collector: Collector, provider: Provider) -> Collector:
    """A server that gets the proxy's events only when the test lets it."""
    collector.upstream = provider
    collector.emit_late = True
    return collector


def test_what_comes_after_a_turn_waits_for_its_answer(late: Collector, provider: Provider) -> None:
    """Other traces do not wait for it; it goes out by itself when the answer is there."""
    sdk = agent(late, provider)
    with asking(sdk) as ask:
        with sdk.trace("held"):
            ask()
            charge_card(1)
        late.wait_for(lambda: looks(late) > 2)
        with sdk.trace("free"):
            charge_card(2)
        late.wait_for(lambda: len(late.trace("free")) == 2)
        early = [row["eventType"] for row in late.trace("held")]
        late.let_emit()
        late.wait_for(lambda: len(late.trace("held")) == 4)
    sdk.close_sync(30)

    assert early == ["user_message"]
    assert sdk.stats()["whyops"].pending == 0
    sound(late, "held")
    sound(late, "free")


def test_what_is_held_goes_out_after_a_bound(
    late: Collector, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the answer of the turn never comes."""
    monkeypatch.setattr(turns, "HOLD", 0.2)
    sdk = agent(late, provider)
    with asking(sdk) as ask, sdk.trace("t"):
        ask()
        charge_card(1)
        late.wait_for(lambda: len(late.trace("t")) == 3)
    sdk.close_sync(30)

    assert looks(late) > 0


@pytest.mark.parametrize("ending", ["flush_sync", "close_sync"])
def test_what_is_held_is_delivered_when_somebody_waits_for_it(
    late: Collector, provider: Provider, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """At a flush and at the end, long before the bound."""
    monkeypatch.setattr(turns, "HOLD", 3_600.0)
    monkeypatch.setattr(turns, "HOLD_FLUSHED", 0.2)
    sdk = agent(late, provider)
    with asking(sdk) as ask, sdk.trace("t"):
        ask()
        charge_card(1)
    ledger = getattr(sdk, ending)(30)
    sdk.close_sync(30)

    assert ledger["whyops"].pending == 0
    assert [row["eventType"] for row in late.trace("t")][1:] == ["tool_call_request", "tool_call_response"]


def test_what_a_dead_process_held_is_delivered_by_the_next(
    late: Collector, provider: Provider, tmp_path: Path
) -> None:
    """It is in the journal like all else, and nobody waits for a turn of a process that is gone."""
    with begin(late, tmp_path, "openai", 1, 1, 2, 0, DIE="1") as process:
        process.communicate(timeout=120)
    before = len(late.trace("t"))
    sdk = agent(late, provider, home=tmp_path, store=False)
    sdk.trace("other").error_sync("next")
    sdk.flush_sync(30)
    sdk.close_sync(30)

    assert before == 1
    assert len(late.trace("t")) == 1 + 4


def test_nothing_is_held_for_a_turn_that_the_proxy_does_not_report(
    collector: Collector, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that is down, or that refuses the request itself, has nothing to tell."""
    monkeypatch.setattr(turns, "HOLD", 3_600.0)
    monkeypatch.setattr(turns, "HOLD_FAILED", 3_600.0)
    with Collector() as down:
        sdk = agent(collector, provider, proxy_base_url=down.proxy_url)
        down.stop()
        with asking(sdk) as ask, sdk.trace("down"):
            with pytest.raises(openai.APIConnectionError):
                ask()
            charge_card(1)
            collector.wait_for(lambda: len(collector.trace("down")) == 2)
    collector.upstream = None
    sdk = agent(collector, None)
    with asking(sdk) as ask, sdk.trace("refused"):
        with pytest.raises(openai.BadRequestError):
            ask()
        charge_card(1)
        collector.wait_for(lambda: len(collector.trace("refused")) == 2)


def test_what_comes_after_a_failed_turn_waits_for_its_error(
    late: Collector, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy reports what the provider refuses."""
    monkeypatch.setattr(turns, "HOLD_FAILED", 3_600.0)
    provider.reply(Reply(incidents=(Failure(429),)))
    sdk = agent(late, provider)
    with asking(sdk) as ask, sdk.trace("t"):
        with pytest.raises(openai.RateLimitError):
            ask()
        charge_card(1)
        late.wait_for(lambda: looks(late) > 2)
        early = [row["eventType"] for row in late.trace("t")]
        late.let_emit()
        late.wait_for(lambda: len(late.trace("t")) == 4)
    sdk.close_sync(30)

    assert early == ["user_message"]
    assert [row["eventType"] for row in sound(late)][1] == "error"


@pytest.fixture
def patient(
    lagging: Collector, provider: Provider, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WhyOps]:
    """A client of the lagging server that waits for ever for what does not come, and so must not wait for it."""
    monkeypatch.setattr(turns, "HOLD", 3_600.0)
    monkeypatch.setattr(turns, "HOLD_FAILED", 3_600.0)
    lagging.lag = 0.05
    sdk = agent(lagging, provider, proxy_wait=PATIENCE)
    yield sdk
    sdk.close_sync(30)
    sound(lagging)

    assert caplog.messages == []


def test_equal_turns_are_not_waited_for(patient: WhyOps, provider: Provider) -> None:
    """An agent that asks the same again and gets the same answer."""
    provider.script = None
    with patient.openai(openai.OpenAI(api_key="sk-test")) as client, patient.trace("t"):
        for number in range(4):
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Ready?"}])
            charge_card(number)


def test_equal_errors_are_not_waited_for(patient: WhyOps, provider: Provider) -> None:
    """The server stores the first of them."""
    provider.script = lambda request: Failure(429)
    with asking(patient) as ask, patient.trace("t"):
        for number in range(4):
            with pytest.raises(openai.RateLimitError):
                ask()
            charge_card(number)


def test_equal_embeddings_are_not_waited_for(patient: WhyOps) -> None:
    """The proxy reports nothing of the vectors, so all answers are equal."""
    with asking(patient) as ask, patient.openai(openai.OpenAI(api_key="sk-test")) as client:
        with patient.trace("t"):
            for number in range(4):
                client.embeddings.create(model="text-embedding-3-small", input=f"query {number}")
                ask()
                charge_card(number)


def test_a_stream_that_the_provider_cut_is_not_waited_for(patient: WhyOps, provider: Provider) -> None:
    """The proxy reports nothing of it but the prompt."""
    whole, provider.script = provider.script, None
    provider.reply(Reply("Some words of an answer.", incidents=(Cut(3),)))
    with asking(patient) as ask, patient.trace("t"):
        list(ask(stream=True))
        provider.script = whole
        for number in range(4):
            charge_card(number)
            ask()


def test_an_answer_that_never_comes_is_not_waited_for_again(
    late: Collector, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its time has passed, or the server shows something later, the order is as good as before."""
    numbers = itertools.count(1)
    provider.script = lambda request: Reply(f"Answer {next(numbers)}.")
    monkeypatch.setattr(turns, "HOLD", 0.2)
    sdk = agent(late, provider)
    with asking(sdk) as ask, sdk.trace("t"):
        ask()
        charge_card(1)
        late.wait_for(lambda: len(late.trace("t")) == 3)
        late.held.clear()
        late.emit_late = False
        late.lag = 0.05
        monkeypatch.setattr(turns, "HOLD", 3_600.0)
        for number in range(3):
            ask()
            charge_card(number)
    sdk.close_sync(30)

    assert len(sound(late)) == 3 + 3 * 4


def test_what_follows_a_stream_left_early_is_dated_after_its_answer(
    lagging: Collector, provider: Provider
) -> None:
    """The proxy reads the stream to its end, and dates its answer then."""
    gate = Gate(2)
    provider.script = lambda request: Reply("Some words of an answer.", incidents=(gate,))
    sdk = agent(lagging, provider)
    with asking(sdk) as ask, sdk.trace("t"):
        stream = ask(stream=True)
        next(iter(stream))
        stream.close()
        charge_card(1)
        lagging.wait_for(lambda: looks(lagging) > 4)
        gate.open()
        lagging.wait_for(lambda: len(lagging.trace("t")) == 4)
    sdk.close_sync(30)

    assert [row["eventType"] for row in sound(lagging)][1] == "llm_response"


@pytest.mark.parametrize("beside", ["tasks", "threads", "tools"])
def test_work_beside_a_turn_is_in_order(
    lagging: Collector, provider: Provider, tmp_path: Path, beside: str
) -> None:
    """What was made while a model thought, and stored after its answer, is dated after that."""
    lagging.lag = 0.3
    ended(begin(lagging, tmp_path, f"openai {beside}", 1, 3, 1, 0))
    lagging.wait_for(lambda: len(lagging.trace("t")) == 3 * 4)
    sound(lagging)


# A server that does not show its events


@pytest.mark.parametrize(
    ("answer", "most"),
    [
        (Answer(500, {"error": "Internal server error"}), None),
        (Answer(404, {"error": "Not found"}), None),
        (Answer(200, "<html>", content_type="text/html"), None),
        (Answer(429, {"error": "slow"}, headers={"Retry-After": "30"}), 1),
    ],
    ids=["500", "404", "page", "429"],
)
def test_nothing_waits_for_a_server_that_does_not_show_its_events(
    lagging: Collector, provider: Provider, caplog: pytest.LogCaptureFixture, answer: Answer, most: int | None
) -> None:
    """It is asked a few times, or as often as it likes, and a warning says so once."""
    lagging.script = lambda request: answer if is_look(request) else None
    sdk = agent(lagging, provider, proxy_wait=PATIENCE)
    with asking(sdk) as ask, sdk.trace("t"):
        for number in range(4):
            ask()
            charge_card(number)
    sdk.close_sync(30)

    assert len(lagging.trace("t")) == 4 * 4
    assert ["does not show" in message for message in caplog.messages] == [True]
    assert most is None or looks(lagging) == most


def test_a_few_requests_wait_in_vain_and_no_more(
    lagging: Collector, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never answers is left alone for a while."""
    monkeypatch.setattr(base, "FIRST_BACKOFF", 3_600.0)
    lagging.script = lambda request: Hang() if is_look(request) else None
    sdk = agent(lagging, provider, proxy_wait=0.05)
    with asking(sdk) as ask, sdk.trace("t"):
        for number in range(8):
            ask()
            charge_card(number)
            if number == 4:
                before = looks(lagging)
    after = looks(lagging)
    lagging.script = None
    lagging.release()
    sdk.close_sync(30)

    assert before == after


def test_a_server_that_shows_nothing_of_a_trace_holds_nothing_up(
    lagging: Collector, provider: Provider, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a request has waited in vain the records of the trace leave, though the server knows none of its events."""
    monkeypatch.setattr(turns, "HOLD", 3_600.0)
    monkeypatch.setattr(turns, "HOLD_FLUSHED", 3_600.0)
    lagging.script = lambda request: Answer(200, {"events": []}) if is_look(request) else None
    sdk = agent(lagging, provider, proxy_wait=0.1)
    with asking(sdk) as ask, sdk.trace("t"):
        for number in range(4):
            ask()
            charge_card(number)
        ask()
        lagging.wait_for(lambda: len(lagging.trace("t")) == 4 * 4 + 2)
    sdk.close_sync(30)

    assert ["WHYOPS_PROXY_WAIT" in message for message in caplog.messages] == [True]


def test_traces_that_the_server_does_not_keep_cost_the_others_nothing(
    lagging: Collector, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """The server shows nothing of them, which is no reason not to wait for the events of those that it keeps."""
    lagging.lag = 0.05
    lagging.sampling_rate = 0.5
    out, kept = [f"t{number}" for number in range(3, 10)], ["t2", "t10"]
    sdk = agent(lagging, provider, proxy_wait=0.5)
    with asking(sdk) as ask:
        for trace in (kept[0], *out, kept[1]):
            with sdk.trace(trace):
                for number in range(3):
                    ask()
                    charge_card(number)
    sdk.close_sync(30)
    lagging.wait_for(lambda: len(lagging.stored) == 2 * 3 * 4)

    assert sdk.stats()["whyops"].sampled_out == len(out) * 3 * 2
    assert not any("does not show" in message for message in caplog.messages)
    for trace in kept:
        sound(lagging, trace)


def test_a_server_that_shows_its_events_again_is_waited_for(
    lagging: Collector, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its pause."""
    monkeypatch.setattr(base, "FIRST_BACKOFF", 0.0)
    lagging.lag = 0.05
    lagging.script = lambda request: Answer(500, {}) if is_look(request) and looks(lagging) < 9 else None
    sdk = agent(lagging, provider, proxy_wait=PATIENCE)
    with asking(sdk) as ask, sdk.trace("t"):
        for number in range(4):
            ask()
            charge_card(number)
    sdk.close_sync(30)
    lagging.wait_for(lambda: len(lagging.trace("t")) == 16)

    assert looks(lagging) > 9


def test_other_threads_go_on_while_a_turn_is_on_its_way(collector: Collector, provider: Provider) -> None:
    """What they record waits for the prompt alone, and so comes before the answer on the server as well."""
    collector.upstream = provider
    gate = Gate()
    provider.reply(Reply("Done.", incidents=(gate,)))
    sdk = agent(collector, provider)
    with asking(sdk) as ask, sdk.trace("t"):
        thread = threading.Thread(target=propagate(ask))
        thread.start()
        assert gate.reached.wait(30)
        charge_card(1)
        collector.wait_for(lambda: len(collector.trace("t")) == 3)
        gate.open()
        thread.join()
        charge_card(2)
    sdk.close_sync(30)

    assert [row["eventType"] for row in sound(collector)] == [
        "user_message", "tool_call_request", "tool_call_response", "llm_response",
        "tool_call_request", "tool_call_response",
    ]  # fmt: skip
