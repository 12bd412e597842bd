"""The sessions of MCP's clients, whose calls of tools are recorded: they have no hook, so the method is replaced."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# The checks of types have no MCP.

from __future__ import annotations

import functools
from typing import Any, Final, cast

from mcp import ClientSession

from whyops_trace._guard import guarded
from whyops_trace._recording.places import Place
from whyops_trace.client import WhyOps
from whyops_trace.context import find_scope
from whyops_trace.integrations._attachment import Attachment, Patches
from whyops_trace.integrations._mcp_calls import PLACE, SPANS, TRACEPARENT, Recorded, begin
from whyops_trace.open_calls import OpenCall


class _Attachment(Attachment):
    """
    An attachment to the sessions of clients.

    Attributes:
        link: True to tell servers the place of a call.
    """

    def __init__(self, sdk: WhyOps | None, *, link: bool) -> None:
        super().__init__(_attachments, sdk, _PATCHES, SPANS)
        self.link = link
        _PATCHES.put("call_tool", _recorded)


_attachments: list[Attachment] = []
_PATCHES: Final = Patches(ClientSession)


def _recorded(original: Any) -> Any:
    """Return the method of a session that calls a tool, which records the call."""

    @functools.wraps(original)
    async def call_tool(session: Any, *args: Any, **options: Any) -> Any:
        call, options = (_ask(args, options) if _attachments else None) or (None, options)
        with Recorded(call) as recorded:
            recorded.result = await original(session, *args, **options)
        return recorded.result

    return call_tool


@guarded("recording a call of a tool")
def _ask(args: tuple[Any, ...], options: dict[str, Any]) -> tuple[OpenCall, dict[str, Any]]:
    """Begin a call, and return it with its options for the session: they tell its place, beside what they told."""
    newest = cast("_Attachment", _attachments[-1])
    given = dict(zip(("name", "arguments"), args, strict=False)) | options
    call = begin(given.get("name"), given.get("arguments"), newest.sdk)
    call.enter()
    scope = find_scope()
    if newest.link and scope is not None and scope.trace.on:
        place = Place.of(scope.trace, scope.within, scope.parent, waits=True)._replace(user="")
        meta = {
            PLACE: place.text(scope.trace.recorder.secret),
            TRACEPARENT: place.traceparent(),
            **(options.get("meta") or {}),
        }
        options = {**options, "meta": meta}
    return call, options


def attach(sdk: WhyOps | None, *, link: bool) -> Attachment:
    """Trace the calls of every client; see :func:`whyops_trace.integrations.mcp.attach`."""
    return _Attachment(sdk, link=link)
