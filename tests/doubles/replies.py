"""What a model answers, in the words of no provider, and what happens to the answer on its way."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}

Json = dict[str, Any]


@dataclass(frozen=True)
class ToolCall:
    """
    A call of a tool that the model asks for.

    Args:
        name: The tool.
        arguments: Its arguments, or the text that stands for them, which a model may get wrong.
        id: What the result has to name.
    """

    name: str
    arguments: Mapping[str, Any] | str
    id: str

    @property
    def json(self) -> str:
        """The arguments as the model writes them."""
        return self.arguments if isinstance(self.arguments, str) else compact(self.arguments)


@dataclass(frozen=True)
class Thinking:
    """A stretch of thinking: a signed block of Anthropic's, a summarised reasoning item of OpenAI's."""

    text: str
    signature: str = "c2lnbmVk"


@dataclass(frozen=True)
class Redacted:
    """Thinking that nobody may read; for OpenAI a reasoning item without a summary."""

    data: str


@dataclass(frozen=True)
class Usage:
    """The tokens of a call, the input's each counted once; *output* includes *reasoning*."""

    fresh: int = 12
    cached: int = 0
    written_5m: int = 0
    written_1h: int = 0
    output: int = 5
    reasoning: int = 0

    @property
    def written(self) -> int:
        """The tokens that are in the cache from now on."""
        return self.written_5m + self.written_1h

    @property
    def input(self) -> int:
        """All tokens of the input, as OpenAI counts them."""
        return self.fresh + self.cached + self.written


class Gate:
    """
    Holds an answer back, a stream after *after* pieces of it, until ``open()``.

    Attributes:
        reached: Set once an answer stands before the gate.
        opened: Set once it may pass.
    """

    def __init__(self, after: int = 0) -> None:
        self.after = after
        self.reached = threading.Event()
        self.opened = threading.Event()

    def open(self) -> None:
        """Let the answer pass."""
        self.opened.set()


@dataclass(frozen=True)
class Cut:
    """The connection ends, in a stream after *after* pieces of it."""

    after: int = 0


@dataclass(frozen=True)
class Failure:
    """
    An error in the provider's form, instead of an answer or in the midst of a stream.

    Args:
        status: The HTTP status.
        message: What it says.
        type: Its type, OpenAI's; Anthropic's follows from the status.
        code: Its code, OpenAI's.
        param: The parameter it is about, OpenAI's.
        headers: Headers to go with it.
        after: The pieces of a stream that come before it.
    """

    status: int = 500
    message: str = "The server had an error while processing your request."
    type: str | None = None
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 0

    @property
    def openai(self) -> Json:
        """The body as OpenAI writes it."""
        kind = self.type or ("server_error" if self.status >= 500 else "invalid_request_error")
        about = {"type": kind, "param": self.param, "code": self.code}
        return {"error": {"message": self.message, **about}}

    @property
    def anthropic(self) -> Json:
        """The body as Anthropic writes it."""
        return {
            "type": "error",
            "error": {"type": ANTHROPIC_ERRORS.get(self.status, "api_error"), "message": self.message},
        }


Incident = Gate | Cut | Failure


@dataclass(frozen=True)
class Reply:
    """
    An answer, in the words of no provider.

    Args:
        text: What the model says; streamed word by word.
        tool_calls: What it asks for; arguments are streamed some characters at a time.
        thinking: What it thinks before; chat completions show none of it.
        refusal: What it says instead of *text*.
        finish: Why it ends, as chat completions call it; by default it follows from the rest.
        usage: The tokens.
        model: The model that answers, by default the one that was asked.
        others: The texts of further choices, where the request asks for some; by default *text* again.
        incidents: What happens on the way.
    """

    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    thinking: tuple[Thinking | Redacted, ...] = ()
    refusal: str | None = None
    finish: str | None = None
    usage: Usage = Usage()
    model: str | None = None
    others: tuple[str, ...] = ()
    incidents: tuple[Incident, ...] = ()

    @property
    def reason(self) -> str:
        """Why the answer ends."""
        return self.finish or ("tool_calls" if self.tool_calls else "stop")


def compact(value: Any) -> str:
    """Return a value as JSON, without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
