"""Requests of real clients to real servers make one trace, over ASGI, WSGI and HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx
import pytest
import uvicorn
from flask import Flask, Response
from recorded import Recorded
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from whyops_trace import ConfigurationError, WhyOps, current_trace, step, trace, traced_tool
from whyops_trace.context import get_scope
from whyops_trace.integrations import asgi, http, wsgi

PATIENCE = 20.0
LOCAL = "127.0.0.1"


@traced_tool
def look(place: str) -> str:
    """Do nothing; the place tells the calls apart."""
    return place


async def plain(request: Request) -> PlainTextResponse:
    """Answer after a call."""
    return PlainTextResponse(look("plain"))


async def stream(request: Request) -> StreamingResponse:
    """Answer bit by bit, each after a call."""

    async def parts() -> AsyncIterator[str]:
        for part in ("a", "b"):
            await asyncio.sleep(0)
            yield look(part)

    return StreamingResponse(parts())


async def later(request: Request) -> PlainTextResponse:
    """Do a call after the answer."""
    return PlainTextResponse("later", background=BackgroundTask(look, "later"))


async def fail(request: Request) -> PlainTextResponse:
    """Fail after a call."""
    look("fail")
    raise KeyError("tea")


async def idle(request: Request) -> PlainTextResponse:
    """Record nothing."""
    return PlainTextResponse("idle")


ROUTES = [Route(f"/{view.__name__}", view) for view in (plain, stream, later, fail, idle)]

site = Flask("site")


@site.get("/plain")
def flask_plain() -> str:
    """Answer after a call."""
    return look("plain")


@site.get("/stream")
def flask_stream() -> Response:
    """Answer bit by bit, each after a call."""
    return Response(look(part) for part in ("a", "b"))


@site.get("/later")
def flask_later() -> Response:
    """Do a call after the answer."""
    response = Response("later")
    response.call_on_close(lambda: look("later"))
    return response


@site.get("/fail")
def flask_fail() -> str:
    """Fail after a call."""
    look("fail")
    raise KeyError("tea")


@site.get("/idle")
def flask_idle() -> str:
    """Record nothing."""
    return "idle"


@contextmanager
def served_asgi(**options: Any) -> Iterator[str]:
    """Serve an ASGI application with the middleware, and return its address."""
    app = Starlette(routes=ROUTES)
    app.add_middleware(asgi.Middleware, **options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
    listener = server.config.bind_socket()
    listener.listen()  # requests that come before the server runs wait for it
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://{LOCAL}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@contextmanager
def served_wsgi(**options: Any) -> Iterator[str]:
    """Serve a WSGI application with the middleware, and return its address."""
    app = wsgi.Middleware(site, **options)
    with make_server(LOCAL, 0, app, WSGIServer, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://{LOCAL}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(PATIENCE)


SERVERS = {"asgi": served_asgi, "wsgi": served_wsgi}


def get_httpx(url: str) -> str:
    """Ask with a plain client."""
    with http.attach(httpx.Client(trust_env=False)) as client:
        return client.get(url).text


def get_httpx_async(url: str) -> str:
    """Ask with an asynchronous client."""

    async def ask() -> str:
        async with http.attach(httpx.AsyncClient(trust_env=False)) as client:
            return (await client.get(url)).text

    return asyncio.run(ask())


def get_httpx2(url: str) -> str:
    """Ask with a client of httpx2."""
    httpx2: Any = pytest.importorskip("httpx2")
    with http.attach(httpx2.Client(trust_env=False)) as client:
        return str(client.get(url).text)


def get_requests(url: str) -> str:
    """Ask with a session of requests."""
    requests: Any = pytest.importorskip("requests")
    with http.attach(requests.Session()) as session:
        session.trust_env = False
        return str(session.get(url).text)


CLIENTS = {"httpx": get_httpx, "httpx async": get_httpx_async, "httpx2": get_httpx2, "requests": get_requests}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
def test_the_calls_of_a_server_are_inside_that_of_its_client(
    events: Recorded, server: str, client: str
) -> None:
    """Of each client and each kind of server; what follows is outside."""
    WhyOps()
    with SERVERS[server]() as url, trace("t"):
        with step("ask") as ask:
            assert CLIENTS[client](f"{url}/plain") == "plain"
        look("after")

    assert [row[3:5] for row in events.of("t") if row[0] != "tool_call_response"] == [
        (0, "ask"), (ask.step_id, "look"), (0, "look"),
    ]  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("path", "calls"),
    [("plain", ["plain"]), ("stream", ["a", "b"]), ("later", ["later"]), ("fail", ["fail"])],
)
def test_a_request_is_one_trace_with_all_that_it_runs(
    events: Recorded, server: str, path: str, calls: list[str]
) -> None:
    """Its stream, its tasks and what fails in it; each request has one of its own, and a server thread none."""
    WhyOps()
    with SERVERS[server]() as url:
        for _ in range(2):
            httpx.get(f"{url}/{path}", trust_env=False)

    traces = [events.of(trace_id) for trace_id in events.traces]
    assert [[row[5]["place"] for row in rows[::2]] for rows in traces] == [calls] * 2
    assert [row[0] for row in events.all_rows].count("trace_end") == 2


@pytest.mark.parametrize("server", SERVERS)
def test_a_request_without_a_record_leaves_no_trace(events: Recorded, server: str) -> None:
    """Such as the probe of a load balancer."""
    WhyOps()
    with SERVERS[server]() as url:
        assert httpx.get(f"{url}/idle", trust_env=False).text == "idle"

    assert events.records == []


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_can_ignore_what_strangers_tell(events: Recorded, server: str) -> None:
    """The trace then has an id of its own."""
    WhyOps()
    with SERVERS[server](link=False) as url:
        httpx.get(f"{url}/plain", headers={"X-Trace-ID": "theirs"}, trust_env=False)
    with SERVERS[server]() as url:
        httpx.get(f"{url}/plain", headers={"X-Trace-ID": "known"}, trust_env=False)

    own, known = events.traces
    assert (len(own), known) == (32, "known")


@pytest.mark.parametrize("client", ["httpx", "requests"])
def test_only_the_hosts_that_are_named_are_told(client: str) -> None:
    """The ids of traces are nobody else's."""
    seen: list[dict[str, str]] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append({name: value for name, value in environ.items() if name.startswith("HTTP_X_TRACE")})
        start_response("200 OK", [])
        return [b""]

    with make_server(LOCAL, 0, app, WSGIServer, Quiet) as server, trace("t"):
        for hosts in ({LOCAL}, {"orders.internal"}):
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            url = f"http://{LOCAL}:{server.server_port}"
            if client == "httpx":
                with http.attach(httpx.Client(trust_env=False), hosts=hosts) as asking:
                    asking.get(url)
            else:
                session: Any = http.attach(pytest.importorskip("requests").Session(), hosts=hosts)
                session.trust_env = False
                session.get(url)
                session.close()
            thread.join(PATIENCE)

    assert seen == [{"HTTP_X_TRACE_ID": "t"}, {}]


@pytest.mark.parametrize("client", ["httpx", "requests"])
def test_a_redirect_to_another_host_tells_it_nothing(client: str) -> None:
    """What a program itself put into its headers goes there as it did."""
    seen: list[dict[str, str]] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append({name: value for name, value in environ.items() if name.startswith("HTTP_")})
        there = f"http://localhost:{environ['SERVER_PORT']}/there"
        start_response("302 Found" if environ["PATH_INFO"] == "/here" else "200 OK", [("Location", there)])
        return [b""]

    def serve_two() -> None:
        server.handle_request()
        server.handle_request()

    with make_server(LOCAL, 0, app, WSGIServer, Quiet) as server, trace("t"):
        look("before")
        thread = threading.Thread(target=serve_two)
        thread.start()
        url, own = f"http://{LOCAL}:{server.server_port}/here", {"baggage": "user=mia"}
        if client == "httpx":
            with http.attach(httpx.Client(trust_env=False, follow_redirects=True), hosts={LOCAL}) as asking:
                asking.get(url, headers=own)
        else:
            session: Any = http.attach(pytest.importorskip("requests").Session(), hosts={LOCAL})
            session.trust_env = False
            session.get(url, headers=own)
            session.close()
        thread.join(PATIENCE)

    here, there = seen
    assert here["HTTP_X_TRACE_ID"] == "t"
    assert "whyops-place=" in here["HTTP_BAGGAGE"]
    assert {"HTTP_X_TRACE_ID", "HTTP_X_THREAD_ID", "HTTP_TRACEPARENT"}.isdisjoint(there)
    assert there["HTTP_BAGGAGE"] == "user=mia"


def test_what_is_no_client_is_refused() -> None:
    """With the clients that there are."""
    with pytest.raises(ConfigurationError, match="neither a client of httpx"):
        http.attach(object())


def test_a_stream_that_is_left_early_ends_its_trace(events: Recorded) -> None:
    """The server closes it, and the thread stands where it stood."""
    WhyOps()
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/stream", "SERVER_NAME": "x", "SERVER_PORT": "1"}
    body: Any = wsgi.Middleware(site)({**environ, "wsgi.url_scheme": "http"}, lambda *_: lambda _: None)
    assert get_scope() is None
    assert next(iter(body)) == b"a"
    assert get_scope() is None
    body.close()
    body.close()

    assert [row[0] for row in events.all_rows].count("trace_end") == 1
    assert current_trace() is None


def test_what_the_lifespan_of_an_application_does_is_in_no_trace() -> None:
    """It is no request."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], current_trace()))

    asyncio.run(asgi.Middleware(app)({"type": "lifespan"}, lambda: None, lambda _: None))

    assert seen == [("lifespan", None)]
