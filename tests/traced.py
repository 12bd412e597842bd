"""Traced clients of OpenAI and Anthropic in tests: every way to ask a model, and what a turn of theirs records."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from packages import (
    CHAT,
    CLAUDE,
    MESSAGES,
    RESPONSES,
    anthropic,
    client,
    entered,
    got,
    items,
    method,
    openai,
)
from provider import Provider
from pydantic import BaseModel
from recorded import Row

from whyops_trace import WhyOps
from whyops_trace.testing import ManualClock

OPENAI_KINDS = (openai.OpenAI, openai.AsyncOpenAI)
ANTHROPIC_KINDS = (anthropic.Anthropic, anthropic.AsyncAnthropic)
KINDS = pytest.mark.parametrize("kind", [*OPENAI_KINDS, *ANTHROPIC_KINDS])


#: The provider as which a client names the double, whose address nobody knows: by its host.
HERE = "127.0.0.1"


class Paid(BaseModel):
    """What a structured answer says."""

    amount: int


@dataclass(frozen=True, eq=False)
class Api:
    """
    An API that asks a model.

    Args:
        name: What its turns are called.
        body: A request.
        kinds: The classes of clients that have it.
        provider: Whose it is, as the form of its answers tells.
    """

    name: str
    body: dict[str, Any]
    kinds: tuple[Any, ...]
    provider: str

    @property
    def asked(self) -> list[dict[str, str]]:
        """The messages of the request, as they are recorded."""
        return MESSAGES

    def request(self, step: int = 1, parent: int | None = None, **params: Any) -> Row:
        """Return the row of the request."""
        rest = {name: value for name, value in self.body.items() if name not in ("messages", "input")}
        return (
            "user_message", step, parent, 0, self.name, {"messages": self.asked}, {"params": rest | params},
        )  # fmt: skip

    def answer(self, content: dict[str, Any], step: int = 2, parent: int = 1, **about: Any) -> Row:
        """Return the row of the answer."""
        about = {"model": self.body["model"], "provider": HERE, **about}
        return "llm_response", step, parent, parent, self.name, content, about


CHATS = Api("chat.completions", CHAT, OPENAI_KINDS, "openai")
ANSWERS = Api("responses", RESPONSES, OPENAI_KINDS, "openai")
CLAUDES = Api("messages", CLAUDE, ANTHROPIC_KINDS, "anthropic")
APIS = (CHATS, ANSWERS, CLAUDES)

#: Asks a model in one way, and returns all that the caller sees of the answer.
Way = Callable[[Any, Api], Awaitable[Any]]


async def create(made: Any, api: Api, **more: Any) -> Any:
    """Make a call; what the package does not take as an argument is a part of its body."""
    ask = method(made, f"{api.name}.create")
    parameters = inspect.signature(ask).parameters
    body = {**api.body, **more}
    extra = {name: body.pop(name) for name in more if name not in parameters}
    return await got(ask(**body, **({"extra_body": extra} if extra else {})))


async def parse(made: Any, api: Api) -> Any:
    """Ask for an answer of a certain shape."""
    shape = {CHATS: "response_format", ANSWERS: "text_format", CLAUDES: "output_format"}[api]
    return await got(method(made, f"{api.name}.parse", f"beta.{api.name}.parse")(**api.body, **{shape: Paid}))


async def stream(made: Any, api: Api) -> Any:
    """Ask for a stream, and read it."""
    return await items(await create(made, api, stream=True))


@contextlib.asynccontextmanager
async def helped(made: Any, api: Api, **more: Any) -> AsyncIterator[Any]:
    """Open a stream by the package's helper."""
    ask = method(made, f"{api.name}.stream", f"beta.{api.name}.stream")
    async with entered(ask(**api.body, **more)) as answer:
        yield answer


async def helper(made: Any, api: Api) -> Any:
    """Use the package's helper for streams."""
    async with helped(made, api) as answer:
        return await items(answer)


async def raw(made: Any, api: Api) -> Any:
    """Ask for the response as it is, and parse it."""
    response = await got(method(made, f"{api.name}.with_raw_response.create")(**api.body))
    return response.headers["x-request-id"], await got(response.parse())


async def raw_stream(made: Any, api: Api) -> Any:
    """Ask for a stream in a response as it is."""
    body = {**api.body, "stream": True}
    response = await got(method(made, f"{api.name}.with_raw_response.create")(**body))
    return await items(await got(response.parse()))


def streaming(read: str, **more: Any) -> Way:
    """Return the way that reads a response while it comes, by one of its methods."""

    async def ask(made: Any, api: Api) -> Any:
        ask = method(made, f"{api.name}.with_streaming_response.create")
        async with entered(ask(**api.body, **more)) as response:
            answer = await got(getattr(response, read)())
            return (
                await items(answer) if hasattr(answer, "__next__") or hasattr(answer, "__anext__") else answer
            )

    return ask


#: The ways that give the answer in one piece, and those that give it as a stream.
WHOLE: dict[str, Way] = {
    "create": create,
    "raw": raw,
    "parse of a streaming response": streaming("parse"),
    "json of a streaming response": streaming("json"),
    "text of a streaming response": streaming("text"),
    "bytes of a streaming response": streaming("read"),
    "lines of a streaming response": streaming("iter_lines"),
    "pieces of a streaming response": streaming("iter_bytes"),
}
STREAMED: dict[str, Way] = {
    "stream": stream,
    "helper": helper,
    "raw stream": raw_stream,
    "stream of a streaming response": streaming("parse", stream=True),
    "lines of a stream": streaming("iter_lines", stream=True),
}


@contextlib.asynccontextmanager
async def traced(kind: Any, to: Provider, sdk: WhyOps | None = None, **options: Any) -> AsyncIterator[Any]:
    """A traced client; unless told otherwise one of an SDK without a key, for which time stands still."""
    sdk = sdk or WhyOps(agent_name="shop", clock=ManualClock())
    async with client(kind, to, **options) as made:
        yield trace_with(sdk, made)


def trace_with(sdk: WhyOps, made: Any) -> Any:
    """Return a client traced by the method for its package."""
    return sdk.openai(made) if isinstance(made, OPENAI_KINDS) else sdk.anthropic(made)


def both_faces(*apis: Api) -> pytest.MarkDecorator:
    """Run a test with each of these APIs on both faces of its client: ``api`` and ``kind``."""
    cases = [pytest.param(api, kind, id=f"{api.name}-{kind.__name__}") for api in apis for kind in api.kinds]
    return pytest.mark.parametrize(("api", "kind"), cases)
