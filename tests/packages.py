"""The packages of OpenAI and Anthropic in tests: clients of any version, both faces of them, and what they return."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from collector import Collector
from programs import HAS_GLOBAL_LOCK
from provider import Provider
from pydantic import BaseModel

openai = pytest.importorskip("openai", reason="The test needs OpenAI's package.")
anthropic = pytest.importorskip("anthropic", reason="The test needs Anthropic's package.")


def _transport_errors() -> list[type[Exception]]:
    """Return the errors of connections of the HTTP libraries that the packages stand on."""
    libraries = [
        importlib.import_module(name) for name in ("httpx", "httpx2") if importlib.util.find_spec(name)
    ]
    return [library.TransportError for library in libraries]


MESSAGES = [{"role": "user", "content": "Charge me."}]
CHAT = {"model": "gpt-4o", "messages": MESSAGES}
RESPONSES = {"model": "gpt-4o", "input": "Charge me."}
CLAUDE = {"model": "claude-test", "messages": MESSAGES, "max_tokens": 100}
#: OpenAI's package before 1.1 takes no tools for granted: its types have none.
STRICT = hasattr(openai.types.chat, "ChatCompletionMessageToolCall")
#: For tests that copy clients otherwise than by their own methods.
MAKES_RESOURCES_LATE = pytest.mark.skipif(
    not (hasattr(openai.OpenAI, "chat") and hasattr(anthropic.Anthropic, "messages")),
    reason="A client of this version makes its resources with itself, which then ask by it and not by its copy.",
)
#: What a client raises that loses its connection: the package's own error, or that of its HTTP library.
LOST = (openai.APIConnectionError, anthropic.APIConnectionError, *_transport_errors())
#: The classes of both packages, the asynchronous ones too.
OPENAI = pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
ANTHROPIC = pytest.mark.parametrize("kind", [anthropic.Anthropic, anthropic.AsyncAnthropic])


@contextlib.asynccontextmanager
async def client(kind: Any, to: Provider | Collector, **options: Any) -> AsyncIterator[Any]:
    """A client that takes only what the types of its package describe, and tries once."""
    own = "openai" if issubclass(kind, openai.OpenAI | openai.AsyncOpenAI) else "anthropic"
    key = getattr(to, f"{own}_key", "whyops_test")
    url = to.root + ("/v1" if own == "openai" else "")
    options = {"_strict_response_validation": STRICT, **options}
    made = kind(api_key=key, base_url=url, max_retries=0, **options)
    try:
        yield made
    finally:
        await got(made.close())


def needs_drops(kind: Any) -> None:
    """Skip a test that leaves a stream to the garbage collector where a client cannot bear that, traced or not."""
    if not HAS_GLOBAL_LOCK and issubclass(kind, openai.AsyncOpenAI | anthropic.AsyncAnthropic):
        pytest.skip(
            "Without the global lock the generators of the HTTP library are collected in any order, and raise."
        )


async def got(value: Any) -> Any:
    """Return what a call gives, whether it has to be awaited or not."""
    return await value if inspect.isawaitable(value) else value


async def items(stream: Any, heard: list[Any] | None = None) -> list[Any]:
    """Return all that a stream gives, asynchronous or not; *heard* has it even if the stream fails."""
    heard = [] if heard is None else heard
    following = getattr(stream, "__anext__", None) or stream.__next__
    while True:
        try:
            heard.append(await got(following()))
        except (StopIteration, StopAsyncIteration):
            return heard


@contextlib.asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    """Enter a context manager, asynchronous or not."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


def method(made: Any, *paths: str) -> Callable[..., Any]:
    """Return the first method of these that a client has; without any the package is too old for the test."""
    for path in paths:
        found: Callable[..., Any] | None = made
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    pytest.skip(f"{type(made).__name__} has no {paths[0]} in this version.")


def told(answer: Any) -> Any:
    """Return what an answer of either package says, as JSON."""
    return answer.model_dump(mode="json", exclude_unset=True, by_alias=True, warnings=False)


def bare(answer: Any) -> Any:
    """Return what an answer says, without ids, which differ between two answers, and without nulls."""
    if isinstance(answer, BaseModel):
        return bare(told(answer))
    if isinstance(answer, dict):
        return {name: bare(value) for name, value in answer.items() if name != "id" and value is not None}
    return [bare(item) for item in answer] if isinstance(answer, list) else answer


def known(made: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call, those that the package is too old to know as parts of its body."""
    parameters = inspect.signature(type(made.chat.completions).create).parameters
    body = {name: value for name, value in asked.items() if name not in parameters}
    return {name: value for name, value in asked.items() if name in parameters} | (
        {"extra_body": body} if body else {}
    )
