"""Traces in Django: streams, views and middleware, under its handlers for WSGI and for ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils.decorators import async_only_middleware
from djangos import set_up
from recorded import Recorded

from whyops_trace import trace, traced_llm, traced_tool
from whyops_trace.context import get_scope

set_up()

#: Django warns where it has to read a whole stream first, as one of the other kind.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")


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


@traced_llm(model="m")
async def aanswer(prompt: str) -> AsyncIterator[str]:
    """Do the same, waiting."""
    for word in ("Hel", "lo."):
        await asyncio.sleep(0)
        say("within")
        yield word


def made(request: Any) -> StreamingHttpResponse:
    """Stream what was made in a trace."""
    with trace("request"):
        return StreamingHttpResponse(answer("hi"))


async def made_waiting(request: Any) -> StreamingHttpResponse:
    """Do the same in a view with ``async``."""
    async with trace("request"):
        return StreamingHttpResponse(aanswer("hi"))


def opens(request: Any) -> StreamingHttpResponse:
    """Stream what opens a trace itself."""

    def conversation() -> Iterator[str]:
        with trace("request"):
            yield from answer("hi")

    return StreamingHttpResponse(conversation())


async def opens_waiting(request: Any) -> StreamingHttpResponse:
    """Do the same in a view with ``async``."""

    async def conversation() -> AsyncIterator[str]:
        async with trace("request"):
            async for word in aanswer("hi"):
                yield word

    return StreamingHttpResponse(conversation())


def plain(request: Any) -> HttpResponse:
    """Call a tool."""
    return HttpResponse(say("view"))


async def waiting(request: Any) -> HttpResponse:
    """Do the same in a view with ``async``, in a thread as well."""
    say("view")
    return HttpResponse(await sync_to_async(say)("thread"))


def middleware(get_response: Any) -> Any:
    """Open a trace for each request that asks for it."""

    def call(request: Any) -> Any:
        if request.GET.get("trace") != "plain":
            return get_response(request)
        with trace("request"):
            return get_response(request)

    return call


@async_only_middleware
def amiddleware(get_response: Any) -> Any:
    """Do the same with ``async``."""

    async def call(request: Any) -> Any:
        if request.GET.get("trace") != "waiting":
            return await get_response(request)
        async with trace("request"):
            return await get_response(request)

    return call


urlpatterns = [
    path(view.__name__, view) for view in (made, made_waiting, opens, opens_waiting, plain, waiting)
]
STREAMS = ["/made", "/made_waiting", "/opens", "/opens_waiting"]
TURN = [
    ("user_message", 1, None, 0),
    ("tool_call_request", 2, 1, 1),
    ("tool_call_response", 3, 2, 2),
    ("tool_call_request", 4, 1, 1),
    ("tool_call_response", 5, 4, 4),
    ("llm_response", 6, 1, 1),
]


@pytest.fixture(autouse=True)
def configured() -> Iterator[None]:
    """Have the views and the middleware of this module."""
    middleware = [f"{__name__}.middleware", f"{__name__}.amiddleware"]
    with override_settings(MIDDLEWARE=middleware, ROOT_URLCONF=__name__):
        yield


async def collected(response: Any) -> bytes:
    """Read a stream of either kind."""
    return b"".join([chunk async for chunk in response])


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_under_wsgi_belongs_to_the_trace_of_its_request(events: Recorded, stream: str) -> None:
    """Its calls are nested in it."""
    response: Any = Client().get(stream)
    body = asyncio.run(collected(response)) if response.is_async else b"".join(response)

    assert body == b"Hello."
    assert events.traces == ["request"]
    assert [row[:4] for row in events.rows] == TURN
    assert get_scope() is None


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_under_asgi_belongs_to_the_trace_of_its_request(events: Recorded, stream: str) -> None:
    """As under WSGI."""

    async def main() -> bytes:
        body = await collected(await AsyncClient().get(stream))
        assert get_scope() is None
        return body

    assert asyncio.run(main()) == b"Hello."
    assert events.traces == ["request"]
    assert [row[:4] for row in events.rows] == TURN


@pytest.mark.parametrize("view", ["/plain", "/waiting"])
@pytest.mark.parametrize("middleware", ["plain", "waiting"])
@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
def test_a_request_is_in_the_trace_that_a_middleware_opens(
    events: Recorded, view: str, middleware: str, asgi: bool
) -> None:
    """Whether the two have ``async`` or only one of them, and in the threads of a view."""
    asked: Any = {"trace": middleware}
    response: Any = asyncio.run(AsyncClient().get(view, asked)) if asgi else Client().get(view, asked)

    assert response.status_code == 200
    assert events.traces == ["request"]
    assert get_scope() is None
