"""
The shapes of what users pass in and get back: TypedDicts in the field names of the WhyOps protocol.

They come from :mod:`typing_extensions`, so that pydantic accepts them as field types on every supported Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NotRequired, Required, Type, TypeAlias  # noqa: UP035

from typing_extensions import TypedDict

if TYPE_CHECKING:
    from whyops_trace.exceptions import AgentRunaway

#: The type of an event; ``tool_call`` is an older form of a request and its response in one.
EventType = Literal[
    "user_message",
    "llm_response",
    "embedding_request",
    "embedding_response",
    "llm_thinking",
    "tool_call",
    "tool_call_request",
    "tool_call_response",
    "tool_result",
    "error",
]


class MessageItem(TypedDict):
    """One message of a conversation; a list of content blocks is accepted as well as text."""

    role: str
    content: Any


class ToolCallFunction(TypedDict):
    """Function that a model asks for: ``arguments`` is JSON text, as the model wrote it."""

    name: str
    arguments: str


class ToolCallItem(TypedDict):
    """Tool call as the answer of a model asks for it."""

    id: NotRequired[str]
    function: ToolCallFunction


class ToolCallPair(TypedDict):
    """Tool call as it is made: the name, and the arguments by parameter name."""

    name: str
    arguments: dict[str, Any]


class TokenUsage(TypedDict, total=False):
    """
    Token counts of one LLM call.

    ``promptTokens`` excludes the cached ones, which ``cacheReadTokens`` and ``cacheCreationTokens`` count:
    WhyOps adds the cost of the three. ``totalTokens`` is what the provider billed in all.
    ``cacheWrite1hTokens`` is the part of ``cacheCreationTokens`` that is kept for an hour and not for minutes,
    ``reasoningTokens`` the part of ``completionTokens`` that the model thought with.
    ``cost`` is what the seller says that the call cost in US dollars.
    """

    promptTokens: int
    completionTokens: int
    totalTokens: int
    cacheReadTokens: int
    cacheCreationTokens: int
    cacheWrite1hTokens: int
    reasoningTokens: int
    cost: float


class UserMessageMetadata(TypedDict, total=False):
    """Input of a model beside the messages: system prompt, declared tools, parameters of the request."""

    systemPrompt: str
    tools: list[Any]
    params: dict[str, Any]


class LLMResponseContent(TypedDict, total=False):
    """Content of an ``llm_response`` event."""

    content: str | None
    toolCalls: list[ToolCallItem]
    finishReason: str


class LLMThinkingContent(TypedDict):
    """Content of an ``llm_thinking`` event."""

    type: Literal["thinking"]
    thinking: str
    signature: NotRequired[str]


class ErrorContent(TypedDict):
    """Content of an ``error`` event."""

    message: str
    status: NotRequired[int]
    stack: NotRequired[str]


class AgentTool(TypedDict, total=False):
    """A tool an agent declares; the schemas are JSON text."""

    name: Required[str]
    description: str
    inputSchema: str
    outputSchema: str


class AgentMetadata(TypedDict, total=False):
    """System prompt, description and tools of an agent; a change of them makes a new version of it on a server."""

    systemPrompt: Required[str]
    description: str
    tools: list[AgentTool]


class AgentInfo(TypedDict):
    """Answer of a WhyOps server to the registration of an agent."""

    agentId: str
    agentVersionId: str
    status: Literal["created", "existing"]
    versionHash: str


class ResponseOptions(TypedDict, total=False):
    """Options by keyword of an event whose span id is an argument of its own; see :class:`EventOptions`."""

    step_id: int
    parent_step_id: int
    timestamp: str | datetime
    idempotency_key: str
    external_user_id: str


class EventOptions(ResponseOptions, total=False):
    """
    Options every event method takes by keyword.

    Attributes:
        span_id: Pairs a request with its response; 1 to 128 characters.
        step_id: The number of this event in its trace; 1 to 2**31 - 1. Counted by itself if left out.
        parent_step_id: The step this one follows from; 1 to 2**31 - 1. Found by itself if left out.
        timestamp: ISO 8601 text (UTC if it names no offset) or a :class:`~datetime.datetime`. Now if left out.
        idempotency_key: Unique for each event of a trace; 1 to 128 characters. Made by itself if left out.
        external_user_id: Your id of the user the agent acts for; 1 to 255 characters.
    """

    span_id: str


class SpanId(str):
    """
    The span id that a ``tool_call_request`` returns, to be passed to its ``tool_call_response``.

    Attributes:
        step_id: The step the request took, to name it as a parent; 0 if tracing is off.
    """

    step_id: int
    __slots__ = ("step_id",)

    def __new__(cls, text: str, step_id: int) -> SpanId:
        """Return *text* as a span id that knows its request's step."""
        self = super().__new__(cls, text)
        self.step_id = step_id
        return self

    def __reduce__(self) -> tuple[type[SpanId], tuple[str, int]]:
        return SpanId, (str(self), self.step_id)


class Audience(Enum):
    """
    The destinations that a record is for.

    A turn of a model that the WhyOps proxy reports to the server is recorded for the local destinations alone. A turn
    that the proxy may still turn out to report is recorded for these at once, and for the server when it ends.
    """

    EVERYONE = "everyone"
    #: Every destination but the WhyOps server.
    LOCAL = "local"
    #: The WhyOps server alone.
    SERVER = "server"


#: Reasons for which a record is given up before its destination has it: the journal's room on disk, or in memory where
#: the disk cannot be written, was full; the record alone fits in neither; the system had no memory for it; its bytes in
#: the journal were damaged; or it was only in memory at the process's end.
DropReason = Literal["disk_full", "memory_full", "too_large", "no_memory", "damaged", "process_end"]

#: The ways of the journal to write a record: through a memory map where that can be trusted, or by a system call each
#: time; and the same with a sum by which a changed byte shows.
JournalMode = Literal["map", "write", "checked", "write-checked"]

#: When the journal waits for the disk: never, about once a second beside the program, or with each record.
Fsync = Literal["never", "interval", "always"]


class Tally(NamedTuple):
    """
    Counts of a client's records at one destination, by their fate.

    ``emitted`` is always the sum of delivered, pending, sampled out, rejected and dropped.

    Attributes:
        emitted: Records this client made for the destination in this process.
        delivered: Records the destination has stored.
        pending: Records still in the journal, to be delivered by this process or the next; and those that wait until
            ``tail_sampling`` has decided on their trace.
        sampled_out: Records the destination chose not to keep, or that ``tail_sampling`` left out.
        rejected: Records the destination refused for good.
        dropped: Records given up before the destination had them.
        reasons: Number of dropped records by reason; they add up to ``dropped``.
    """

    emitted: int
    delivered: int
    pending: int
    sampled_out: int
    rejected: int
    dropped: int
    reasons: Mapping[DropReason, int] = {}


class Ledger(dict[str, Tally]):
    """
    Result of ``flush()``: a :class:`Tally` for each destination by name.

    The tally of a destination that nothing is recorded for is one of zeros: that of ``"local"``, if records go to a
    server only or tracing is off.
    """

    def __missing__(self, destination: str) -> Tally:
        return Tally(0, 0, 0, 0, 0, 0)


#: Exceptions that are no failures, as the options ``not_errors`` take them: a class, or the name of one.
#: With the name from typing, since the reference has members called as the builtin is.
ExceptionLike: TypeAlias = Type[BaseException] | str  # noqa: UP006

#: What a trace does about an agent that goes round in circles: refuse its next call, or call a function.
OnLoop: TypeAlias = "Literal['raise'] | Callable[[AgentRunaway], object]"


class TraceLimits(TypedDict, total=False):
    """
    The limits of the trace of a request, as :meth:`WhyOps.trace` has them; each may be left out.

    Attributes:
        max_tokens: Tokens that models may use.
        max_cost: US dollars that models may cost.
        max_steps: Number of calls and steps that may begin.
        max_seconds: Seconds after which none may begin.
        on_loop: What to do about a loop.
    """

    max_tokens: int | None
    max_cost: float | None
    max_steps: int | None
    max_seconds: float | None
    on_loop: OnLoop | None


class RecordedValues(TypedDict):
    """
    The values of a record, decoded, before it is written; secrets that are known by a name or a form are gone.

    Attributes:
        eventType: The event type, a ``score``, a ``step_end`` and a ``trace_end`` among them; ``"trace"`` for the
            metadata and tags of a trace, which its first record carries.
        metadata: Its metadata: names of tools, functions and steps, the model, counts, and the program's own.
        content: Its content: messages, arguments, results, errors.
    """

    eventType: str
    metadata: dict[str, Any]
    content: Any


#: A program's own processor of records, for ``WhyOps(before_record=...)``. It is called in the traced call, so that its
#: time is the call's, and perhaps in several threads at once. It returns the values to record, which may be those that
#: it got, changed in place. If it returns None or raises, the record keeps its numbers, and nothing else of its values.
BeforeRecord: TypeAlias = Callable[[RecordedValues], RecordedValues | None]
