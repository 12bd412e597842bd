"""Traces in Starlette and FastAPI: streams, dependencies, middleware and tasks after the response."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from recorded import Recorded
from sse_starlette import EventSourceResponse
from starlette.middleware.base import BaseHTTPMiddleware

from whyops_trace import Trace, propagate, trace, traced_llm, traced_tool
from whyops_trace.context import get_scope

PATIENCE = 20.0


@traced_tool
def say(label: str) -> str:
    """Do nothing; the label tells the calls apart."""
    return label


@traced_tool
async def asay(label: str) -> str:
    """Do the same, waiting."""
    await anyio.sleep(0)
    return label


@traced_llm(model="m")
def answer(prompt: str) -> Iterator[str]:
    """Call a tool before each word."""
    for word in ("Hel", "lo."):
        say("within")
        yield word


@traced_llm(model="m")
async def aanswer(prompt: str) -> AsyncIterator[str]:
    """Do the same, waiting."""
    for word in ("Hel", "lo."):
        await asay("within")
        yield word


def conversation() -> Iterator[str]:
    """Open a trace for what runs in here."""
    with trace("request"):
        yield from answer("hi")


async def aconversation() -> AsyncIterator[str]:
    """Do the same, waiting."""
    async with trace("request"):
        async for word in aanswer("hi"):
            yield word


async def produced() -> AsyncIterator[str]:
    """Stream what a task of its own makes."""
    words: asyncio.Queue[str] = asyncio.Queue()

    async def produce() -> None:
        async for word in aanswer("hi"):
            await words.put(word)
        await words.put("")

    async with trace("request"):
        task = asyncio.create_task(produce())
        while word := await words.get():
            yield word
        await task


app = FastAPI()


@app.get("/made/{kind}")
async def made(kind: str) -> StreamingResponse:
    """Stream what was made in a trace."""
    with trace("request"):
        return StreamingResponse(answer("hi") if kind == "plain" else aanswer("hi"))


@app.get("/thread")
def in_thread() -> StreamingResponse:
    """Do the same in a worker thread."""
    with trace("request"):
        return StreamingResponse(answer("hi"))


@app.get("/opens/{kind}")
async def opens(kind: str) -> StreamingResponse:
    """Stream what opens a trace itself."""
    return StreamingResponse(conversation() if kind == "plain" else aconversation())


@app.get("/produced")
async def stream_produced() -> StreamingResponse:
    """Stream what a task makes."""
    return StreamingResponse(produced())


@app.get("/events/{kind}")
async def stream_events(kind: str) -> EventSourceResponse:
    """Send events of a server."""
    if kind == "opens":
        return EventSourceResponse(aconversation())
    with trace("request"):
        return EventSourceResponse(aanswer("hi") if kind == "made" else answer("hi"))


STREAMS = [
    "/made/plain", "/made/waiting", "/thread", "/opens/plain", "/opens/waiting", "/produced", "/events/made",
    "/events/opens", "/events/plain",
]  # fmt: skip
#: Rows of the turn that each of them streams.
TURN = [
    ("user_message", 1, None, 0, None),
    ("tool_call_request", 2, 1, 1),
    ("tool_call_response", 3, 2, 2),
    ("tool_call_request", 4, 1, 1),
    ("tool_call_response", 5, 4, 4),
    ("llm_response", 6, 1, 1),
]


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_belongs_to_the_trace_of_its_request(events: Recorded, path: str) -> None:
    """Its calls are nested in it, whichever thread or task reads it."""
    with TestClient(app) as http:
        body = http.get(path).text.replace("data: ", "").replace("\r\n", "")

    assert body == "Hello."
    assert events.traces == ["request"]
    assert [row[:4] for row in events.rows] == [row[:4] for row in TURN]


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve an application on this machine, and return its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
    listener = server.config.bind_socket()
    listener.listen()  # requests that come before the server runs wait for it
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


def test_streams_that_are_read_at_the_same_time_keep_apart(events: Recorded) -> None:
    """By a real server, of each kind."""
    app = FastAPI()

    @app.get("/{name}/{kind}")
    async def stream(name: str, kind: str) -> StreamingResponse:
        @traced_tool(name=name)
        def named() -> None:
            pass

        def plain() -> Iterator[str]:
            with trace(name):
                for word in ("a", "b", "c"):
                    named()
                    yield word

        async def waiting() -> AsyncIterator[str]:
            async with trace(name):
                for word in ("a", "b", "c"):
                    named()
                    await anyio.sleep(0)
                    yield word

        return StreamingResponse(plain() if kind == "plain" else waiting())

    names = [f"{kind}-{number}" for kind in ("plain", "waiting") for number in range(8)]

    async def read(http: httpx.AsyncClient, name: str) -> str:
        return (await http.get(f"/{name}/{name.partition('-')[0]}")).text

    async def main(url: str) -> list[str]:
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as http:
            return await asyncio.gather(*(read(http, name) for name in names))

    with served(app) as url:
        assert asyncio.run(main(url)) == ["abc"] * len(names)

    assert sorted(events.traces) == sorted(names)
    for name in names:
        calls = [row[1:5] for row in events.of(name) if row[0] == "tool_call_request"]
        assert calls == [(1, None, 0, name), (3, 2, 0, name), (5, 4, 0, name)]


async def opened() -> AsyncIterator[Trace]:
    """Open the trace of a request."""
    async with trace("request") as opened:
        say("before")
        yield opened
        say("after")


def opened_in_thread() -> Iterator[Trace]:
    """Do the same without ``async``."""
    with trace("request") as opened:
        say("before")
        yield opened
        say("after")


Opened = Depends(opened)
OpenedInThread = Depends(opened_in_thread)


@app.get("/dependency/waiting")
async def with_dependency(opened: Trace = Opened) -> str:
    """Call in the trace of a dependency."""
    return await asay("endpoint")


@app.get("/dependency/plain")
def with_dependency_in_thread(opened: Trace = Opened) -> str:
    """Do the same in a worker thread."""
    return say("endpoint")


@app.get("/dependency/tasks")
async def with_tasks(tasks: BackgroundTasks, opened: Trace = Opened) -> str:
    """Have tasks run after the response."""
    tasks.add_task(say, "task")
    tasks.add_task(asay, "task")
    return await asay("endpoint")


@app.get("/dependency/stream")
async def with_stream(opened: Trace = Opened) -> StreamingResponse:
    """Stream in the trace of a dependency."""
    return StreamingResponse(answer("hi"))


@app.get("/lost/waiting")
async def with_lost_dependency(opened: Trace = OpenedInThread) -> str:
    """Call outside of the block of a dependency."""
    return await asay("endpoint")


@app.get("/lost/plain")
def with_lost_dependency_in_thread(opened: Trace = OpenedInThread) -> str:
    """Do the same in a worker thread."""
    return say("endpoint")


def calls(events: Recorded) -> list[tuple[str, str, int]]:
    """Return label, trace and ``within`` of each call of a tool."""
    return [
        (
            record["content"]["toolCalls"][0]["arguments"]["label"],
            record["traceId"],
            record["metadata"]["within"],
        )
        for record in events.records
        if record["eventType"] == "tool_call_request"
    ]


@pytest.mark.parametrize("kind", ["waiting", "plain", "tasks", "stream"])
def test_a_request_is_in_the_trace_that_a_dependency_opens(events: Recorded, kind: str) -> None:
    """The endpoint, tasks after the response, and a stream."""
    with TestClient(app) as http:
        assert http.get(f"/dependency/{kind}").status_code == 200

    labels = {label for label, _, _ in calls(events)}

    assert events.traces == ["request"]
    assert {"before", "after"} < labels
    assert labels & {"endpoint", "within"}


@pytest.mark.parametrize("kind", ["waiting", "plain"])
def test_a_dependency_without_async_says_what_to_do(
    events: Recorded, said: Callable[[], list[str]], kind: str
) -> None:
    """Its own calls are in its trace, those of the endpoint are not, and this is said once."""
    with TestClient(app) as http:
        for _ in range(2):
            assert http.get(f"/lost/{kind}").status_code == 200
    found = calls(events)

    assert [label for label, trace_id, _ in found if trace_id == "request"] == ["before", "after"] * 2
    assert [label for label, trace_id, _ in found if trace_id != "request"] == ["endpoint"] * 2
    assert len(said()) == 1
    assert "`async def`" in said()[0]


class Middleware(BaseHTTPMiddleware):
    """A middleware in the way of Starlette, which opens a trace for each request."""

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        async with trace("request"):
            return await call_next(request)


class PlainMiddleware:
    """The same as ASGI has it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        async with trace("request"):
            await self.app(scope, receive, send)


def endpoints() -> FastAPI:
    """Return an application that opens no trace."""
    app = FastAPI()

    @app.get("/waiting")
    async def waiting() -> str:
        return await asay("endpoint")

    @app.get("/plain")
    def plain() -> str:
        return say("endpoint")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(aanswer("hi"))

    @app.get("/stream/plain")
    async def stream_plain() -> StreamingResponse:
        return StreamingResponse(answer("hi"))

    @app.get("/tasks")
    async def after(tasks: BackgroundTasks) -> str:
        tasks.add_task(say, "task")
        tasks.add_task(asay, "task")
        return ""

    return app


@pytest.mark.parametrize("middleware", [Middleware, PlainMiddleware])
def test_a_request_is_in_the_trace_that_a_middleware_opens(events: Recorded, middleware: Any) -> None:
    """Endpoints, streams, and tasks after the response, each with the calls in it."""
    app = endpoints()
    app.add_middleware(middleware)
    with TestClient(app) as http:
        for path in ("/waiting", "/plain", "/stream", "/stream/plain", "/tasks"):
            assert http.get(path).status_code == 200
    turns = {row[1] for row in events.rows if row[0] == "user_message"}
    found = calls(events)

    assert events.traces == ["request"]
    assert [label for label, _, within in found if within == 0] == ["endpoint"] * 2 + ["task"] * 2
    assert {within for label, _, within in found if label == "within"} == turns
    assert get_scope() is None


def test_a_task_after_the_response_can_be_given_the_trace(events: Recorded) -> None:
    """The block of the endpoint was left before it runs, so it has to be told."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> str:
        with trace("request"):
            tasks.add_task(propagate(say), "carried")
            tasks.add_task(propagate(asay), "carried")
            tasks.add_task(say, "alone")
            return say("endpoint")

    with TestClient(app) as http:
        http.get("/")
    found = calls(events)

    assert [label for label, trace_id, _ in found if trace_id == "request"] == [
        "endpoint",
        "carried",
        "carried",
    ]
    assert found[-1][0] == "alone"
