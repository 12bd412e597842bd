"""The calls of tools over MCP as records, and the middleware of servers that makes them."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Self

from whyops_trace import default
from whyops_trace._guard import attempt, guarded
from whyops_trace._recording.places import Place, RemoteParent
from whyops_trace._shapes import dict_of, dicts_of
from whyops_trace._spans.registry import ADAPTED
from whyops_trace.client import WhyOps
from whyops_trace.context import Scope, find_scope, get_scope, set_scope
from whyops_trace.headers import scope_at
from whyops_trace.integrations._runs import name_of
from whyops_trace.open_calls import OpenCall
from whyops_trace.tracing import Trace

#: The library whose spans tell of the same calls.
SPANS: Final = ("mcp-python-sdk",)
#: The names in ``_meta`` of a place in a trace: our own, and that of W3C.
PLACE: Final = "com.whyops/place"
TRACEPARENT: Final = "traceparent"


class Middleware:
    """
    A middleware of a server, which records every call of a tool.

    A call is recorded where its client says, as a step in the client's call, which is the tool call; else as a tool
    call where the server's code stands, else in a trace of its own.

    Args:
        sdk: The client that records the calls; the default one if it is left out.
        link: False to ignore what clients say of their traces: for a server that strangers reach, and whose traces
            they should not write to.

    Example::

        server = MCPServer("parcels", middleware=[mcp.Middleware()])
        low_level_server.middleware.append(mcp.Middleware())
    """

    def __init__(self, sdk: WhyOps | None = None, *, link: bool = True) -> None:
        self._sdk = sdk
        self._link = link
        ADAPTED[id(self)] = SPANS
        weakref.finalize(self, ADAPTED.pop, id(self), None)

    async def __call__(self, ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        """Pass a request on, and record it if it calls a tool."""
        call = self._begin(ctx) if ctx.method == "tools/call" else None
        with Recorded(call) as recorded:
            recorded.result = await call_next(ctx)
        return recorded.result

    @guarded("recording a call of a tool")
    def _begin(self, ctx: Any) -> OpenCall:
        params, before = dict_of(ctx.params), get_scope()
        meta = dict_of(params.get("_meta")) if self._link else {}
        name, arguments = name_of(params.get("name"), otherwise="tool"), params.get("arguments")
        try:
            if scope := self._place(meta):
                set_scope(scope)
                call = Trace(scope.trace).start_step(
                    name_of(f"serve {name}", otherwise="serve"), input=arguments
                )
            else:
                remote = None if find_scope() is not None else RemoteParent.read(meta.get(TRACEPARENT))
                call = begin(name, arguments, self._sdk, remote and remote.trace)
        finally:
            set_scope(before)
        call.enter()
        return call

    def _place(self, meta: Mapping[str, Any]) -> Scope | None:
        """Return the place that a client says, None if it says none or what cannot be one."""
        recorder = default.default_recorder() if self._sdk is None else self._sdk.recorder
        if recorder is None or not recorder.links:
            return None
        place, _ = attempt(Place.read, meta.get(PLACE), recorder.secret)
        return place and scope_at(place._replace(user="", on=recorder.keeps(place.trace)), recorder)


def begin(name: object, arguments: object, sdk: WhyOps | None, trace_id: str | None = None) -> OpenCall:
    """Begin a call where the code stands, else in a trace of its own, which ends with it."""
    scope, make = find_scope(), default.trace if sdk is None else sdk.trace
    trace = make(trace_id) if scope is None else Trace(scope.trace)
    call = trace.start_tool_call(name_of(name, otherwise="tool"), dict_of(arguments))
    call.ends_trace = scope is None
    return call


class Recorded:
    """
    A block in which a call is made, whose end is recorded. A block adds no frame to the traceback of an error.

    Attributes:
        result: The result of the call, once it is there.

    Args:
        call: The call; None if it is not recorded.
    """

    __slots__ = ("_call", "result")

    def __init__(self, call: OpenCall | None) -> None:
        self._call = call
        self.result: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._call is not None:
            self._call.end(_told(self.result) if error is None else None, error=error)


@guarded("reading the result of a tool")
def _told(result: Any) -> Any:
    """Return what the result of a tool says: the data, the text or the parts of it, or the failure."""
    if hasattr(result, "model_dump"):
        result = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    parts = dict_of(result)
    content = parts.get("content")
    if content is None:  # of an extension
        return parts
    if parts.get("isError") is True:
        return {"isError": True, "content": content}
    if (data := parts.get("structuredContent")) is not None:
        return data
    blocks = dicts_of(content)
    return blocks[0].get("text") if len(blocks) == 1 and blocks[0].get("type") == "text" else content
