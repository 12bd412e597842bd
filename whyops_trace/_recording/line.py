"""
How a record is written: one line of JSON, whose start and end tell what it is without decoding it.

The last members are the library's own, so nothing a user wrote can look like them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from whyops_trace._values import encoding
from whyops_trace.types import EventOptions

if TYPE_CHECKING:
    from whyops_trace._recording.state import TraceState

#: Event types that no WhyOps server sees.
LOCAL: Final = frozenset({"step_end", "trace_end"})
#: What an event that pairs with no other carries, so that the server does not invent a fresh one.
NO_SPAN: Final = b"span_0"
#: The parent of an event that follows from one which a server may never have, and from nothing before that.
NO_PARENT: Final = -1

#: How a record ends, and how the one ends that finishes its trace.
LINE_END: Final = b"}\n"
TRACE_END: Final = b',"end":true}\n'
#: Before the end of a record: that it is for every destination but the WhyOps server, or for that alone.
FOR_LOCAL: Final = b',"for":"local"'
FOR_SERVER: Final = b',"for":"server"'

#: How the record ends that finishes its trace, as it is read: without the newline.
LAST: Final = TRACE_END[:-1]
#: How records end, as they are read, that are not for every destination: for all but the WhyOps server, or for that
#: alone.
LOCAL_ONLY: Final = (FOR_LOCAL + LINE_END[:-1], FOR_LOCAL + LAST)
SERVER_ONLY: Final = (FOR_SERVER + LINE_END[:-1], FOR_SERVER + LAST)

#: What makes the usual records of a trace, with its head and tail put in: they have places for ten values each.
_USUAL: Final = (
    b'{"eventType":"%%b",%b%%d,"parentStepId":%%d,"metadata":{"within":%%d%%b},"spanId":"%%b",'
    b'"timestamp":%%b-%%d",%b,"content":%%b%%b'
)
_ANY: Final = (
    b'{"eventType":"%b",%b%d%b%b,"metadata":{"within":%d%b%b},"spanId":%b,'
    b'"timestamp":%b,"idempotencyKey":%b,%b%b,"content":%b%b'
)


def usual_form(state: TraceState) -> bytes:
    """
    Return what makes the usual records of a trace: those after its first, without options.

    Its places are for kind, step, parent, within, metadata, span, time with the start of the key, the key's number,
    content and end.
    """
    return _USUAL % (state.head.replace(b"%", b"%%"), state.tail.replace(b"%", b"%%"))


class Draft(msgspec.Struct, eq=False):
    """
    A record of any kind that has no time and no key yet, the first of its trace and those with options among them.

    A struct, because one is made for each trace, in a third of the time that ``__init__`` takes.

    Attributes:
        step: Its own; the others are as :meth:`~whyops_trace._recording.recorder.Recorder.record` takes them.
    """

    state: TraceState
    step: int
    kind: bytes
    parent: int
    within: int
    metadata: bytes
    content: bytes
    span: bytes
    end: bytes
    given: EventOptions

    def line(self, time: str, key: str) -> bytes:
        """Return it with this time, ISO 8601, and this idempotency key, unless it was given others."""
        state, given = self.state, self.given
        user = given.get("external_user_id")
        return _ANY % (
            self.kind, state.head, self.step, *self._relations(), self.within, state.about, self.metadata,
            encoding.string(given["span_id"]) if "span_id" in given else b'"%b"' % self.span,
            encoding.string(str(given.get("timestamp") or time)),
            encoding.string(given.get("idempotency_key") or key), state.tail,
            b',"externalUserId":' + encoding.string(user) if user else b"", self.content, self.end,
        )  # fmt: skip

    def _relations(self) -> tuple[bytes, bytes]:
        """
        Return the JSON members ``parentStepId`` and ``given``, each led by a comma, or nothing.

        ``given`` names the numbers that are not of this numbering's own and so must never be changed: a step the
        user chose, and a parent that is such a step or one this process never issued.
        """
        state, step = self.state, self.step
        chosen = state.given or ()
        parent = self.parent if self.parent > 0 else state.root if state.root != step else 0
        parent = self.given.get("parent_step_id") or parent
        foreign = []
        if step in chosen:
            foreign.append(b'"stepId"')
        if parent and (parent in chosen or parent >= step):
            foreign.append(b'"parentStepId"')
        return (
            b',"parentStepId":%d' % parent if parent else b"",
            b',"given":[%b]' % b",".join(foreign) if foreign else b"",
        )
