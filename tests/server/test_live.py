"""Live updates: what other processes store is told to every page that follows, and nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from anyio import move_on_after, to_thread
from browser import record, served, tool_call
from lines import Process, encoded
from programs import run_code, start_code
from starlette.requests import Request
from starlette.routing import Route

from whyops_trace.server.live import Live
from whyops_trace.store import Store

#: How long a test waits for what must come.
PATIENCE = httpx.Timeout(30.0)

RECORD = """
    from whyops_trace import trace, traced_tool

    @traced_tool
    def add(a, b):
        return a + b

    with trace("live"):
        add(1, 2)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


class Stream:
    """The messages of a stream, one after the other."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def next(self) -> tuple[str, Any, str]:
        """Wait for a message; return its name, its data and its id."""
        found: dict[str, str] = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if name in ("event", "data", "id"):
                found[name] = value
            elif not line and "event" in found:
                return found["event"], json.loads(found["data"]), found.get("id", "")
        raise EOFError


@contextlib.contextmanager
def following(url: str, path: str, **headers: str) -> Iterator[Stream]:
    """Follow a stream of a server."""
    with (
        httpx.Client(timeout=PATIENCE) as client,
        client.stream("GET", url + path, headers=headers) as response,
    ):
        yield Stream(response)


def test_the_list_hears_of_other_processes(home: Path) -> None:
    """Of what a program stores that knows nothing of the server."""
    record(home, tool_call("first"))
    with served(home) as url, following(url, "/live") as stream:
        run_code(RECORD, home)

        assert stream.next()[:2] == ("changed", {})
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in stream.response.headers


def test_a_trace_is_followed_from_where_it_is_known(home: Path) -> None:
    """Each record once, with the number to go on from; at last that it no longer runs."""
    events = tool_call("t")
    process = Process(trace="t", token="0123456789ab")
    later = [
        process.event("error", 3, content={"message": "m"}),
        process.event("error", 4, content={"message": "n"}),
    ]
    record(home, events[:1])
    with served(home) as url:
        with following(url, "/t/t/live?after=0") as stream:
            name, first, number = stream.next()
            record(home, events[1:])
            _, second, last = stream.next()
        with following(url, f"/t/t/live?after={number}") as stream:
            again = stream.next()[1]
        with following(url, "/t/t/live?after=0", **{"last-event-id": last}) as stream:
            nothing = stream.next()[1]
            record(home, later)
            rest = stream.next()[1]

    assert (name, [event["stepId"] for event in first["events"]], first["last"]) == (
        "records",
        [1],
        int(number),
    )
    assert [event["stepId"] for event in second["events"]] == [2]
    assert second["running"] is False
    assert again["events"] == second["events"]
    assert nothing == {"last": int(last), "running": False, "events": []}
    assert [event["stepId"] for event in rest["events"]] == [3, 4]


def test_a_trace_that_is_deleted_is_gone(home: Path) -> None:
    """And one that never was."""
    record(home, tool_call("t"))
    with served(home) as url, following(url, "/t/t/live") as stream:
        stream.next()
        with contextlib.closing(Store(home / "traces.db")) as store:
            store.delete("t")
        gone = stream.next()[0]
        with following(url, "/t/unknown/live") as other:
            unknown = other.next()[0]

    assert (gone, unknown) == ("gone", "gone")


def test_what_a_killed_process_left_is_taken_in(home: Path) -> None:
    """While somebody looks: its records come, and that it is gone."""
    with served(home) as url, following(url, "/live") as stream:
        code = """
            import os, signal
            from whyops_trace import WhyOps
            sdk = WhyOps(agent_name="shop")
            sdk.trace("left").user_message_sync(messages=[{"role": "user", "content": "hello"}])
            os.kill(os.getpid(), signal.SIGKILL)
        """
        with start_code(code, home) as process:
            process.communicate(timeout=60)
        while not (found := httpx.get(f"{url}/api/threads").text.count('"left"')):
            stream.next()

    assert found


def test_many_pages_hear_of_the_same_change(home: Path) -> None:
    """There is one poller for all of them."""
    record(home, tool_call("first"))
    with served(home) as url, contextlib.ExitStack() as stack:
        streams = [stack.enter_context(following(url, "/live")) for _ in range(20)]
        record(home, tool_call("second"))

        assert [stream.next()[0] for stream in streams] == ["changed"] * 20


def test_streams_end_with_the_server(home: Path) -> None:
    """So that nobody who stops it has to wait for those who look."""
    ended = threading.Event()

    def follow(url: str, ready: threading.Event) -> None:
        with following(url, "/live") as stream:
            ready.set()
            with contextlib.suppress(EOFError):
                while True:
                    stream.next()
        ended.set()

    ready = threading.Event()
    with served(home) as url:
        thread = threading.Thread(target=follow, args=(url, ready))
        thread.start()

        assert ready.wait(30)
    thread.join(30)

    assert ended.is_set()


@pytest.mark.parametrize("after", ["", "x", "-1", "1e9", "٣", "9" * 30])
def test_a_number_that_is_none_begins_at_the_beginning(home: Path, after: str) -> None:
    """Whatever stands in an address."""
    record(home, tool_call("t"))
    with served(home) as url, following(url, f"/t/t/live?after={after}") as stream:
        assert len(stream.next()[1]["events"]) == 2


def test_a_trace_may_be_called_like_a_stream(home: Path) -> None:
    """What is quoted in an address belongs to the id, be it a slash or a line break."""
    record(home, tool_call("x/live"), tool_call("a\nb"))
    with served(home) as url:
        page = httpx.get(f"{url}/t/x%2Flive")
        with following(url, "/t/x%2Flive/live") as one, following(url, "/t/a%0Ab/live") as other:
            ids = [stream.next()[1]["events"][0]["traceId"] for stream in (one, other)]

    assert page.headers["content-type"].startswith("text/html")
    assert ids == ["x/live", "a\nb"]


def test_a_trace_may_be_called_like_a_part_of_a_page(home: Path) -> None:
    """A page is that of the trace whose id is quoted in its address, not a part of another one's."""
    ids = ["x", "x/skeleton", "x/events/1", "a\nb"]
    record(home, *(tool_call(trace_id) for trace_id in ids))
    with served(home) as url:
        answers = [httpx.get(f"{url}/t/{quote(trace_id, safe='')}") for trace_id in ids]
        shape = httpx.get(f"{url}/t/x%2Fskeleton/skeleton")

    assert [answer.status_code for answer in answers] == [200] * 4
    assert all(answer.headers["content-type"].startswith("text/html") for answer in answers)
    assert shape.json()["total"] == 1


def test_records_are_told_as_they_were_stored(home: Path) -> None:
    """Though Python takes no number that long, JSON has none that is infinite, and a line break ends a message."""
    event = Process(trace="t").event("error", 1, content={"message": "N"})
    line = encoded(event).replace(b'"N"', b'1e999,\r"long":' + b"9" * 5_000)
    with contextlib.closing(Store(home / "traces.db")) as store:
        store.ingest(("9f2c41aa01be", [line]))
    with served(home) as url, following(url, "/t/t/live") as stream:
        told = next(line for line in stream.response.iter_lines() if line.startswith("data: "))

    assert '{"message":1e999, "long":999' in told


def test_a_long_trace_comes_in_parts(home: Path) -> None:
    """Each record once, in the order they were stored."""
    process = Process(trace="t")
    record(home, [process.event("error", step, content={"message": "m"}) for step in range(1, 251)])
    with served(home) as url, following(url, "/t/t/live") as stream:
        parts = [stream.next()[1]["events"] for _ in range(3)]

    assert [event["stepId"] for part in parts for event in part] == list(range(1, 251))


def test_streams_take_no_threads_from_pages(home: Path) -> None:
    """However many there are, and however long they read."""
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Store):
        def lines_after(self, trace_id: str, number: int, limit: int = -1) -> list[tuple[int, str]]:
            entered.set()
            go_on.wait(30)
            return super().lines_after(trace_id, number, limit)

    async def read(stream: Route) -> tuple[bool, list[str]]:
        scope = {"type": "http", "headers": [], "query_string": b"", "path_params": {"trace_id": "t"}}
        streams = [(await stream.endpoint(Request(scope))).body_iterator for _ in range(60)]
        for each in streams:
            await anext(each)
        reading = [asyncio.ensure_future(anext(each)) for each in streams]
        await to_thread.run_sync(entered.wait, 30)
        with move_on_after(10) as waiting:
            await to_thread.run_sync(str)
        go_on.set()
        return waiting.cancelled_caught, await asyncio.gather(*reading)

    record(home, tool_call("t"))
    with contextlib.closing(Slow(home / "traces.db")) as store:
        has_waited, told = asyncio.run(read(Live(home, store, lambda: None).routes()[1]))

    assert not has_waited
    assert all(message.startswith("event: records") for message in told)
