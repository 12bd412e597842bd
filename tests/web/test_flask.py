"""Traces in Flask: streams, views and the functions around a request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
from flask import Flask, Response, g, stream_with_context
from recorded import Recorded

from whyops_trace import step, trace, traced_llm, traced_tool
from whyops_trace.context import get_scope

app = Flask(__name__)


@traced_tool
def say(label: str) -> str:
    """Do nothing; the label tells the calls apart."""
    return label


@traced_llm(model="m")
def answer(prompt: str) -> Iterator[str]:
    """Call a tool before each word."""
    for word in ("Hel", "lo."):
        say("within")
        yield word


@app.get("/made")
def made() -> Response:
    """Stream what was made in a trace."""
    with trace("request"):
        return Response(stream_with_context(answer("hi")))


@app.get("/opens")
def opens() -> Response:
    """Stream what opens a trace itself."""

    def conversation() -> Iterator[str]:
        with trace("request"):
            yield from answer("hi")

    return Response(stream_with_context(conversation()))


@app.get("/waiting")
async def waiting() -> str:
    """Call in a view that Flask runs in an event loop of its own."""
    async with trace("request"), step("plan"):
        return say("view")


class Quiet(WSGIRequestHandler):
    """Serves without a word."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application on this machine, and return its address."""
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("path", ["/made", "/opens"])
def test_a_stream_belongs_to_the_trace_of_its_request(events: Recorded, path: str) -> None:
    """Read by a real server, whose thread is in no trace afterwards."""
    inside: list[Any] = []

    def watched(environ: Any, start_response: Any) -> Any:
        inside.append(get_scope())
        return app(environ, start_response)

    with served(watched) as url, httpx.Client(base_url=url, trust_env=False) as http:
        bodies = [http.get(path).text for _ in range(2)]

    assert bodies == ["Hello."] * 2
    assert inside == [None, None]
    assert events.traces == ["request"]
    assert [row[:4] for row in events.rows[:6]] == [
        ("user_message", 1, None, 0),
        ("tool_call_request", 2, 1, 1),
        ("tool_call_response", 3, 2, 2),
        ("tool_call_request", 4, 1, 1),
        ("tool_call_response", 5, 4, 4),
        ("llm_response", 6, 1, 1),
    ]
    assert len(events.rows) == 12


def test_a_view_with_async_is_in_its_own_trace(events: Recorded) -> None:
    """Calls in it are within its step."""
    pytest.importorskip("asgiref", reason="Flask needs it for views with async.")
    assert app.test_client().get("/waiting").text == "view"

    assert [row[:4] for row in events.rows] == [
        ("llm_thinking", 1, None, 0),
        ("tool_call_request", 2, 1, 1),
        ("tool_call_response", 3, 2, 2),
    ]


@pytest.mark.parametrize("make", [lambda: trace("request"), lambda: step("request")], ids=["trace", "step"])
def test_a_request_is_in_the_block_that_is_entered_before_it(
    events: Recorded, make: Callable[[], Any]
) -> None:
    """It is left when the request is torn down."""
    app = Flask(__name__)

    @app.before_request
    def enter() -> None:
        g.block = make()
        g.block.__enter__()

    @app.teardown_request
    def leave(error: BaseException | None) -> None:
        g.block.__exit__(None, error, None)

    @app.get("/")
    def view() -> str:
        return say("view")

    assert app.test_client().get("/").text == "view"
    assert len(events.traces) == 1
    assert events.records[-1]["end"] is True
    assert get_scope() is None
