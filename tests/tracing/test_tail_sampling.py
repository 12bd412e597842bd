"""The traces that a remote destination gets, by what became of them."""

from __future__ import annotations

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import run, run_code, stored

from whyops_trace import ConfigurationError, TailSampling, Tally, WhyOps, step, traced_llm, traced_tool
from whyops_trace._delivery import sampler
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.testing import ManualClock

NONE = TailSampling(share=0)


class Remote(Exporter):
    """
    A remote destination that keeps the ids of its records' traces, and their keys.

    Attributes:
        fails: True to take nothing.
        most: Records that it takes of each batch at most.
    """

    name = "remote"
    remote = True

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.fails = False
        self.most = 1_000_000
        self._changed = threading.Condition()

    def export(self, batch: Batch) -> Sequence[Outcome]:
        if self.fails:
            raise DeliveryError("it is away", 0.01)
        lines = batch.lines[: self.most]
        with self._changed:
            self.records += map(json.loads, lines)
            self._changed.notify_all()
        return [Outcome.DELIVERED] * len(lines)

    def wait(self, enough: Callable[[], bool]) -> None:
        """Wait until enough has come."""
        with self._changed:
            assert self._changed.wait_for(enough, 20), Counter(self.traces)

    @property
    def traces(self) -> list[str]:
        """The trace of each record, in the order that they came."""
        return [record["traceId"] for record in self.records]


@traced_tool
def work(result: Any) -> Any:
    if isinstance(result, Exception):
        raise result
    return result


@pytest.fixture
def remote() -> Remote:
    return Remote()


def client(remote: Remote, choice: TailSampling | float = NONE, **options: Any) -> WhyOps:
    return WhyOps(agent_name="shop", exporters=[remote], tail_sampling=choice, **options)


def adds_up(tally: Tally) -> bool:
    return (
        tally.emitted == tally.delivered + tally.pending + tally.sampled_out + tally.rejected + tally.dropped
    )


def whole(sdk: WhyOps, remote: Remote, trace_id: str) -> bool:
    """Tell whether a destination has all that the store has of a trace, each record once, as it was recorded."""
    keys = [record["idempotencyKey"] for record in remote.records if record["traceId"] == trace_id]
    numbers = [int(key.partition("-")[2]) for key in keys]
    stored_keys = [record["idempotencyKey"] for record in stored(sdk.settings.home, trace_id)]
    return sorted(keys) == sorted(stored_keys) and numbers == sorted(numbers)


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_the_share_of_good_traces_is_what_was_asked_for(remote: Remote, share: float) -> None:
    """The hash of an id decides; the others are counted as sampled out, and the store has them all."""
    choice = TailSampling(share=share)
    names = [f"conversation {n}" for n in range(60)]
    with client(remote, share) as sdk:
        for name in names:
            with sdk.trace(name):
                work(1)
        ledger = sdk.flush_sync()

    assert set(remote.traces) == {name for name in names if choice.is_in_share(name)}
    assert ledger["remote"] == Tally(180, len(remote.records), 0, 180 - len(remote.records), 0, 0)
    assert all(len(stored(sdk.settings.home, name)) == 3 for name in names)


def test_the_share_is_one_of_the_traces_that_are_recorded(tmp_path: Path) -> None:
    """What decides is another part of the hash than that of the traces that are recorded at all."""
    remote = Remote()
    with client(remote, 0.5, sample_rate=0.5) as sdk:
        for number in range(200):
            with sdk.trace(f"conversation {number}"):
                work(1)
        recorded = sdk.flush_sync()["local"].delivered / 3

    assert 0.3 * recorded < len(set(remote.traces)) < 0.7 * recorded


@pytest.mark.parametrize(
    "result",
    [ValueError("no"), {"success": False, "error": "no such order"}, "Error: no such order"],
    ids=["raised", "said so", "in words"],
)
def test_a_trace_in_which_a_call_failed_is_sent_whole(remote: Remote, result: Any) -> None:
    """Though the agent went on, and the trace ended well."""
    with client(remote) as sdk:
        for name in ("good", "bad"):
            with sdk.trace(name), step("plan"):
                work(1)
                try:
                    work(result if name == "bad" else 2)
                except ValueError:
                    work(3)
        sdk.flush_sync()

        assert set(remote.traces) == {"bad"}
        assert whole(sdk, remote, "bad")


def test_a_trace_that_raises_and_a_question_without_an_answer_failed(remote: Remote) -> None:
    """As the list of traces has them."""
    with client(remote) as sdk:
        with pytest.raises(KeyError), sdk.trace("raised"):
            raise KeyError("x")
        with pytest.raises(KeyError), sdk.trace("raised in a block"), step("plan"):
            raise KeyError("x")
        with sdk.trace("unanswered") as trace:
            trace.user_message_sync([{"role": "user", "content": "Where is it?"}])
            work(1)
        sdk.flush_sync()

    assert set(remote.traces) == {"raised in a block", "unanswered"}


def test_failed_traces_are_as_others_if_that_is_asked_for(remote: Remote) -> None:
    """Then nothing but the share is sent."""
    with client(remote, TailSampling(share=0, failed=False)) as sdk:
        with pytest.raises(ValueError, match="no"), sdk.trace("bad"):
            work(ValueError("no"))
        sdk.flush_sync()

    assert remote.records == []


def test_slow_traces_are_sent(remote: Remote) -> None:
    """The time of a trace is that from its beginning to its end."""
    clock = ManualClock()
    with client(remote, TailSampling(share=0, slower_than=30), clock=clock) as sdk:
        for name, seconds in (("quick", 29), ("slow", 31)):
            with sdk.trace(name):
                work(1)
                clock.advance(seconds)
        sdk.flush_sync()

        assert set(remote.traces) == {"slow"}
        assert whole(sdk, remote, "slow")


def test_costly_traces_are_sent(remote: Remote) -> None:
    """By the prices of the models; one whose price is unknown costs nothing that is known."""

    @traced_llm(model="gpt-4o", provider="openai")
    def ask(tokens: int) -> dict[str, Any]:
        usage = {"prompt_tokens": tokens, "completion_tokens": 10, "total_tokens": tokens + 10}
        message = {"role": "assistant", "content": "Yes."}
        return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage, "model": "gpt-4o"}

    with client(remote, TailSampling(share=0, costlier_than=0.5)) as sdk:
        for name, tokens in (("cheap", 1_000), ("dear", 1_000_000)):
            with sdk.trace(name):
                ask(tokens)
        sdk.flush_sync()

    assert set(remote.traces) == {"dear"}


@pytest.mark.parametrize("when", ["before the end", "after the end"])
def test_a_trace_with_a_score_is_sent_whole(remote: Remote, when: str) -> None:
    """Though it was counted as sampled out before the score came; then no more."""
    with client(remote) as sdk:
        with sdk.trace("judged") as trace:
            work(1)
            if when == "before the end":
                trace.score("helpful", False)
        between = sdk.flush_sync()["remote"]
        if when == "after the end":
            trace.score("helpful", False)
        after = sdk.flush_sync()["remote"]

        assert (between.delivered, between.sampled_out) == ((4, 0) if when == "before the end" else (0, 3))
        assert after == Tally(4, 4, 0, 0, 0, 0)
        assert [record["eventType"] for record in remote.records if record["eventType"] != "score"] == [
            record["eventType"] for record in stored(sdk.settings.home, "judged")
        ]


def test_what_was_left_out_long_ago_is_forgotten(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score that comes too late is sent alone, and so is what is recorded from then on."""
    monkeypatch.setattr(sampler, "MAX_LEFT_OUT", 0)
    monkeypatch.setattr(sampler, "LOOK_EVERY", 0.0)
    with client(remote) as sdk:
        with sdk.trace("judged") as trace:
            work(1)
        sdk.flush_sync()
        trace.score("helpful", False)
        sdk.flush_sync()
        with sdk.trace("judged"):
            work(2)
        ledger = sdk.flush_sync()["remote"]

    assert ledger == Tally(7, 4, 0, 3, 0, 0)


def test_a_trace_with_the_tag_for_it_is_sent_whole(remote: Remote) -> None:
    """Any other tag says nothing of that."""
    with client(remote) as sdk:
        for tag in ("keep", "vip"):
            with sdk.trace(tag, tags=[tag]):
                work(1)
        sdk.flush_sync()

        assert set(remote.traces) == {"keep"}
        assert whole(sdk, remote, "keep")


def test_a_score_keeps_nothing_if_that_is_asked_for(remote: Remote) -> None:
    """Where a program scores each of its traces."""
    with client(remote, TailSampling(share=0, flagged=False)) as sdk, sdk.trace("judged") as trace:
        work(1)
        trace.score("correct", 0.3)
    sdk.flush_sync()

    assert remote.records == []


def test_flush_does_not_decide(remote: Remote) -> None:
    """What is open is pending, and goes once its trace has failed."""
    with client(remote) as sdk:
        with pytest.raises(ValueError, match="no"), sdk.trace("late"):
            work(1)
            early = sdk.flush_sync()["remote"]
            work(ValueError("no"))
        late = sdk.flush_sync()["remote"]

        assert early == Tally(2, 0, 2, 0, 0, 0)
        assert late == Tally(6, 6, 0, 0, 0, 0)
        assert whole(sdk, remote, "late")


def test_a_conversation_is_decided_turn_by_turn_and_kept_for_good(remote: Remote) -> None:
    """Once a turn has failed its earlier turns are sent after all, and the later ones as well."""
    with client(remote) as sdk:
        for result in (1, "Error: no", 2):
            with sdk.trace("conversation"):
                work(result)
            sdk.flush_sync()

        assert whole(sdk, remote, "conversation")
        assert len(remote.records) == 9


def test_a_trace_without_an_end_is_decided_after_a_while(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was recorded by hand; without a record for some minutes it counts as over."""
    monkeypatch.setattr(sampler, "LOOK_EVERY", 0.05)
    with client(remote) as sdk:
        sdk.trace("good").llm_response_sync("m", "p", "Yes.")
        sdk.trace("bad").error_sync("no")
        early = sdk.flush_sync()["remote"]
        monkeypatch.setattr(sampler, "IDLE", 0.0)
        sdk.trace("other").llm_response_sync("m", "p", "Yes.")
        remote.wait(lambda: "bad" in remote.traces)

        assert early.pending == 2
        assert set(remote.traces) == {"bad"}


def test_of_too_many_open_traces_the_oldest_are_decided(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is known of them."""
    monkeypatch.setattr(sampler, "MAX_TRACES", 3)
    with client(remote) as sdk:
        for number in range(9):
            sdk.trace(f"t{number}").error_sync("no")
            sdk.flush_sync()
        ledger = sdk.flush_sync()["remote"]

        assert remote.traces == [f"t{number}" for number in range(6)]
        assert (ledger.delivered, ledger.pending) == (6, 3)


def test_closing_decides_on_what_nothing_is_open_of(remote: Remote) -> None:
    """What is open waits for the next process, which finds that nobody ended it, and sends it."""
    with client(remote) as sdk:
        for name in ("good", "bad"):
            sdk.trace(name).llm_response_sync("m", "p", "Yes.")
        sdk.trace("bad").error_sync("no")
        opened = sdk.trace("open")
        opened.tool_call_request_sync("look", [{"name": "look", "arguments": {}}])
    closed = sdk.stats()["remote"]
    with client(remote) as other:
        with other.trace("next"):
            work(1)
        other.flush_sync()

    assert closed == Tally(4, 2, 1, 1, 0, 0)
    assert remote.traces == ["bad", "bad", "open"]


def test_the_end_of_a_program_decides_on_all(tmp_path: Path) -> None:
    """A trace in the middle of which it ended is kept as one that failed."""
    code = """
from test_tail_sampling import *
class Telling(Remote):
    def close(self):
        print(*sorted(set(self.traces)))
sdk = client(Telling())
sdk.trace("good").llm_response_sync("m", "p", "Yes.")
sdk.trace("open").tool_call_request_sync("look", [{"name": "look", "arguments": {}}])
block = sdk.trace("block")
block.__enter__()
work(1)
"""
    path = f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[1]}{os.pathsep}{Path(__file__).parents[2]}"
    assert run_code(code, home=tmp_path, PYTHONPATH=path).stdout.splitlines()[-1] == "block open"


def test_the_next_process_sends_what_a_program_could_not(remote: Remote, tmp_path: Path) -> None:
    """It ended while the destination hung, after its records had left the journal."""
    code = """
from test_tail_sampling import *
class Hanging(Remote):
    def export(self, batch):
        threading.Event().wait()
sdk = client(Hanging(), exit_timeout=0.5, answer_timeout=0.5)
with sdk.trace("bad"):
    work("Error: no")
"""
    path = f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[1]}{os.pathsep}{Path(__file__).parents[2]}"
    ended = run_code(code, home=tmp_path, PYTHONPATH=path)
    with client(remote, home=tmp_path) as sdk:
        with sdk.trace("next"):
            work(1)
        sdk.flush_sync()

    assert "3 records are not delivered yet" in ended.stderr
    assert remote.traces == ["bad", "bad", "bad"]


def test_a_room_that_cannot_be_used_leaves_records_in_the_journal(
    remote: Remote, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says what to do, and they are sent once it can be."""
    (tmp_path / "waiting").write_text("no directory")
    with client(remote, home=tmp_path) as sdk:
        with sdk.trace("bad"):
            work("Error: no")
        before = sdk.flush_sync(0.3)["remote"]
        (tmp_path / "waiting").unlink()
        after = sdk.flush_sync(20)["remote"]

    assert before == Tally(3, 0, 3, 0, 0, 0)
    assert after == Tally(3, 3, 0, 0, 0, 0)
    assert "Its directory has to be a writable one." in caplog.text


def test_a_killed_process_is_told_of_and_leaves_no_file_of_its_presence(
    remote: Remote, tmp_path: Path
) -> None:
    """Once the next one has sent what it left, in the room and in the journal."""
    code = """
from test_tail_sampling import *
begun, recorded = threading.Event(), threading.Event()
class Deadly(Remote):
    def export(self, batch):
        begun.set()
        recorded.wait()
        os.kill(os.getpid(), 9)
sdk = client(Deadly())
with sdk.trace("bad"):
    work("Error: no")
begun.wait()
with sdk.trace("late"):
    work("Error: no")
recorded.set()
threading.Event().wait()
"""
    path = f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[1]}{os.pathsep}{Path(__file__).parents[2]}"
    run_code(code, home=tmp_path, PYTHONPATH=path)
    left = len(list((tmp_path / "waiting").iterdir()))
    told = run("-m", "whyops_trace", "doctor", "--json", home=tmp_path).stdout
    with client(remote, home=tmp_path) as sdk:
        with sdk.trace("next"):
            work(1)
        sdk.flush_sync()

    assert left == 1
    assert f"3 records in {tmp_path / 'waiting.db'} wait for the end of a trace, or to be sent." in told
    assert sorted(set(remote.traces)) == ["bad", "late"]
    assert not list((tmp_path / "waiting").iterdir())


def test_what_is_to_be_sent_waits_for_a_destination_that_is_away(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond some bytes the journal keeps it, which has a budget; nothing is lost, and each comes once, in order."""
    monkeypatch.setattr(sampler, "MAX_DUE", 2_000)
    remote.fails = True
    remote.most = 2
    with client(remote) as sdk:
        for number in range(40):
            with sdk.trace(f"t{number}"):
                work("Error: no" if number % 2 else number)
            away = sdk.stats()["remote"]
            assert adds_up(away)
        away = sdk.flush_sync(0.3)["remote"]
        remote.fails = False
        back = sdk.flush_sync(20)["remote"]

        assert away.delivered == 0
        assert back == Tally(120, 60, 0, 60, 0, 0)
        assert list(dict.fromkeys(remote.traces)) == [f"t{number}" for number in range(1, 40, 2)]
        assert len(remote.records) == 60


def test_a_forked_child_decides_on_its_own(remote: Remote, tmp_path: Path) -> None:
    """What the parent recorded stays the parent's to decide on."""
    code = """
import os
from test_tail_sampling import *
class Telling(Remote):
    def export(self, batch):
        os.write(1, f"{os.getpid() == parent} {[r.trace_id for r in batch.records]}\\n".encode())
        return super().export(batch)
parent = os.getpid()
sdk = client(Telling(), store=False)
try:
    with sdk.trace("parent"):
        work(1)
        sdk.flush_sync()
        if os.fork() == 0:
            with sdk.trace("child"):
                work("Error: no")
            sdk.flush_sync()
            print(sdk.stats()["remote"].delivered, flush=True)
            os._exit(0)
        os.wait()
        raise ValueError
except ValueError:
    pass
sdk.flush_sync()
print(sdk.stats()["remote"].delivered)
"""
    path = f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[1]}{os.pathsep}{Path(__file__).parents[2]}"
    out = run_code(code, home=tmp_path, PYTHONPATH=path).stdout.splitlines()

    assert out[:2] == ["False ['child', 'child', 'child']", "3"]
    assert out[2:] == ["True ['parent', 'parent', 'parent']", "3"]


def test_a_trace_that_one_process_keeps_is_kept_by_all(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clients of one home share a trace, which fails in the second, after the first had left it out."""
    monkeypatch.setattr(sampler, "LOOK_EVERY", 0.05)
    other = Remote()
    with client(remote) as first, client(other) as second:
        with first.trace("shared"):
            work(1)
        left_out = first.flush_sync()["remote"]
        with second.trace("shared"):
            work("Error: no")
        second.flush_sync()
        remote.wait(lambda: len(remote.records) == 3)
        first.flush_sync()

        assert left_out == Tally(3, 0, 0, 3, 0, 0)
        assert first.stats()["remote"] == Tally(3, 3, 0, 0, 0, 0)
        assert len(other.records) == 3


def test_a_client_without_the_setting_sends_what_one_with_it_left(remote: Remote) -> None:
    """Nothing that waited is forgotten because a setting was taken back."""
    with client(remote) as sdk:
        sdk.trace("open").tool_call_request_sync("look", [{"name": "look", "arguments": {}}])
    with WhyOps(agent_name="shop", exporters=[remote]) as plain:
        with plain.trace("next"):
            work(1)
        plain.flush_sync()

    assert sorted(remote.traces) == ["next", "next", "next", "open"]


def test_where_nothing_can_be_written_all_traces_are_sent(remote: Remote, tmp_path: Path) -> None:
    """They could wait nowhere, and would be lost with the process."""
    (tmp_path / "file").touch()
    with client(remote, home=tmp_path / "file" / "home", store=False) as sdk:
        with sdk.trace("t"):
            work(1)
        ledger = sdk.flush_sync()

    assert ledger["remote"] == Tally(3, 3, 0, 0, 0, 0)


def test_local_destinations_get_all(tmp_path: Path) -> None:
    """The room is for remote ones only, and is not made without one."""
    with WhyOps(home=tmp_path, tail_sampling=NONE) as sdk, sdk.trace("t"):
        work(1)
    sdk.flush_sync()

    assert len(stored(tmp_path, "t")) == 3
    assert not list(tmp_path.glob("waiting.db*"))


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("0.1", TailSampling(share=0.1)),
        ("share=0.1", TailSampling(share=0.1)),
        (
            "0.1, slower_than=30, costlier_than=0.5",
            TailSampling(share=0.1, slower_than=30, costlier_than=0.5),
        ),
        ("share=1,failed=off,flagged=off", TailSampling(share=1, failed=False, flagged=False)),
        ("off", None),
    ],
)
def test_the_environment_chooses(
    monkeypatch: pytest.MonkeyPatch, text: str, choice: TailSampling | None
) -> None:
    """An argument wins over it."""
    monkeypatch.setenv("WHYOPS_TAIL_SAMPLING", text)

    assert WhyOps().settings.tail_sampling == choice
    assert WhyOps(tail_sampling=0.5).settings.tail_sampling == TailSampling(share=0.5)


@pytest.mark.parametrize(
    "text",
    ["most", "2", "-0.1", "nan", "share", "failed=on", "share=0.1,quick=1", "share=0.1,failed=2", "0.1,0.2"],
)
def test_a_choice_that_cannot_be_obeyed_says_what_to_do(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """In the environment."""
    monkeypatch.setenv("WHYOPS_TAIL_SAMPLING", text)

    with pytest.raises(ConfigurationError, match=r"WHYOPS_TAIL_SAMPLING.*such as|True or False"):
        WhyOps()


@pytest.mark.parametrize(
    "options",
    [
        {"share": "x"},
        {"share": 0, "failed": 1},
        {"share": 0, "slower_than": -1},
        {"share": 0, "costlier_than": True},
    ],
    ids=str,
)
def test_a_choice_that_makes_no_sense_says_what_would(options: dict[str, Any]) -> None:
    """As an argument."""
    with pytest.raises(ConfigurationError, match="it must be"):
        TailSampling(**options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("share=5%", "share is '5%'; it must be a number from 0 to 1, such as 0.1."),
        ("share=0,failed=no", "failed is 'no'; it must be True or False; on or off in the environment."),
        ("share=0,slower_than=30s", "slower_than is '30s'; it must be a number, 0 or more, such as 0.5."),
    ],
)
def test_a_word_that_cannot_be_obeyed_is_named(
    monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    """With what it may be."""
    monkeypatch.setenv("WHYOPS_TAIL_SAMPLING", text)

    with pytest.raises(ConfigurationError, match=re.escape(words)):
        WhyOps()


def test_an_argument_that_is_no_choice_says_what_would_be_one() -> None:
    """A text is for the environment."""
    with pytest.raises(ConfigurationError, match="a share from 0 to 1 or a TailSampling"):
        WhyOps(tail_sampling="0.1")  # type: ignore[arg-type]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["good", "bad", "open", "score", "end", "flush", "fail", "mend", "few", "close"]),
        st.integers(0, 5),
    ),
    max_size=30,
)


@given(STEPS)
def test_the_ledger_adds_up_at_every_moment(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    """Whatever is recorded and happens; in the end each kept trace is there, whole and once."""
    remote = Remote()
    sdk = client(remote, 0.3, home=tmp_path_factory.mktemp("home"), exit_timeout=0.05)
    kept: set[str] = set()
    for what, number in steps:
        name = f"t{number}"
        if what in ("good", "bad", "open"):
            with sdk.trace(name):
                work("Error: no" if what == "bad" else 1)
                kept |= {name} if what == "bad" else set()
                if what == "open":
                    sdk.trace(f"h{number}").llm_response_sync("m", "p", "Yes.")
        elif what == "score":
            sdk.trace(name).score("helpful", True)
            kept.add(name)
        elif what == "flush":
            sdk.flush_sync(0.05 if remote.fails else 10)
        elif what in ("fail", "mend"):
            remote.fails = what == "fail"
        elif what == "few":
            remote.most = number + 1
        elif what == "close":
            sdk.close_sync(0.05 if remote.fails else 10)
        assert adds_up(sdk.stats()["remote"]), sdk.stats()
    remote.fails = False
    sdk.flush_sync()
    ledger = sdk.close_sync(10)
    keys = [record["idempotencyKey"] for record in remote.records]

    assert adds_up(ledger["remote"])
    assert (ledger["remote"].pending, ledger["remote"].delivered) == (0, len(keys))
    assert len(set(keys)) == len(keys)
    for name in kept:
        events = [
            record
            for record in remote.records
            if record["traceId"] == name and record["eventType"] != "score"
        ]
        assert len(events) == len(stored(sdk.settings.home, name)), name
