"""Processes that export the traces of some outcomes and die: what is kept arrives whole, and nothing of it is lost."""

from __future__ import annotations

import random
import signal
from collections import defaultdict
from pathlib import Path

import pytest
from programs import start
from receiver import Cut, Receiver, Refuse, Span

from whyops_trace import TailSampling

PROGRAM = Path(__file__).with_name("sampled_agent.py")
CHOICE = TailSampling(share=0.1)


def live_and_die(home: Path, receiver: Receiver, label: str, traces: int) -> set[tuple[str, str]]:
    """Run an agent until so many traces have ended, and kill it. Return them, each with what became of it."""
    with start(PROGRAM, label, home=home, WHYOPS_OTLP=receiver.url, WHYOPS_OTLP_CONTENT="on") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(traces)]
        process.send_signal(signal.SIGKILL)
        lines += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.stdin.close()  # type: ignore[union-attr]
    return {(words[0], words[1]) for words in map(str.split, lines) if len(words) == 2}


def by_trace(receiver: Receiver) -> dict[str, list[Span]]:
    """Return the spans of tools, by the trace that they tell of."""
    spans = defaultdict(list)
    for span in receiver.arrived:
        if span.name == "execute_tool work":
            call = span.attributes["gen_ai.tool.call.arguments"].split('"')[3]
            spans[call.partition("/")[0]].append(span)
    return spans


@pytest.mark.parametrize("weather", ["fair", "failing", "away"])
def test_a_kept_trace_of_killed_processes_arrives_whole(tmp_path: Path, weather: str) -> None:
    """Whatever the receiver does meanwhile; of those that ended well a share arrives, and none in part."""
    chance = random.Random(random.random())
    ended: set[tuple[str, str]] = set()
    with Receiver() as receiver:
        for life in range(5):
            if weather == "failing":
                receiver.fail(*chance.choices([None, Refuse(503), Cut("request"), Cut("answer")], k=6))
            if weather == "away":
                receiver.stop()
            ended |= live_and_die(tmp_path, receiver, f"life{life}", chance.randrange(5, 150))
            if weather == "away":
                receiver.start()
        receiver.calm()
        with start(
            PROGRAM, "last", "10", home=tmp_path, WHYOPS_OTLP=receiver.url, WHYOPS_OTLP_CONTENT="on"
        ) as last:
            out, err = last.communicate(timeout=60)
        spans = by_trace(receiver)

    assert "dropped=0" in out and "pending=0" in out, err
    bad = {name for outcome, name in ended if outcome == "bad"}
    good = {name for outcome, name in ended if outcome == "good"}
    in_share = {name for name in good if CHOICE.is_in_share(name)}
    assert bad and bad <= spans.keys()
    assert in_share <= spans.keys()
    for name in bad | in_share:
        calls = {span.id for span in spans[name]}
        assert len(calls) == 5, name
        if weather != "failing":  # where an answer was lost, a span came twice
            assert len(spans[name]) == 5, name
    ids = {span.id for span in receiver.arrived}
    assert [span.name for span in receiver.arrived if span.parent and span.parent not in ids] == []
    # A trace whose end was not seen when its process died is kept; two were open in each life.
    unseen = spans.keys() - {name for _, name in ended}
    left_out = good - in_share
    assert len(left_out & spans.keys()) <= 10, left_out & spans.keys()
    assert all(name.startswith("last") or name.startswith("life") for name in unseen)
