"""Two hops, from a client over a server to a receiver, each killed with -9: nothing is lost, and nothing changes."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path

import pytest
from faults.exports import AGENT, by_call, live_and_die
from forwards import Serve
from programs import start
from receiver import Cut, Receiver, Refuse

LIVES = 4


def client(server: Serve, protocol: str) -> dict[str, str]:
    """Return the settings of a client of a server."""
    if protocol == "otlp":
        return {"WHYOPS_OTLP": server.url, "WHYOPS_OTLP_CONTENT": "on"}
    return {"WHYOPS_API_KEY": "whyops_local", "WHYOPS_ANALYSE_URL": f"{server.url}/api"}


@pytest.mark.parametrize("protocol", ["otlp", "events"])
@pytest.mark.parametrize("weather", ["fair", "failing", "away"])
def test_each_call_of_killed_processes_arrives_once_over_two_hops(
    tmp_path: Path, protocol: str, weather: str
) -> None:
    """Clients and the server between them and the receiver are killed; a span that comes again is the same span."""
    chance = random.Random(random.random())
    begun: set[str] = set()
    returned: set[str] = set()
    home = tmp_path / "client"
    with Receiver() as receiver:
        server = Serve(tmp_path / "server", receiver.url, options=("--forward-content",))
        with server:
            for number in range(LIVES):
                if weather == "failing":
                    receiver.fail(*chance.choices([None, Refuse(503), Cut("request"), Cut("answer")], k=6))
                if weather == "away":
                    receiver.stop()
                dying = threading.Timer(chance.random(), server.kill)
                dying.start()
                one, other = live_and_die(
                    home, f"life{number}", chance.randrange(20, 200), **client(server, protocol)
                )
                begun |= one
                returned |= other
                dying.join()
                if weather == "away":
                    receiver.start()
                server.start()
            receiver.calm()
            with start(AGENT, "last", "3", home=home, **client(server, protocol)) as last:
                out, err = last.communicate(timeout=90)
            (status,) = server.until_forwarded()
        spans = by_call(receiver)
        calls = {call for _, call in spans}

    assert "dropped=0" in out and "pending=0" in out, err
    assert (status["rejected"], status["dropped"]) == (0, 0)
    assert returned <= calls
    assert {call for call in calls if not call.startswith("last")} <= begun | returned
    for (tool, call), found in spans.items():
        assert len({span.id for span in found}) == 1, (tool, call)
        assert len({(span.status, span.end_ns, span.parent) for span in found}) == 1, (tool, call)
        assert not (call in returned and found[0].status), (tool, call, found[0].message)
    if protocol == "otlp":
        ids = {span.id for span in receiver.arrived}
        assert [span for span in receiver.arrived if span.parent and span.parent not in ids] == []


@pytest.mark.parametrize("protocol", ["otlp", "events"])
def test_each_span_is_sent_once_if_nobody_loses_an_answer(tmp_path: Path, protocol: str) -> None:
    """A server that is ended and started again, and clients that are killed, make no repeats."""
    with Receiver() as receiver:
        server = Serve(tmp_path / "server", receiver.url, options=("--forward-content",))
        with server:
            for number in range(3):
                live_and_die(tmp_path / "client", f"life{number}", 50, **client(server, protocol))
                assert server.kill(signal.SIGTERM) == 0
                server.start()
            with start(AGENT, "last", "3", home=tmp_path / "client", **client(server, protocol)) as last:
                last.communicate(timeout=90)
            server.until_forwarded()
        spans = by_call(receiver)

    assert {len(found) for found in spans.values()} == {1}
