"""Processes that export spans and die: each call arrives once, and what had not ended is told as such."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from faults.exports import AGENT, by_call, live_and_die
from programs import start
from receiver import Cut, Receiver, Refuse


@pytest.mark.parametrize("weather", ["fair", "failing", "away"])
def test_each_call_of_killed_processes_arrives_once(tmp_path: Path, weather: str) -> None:
    """Whatever the receiver does meanwhile; one that began and did not return is an error that says so."""
    chance = random.Random(random.random())
    begun: set[str] = set()
    returned: set[str] = set()
    with Receiver() as receiver:
        for life in range(5):
            if weather == "failing":
                receiver.fail(*chance.choices([None, Refuse(503), Cut("request"), Cut("answer")], k=6))
            if weather == "away":
                receiver.stop()
            one, other = live_and_die(
                tmp_path,
                f"life{life}",
                chance.randrange(20, 400),
                WHYOPS_OTLP=receiver.url,
                WHYOPS_OTLP_CONTENT="on",
            )
            begun |= one
            returned |= other
            if weather == "away":
                receiver.start()
        receiver.calm()
        with start(
            AGENT, "last", "3", home=tmp_path, WHYOPS_OTLP=receiver.url, WHYOPS_OTLP_CONTENT="on"
        ) as last:
            out, err = last.communicate(timeout=60)
        spans = by_call(receiver)
        calls = {call for _, call in spans}

        assert "dropped=0" in out and "pending=0" in out, err
        assert returned <= calls
        assert {call for call in calls if not call.startswith("last")} <= begun | returned
        for (tool, call), found in spans.items():
            assert len({span.id for span in found}) == 1, (tool, call)
            assert len({(span.status, span.end_ns, span.parent) for span in found}) == 1, (tool, call)
            assert not (call in returned and found[0].status), (tool, call, found[0].message)
        if weather != "failing":  # where an answer was lost, a span came twice
            assert all(len(found) == 1 for found in spans.values())
        ids = {span.id for span in receiver.arrived}
        orphans = [span for span in receiver.arrived if span.parent and span.parent not in ids]
        assert orphans == []


def test_a_call_of_a_killed_process_is_told_as_one_without_an_end(tmp_path: Path) -> None:
    """Its request had arrived at the exporter long before."""
    code = """
import os, signal
from whyops_trace import WhyOps, trace, traced_tool
sdk = WhyOps(agent_name="shop", store=False)
@traced_tool
def outer(way):
    inner()
    sdk.flush_sync()
    os.kill(os.getpid(), signal.SIGKILL)
@traced_tool
def inner(): ...
with trace("t"):
    outer("down")
"""
    with Receiver() as receiver:
        with start("-c", code, home=tmp_path, WHYOPS_OTLP=receiver.url, WHYOPS_OTLP_CONTENT="on") as first:
            first.communicate(timeout=60)
        assert [span.name for span in receiver.arrived] == ["execute_tool inner"]
        next_one = """
from whyops_trace import WhyOps
sdk = WhyOps(agent_name='shop', store=False)
sdk.trace('next').error_sync('x')
sdk.flush_sync()
"""
        with start(
            "-c", next_one, home=tmp_path, WHYOPS_OTLP=receiver.url, WHYOPS_OTLP_CONTENT="on"
        ) as second:
            _, err = second.communicate(timeout=60)
        outer, root = receiver.spans["execute_tool outer"], receiver.spans["invoke_agent shop"]

    assert err == ""
    assert (outer.status, outer.attributes["error.type"]) == (2, "no_end_seen")
    assert outer.attributes["gen_ai.tool.call.arguments"] == '{"way":"down"}'
    assert receiver.spans["execute_tool inner"].parent == outer.id
    assert (outer.parent, root.status) == (root.id, 2)


def test_calls_that_are_open_at_the_end_are_told(tmp_path: Path) -> None:
    """A program that exits while a thread is in a call."""
    code = """
import threading
from whyops_trace import WhyOps, traced_tool
sdk = WhyOps(agent_name="shop", store=False)
began = threading.Event()
@traced_tool
def wait():
    began.set()
    threading.Event().wait()
threading.Thread(target=wait, daemon=True).start()
began.wait()
"""
    with Receiver() as receiver:
        with start("-c", code, home=tmp_path, WHYOPS_OTLP=receiver.url) as program:
            _, err = program.communicate(timeout=60)
        (span, *_) = receiver.wait(1)

    assert err == ""
    assert (span.name, span.attributes["error.type"]) == ("execute_tool wait", "no_end_seen")


def test_a_forked_child_goes_on_with_the_trace(tmp_path: Path) -> None:
    """What it records is below the call that it was forked in; the parent tells of that call and of the trace."""
    code = """
import os
from whyops_trace import WhyOps, propagate, trace, traced_tool
sdk = WhyOps(agent_name="shop", store=False)
@traced_tool
def split():
    first(os.getpid())
    go_on = propagate(first)
    child = os.fork()
    if not child:
        go_on(0)
        sdk.close_sync()
        os._exit(0)
    os.waitpid(child, 0)
@traced_tool
def first(who): ...
with trace("t"):
    split()
sdk.close_sync()
"""
    with Receiver() as receiver:
        with start("-c", code, home=tmp_path, WHYOPS_OTLP=receiver.url) as program:
            _, err = program.communicate(timeout=60)
        names = sorted(span.name for span in receiver.arrived)
        split = receiver.spans["execute_tool split"]
        inside = [span.parent for span in receiver.arrived if span.name == "execute_tool first"]

    assert err == ""
    assert names == ["execute_tool first", "execute_tool first", "execute_tool split", "invoke_agent shop"]
    assert inside == [split.id, split.id]
