"""
The line of a record: JSON whose start and end tell the kind of the record without decoding it.

The last members are the library's own.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from whyops_trace._values import encoding
from whyops_trace.types import Audience, EventOptions

if TYPE_CHECKING:
    from whyops_trace._recording.state import TraceState

#: Event types that no WhyOps server sees.
LOCAL: Final = frozenset({"score", "step_end", "trace_end"})
#: Span id of an event that pairs with no other. Without it the server would invent a fresh one.
NO_SPAN: Final = b"span_0"
#: Stands in for the step of the enclosing call, if no call encloses the event.
TOP: Final = 0
#: Stands in for the parent of the first event of a trace, and of an event that follows from no other. A later record
#: then names the first event that a WhyOps server also has of the trace.
ROOT: Final = 0


#: Content of a record: JSON, or its pieces if it is large and fits as it is.
Content: TypeAlias = bytes | tuple[bytes, ...]


class Ending(Enum):
    """
    The end of a record, which tells its audience and if it finishes its trace.

    Attributes:
        audience: The destinations that it is for.
        ends_trace: True if it finishes its trace.
        text: The end of its line, before the newline. A line that ends with the user's content has one brace more, so
            that no content can look like it.
    """

    USUAL = (Audience.EVERYONE, False, b"}")
    LAST = (Audience.EVERYONE, True, b',"end":true}')
    LOCAL = (Audience.LOCAL, False, b',"for":"local"}')
    LAST_LOCAL = (Audience.LOCAL, True, b',"for":"local","end":true}')
    SERVER = (Audience.SERVER, False, b',"for":"server"}')
    LAST_SERVER = (Audience.SERVER, True, b',"for":"server","end":true}')

    def __init__(self, audience: Audience, ends_trace: bool, text: bytes) -> None:
        self.audience: Audience = audience
        self.ends_trace: bool = ends_trace
        self.text: bytes = text


#: The endings of usual records as constants: an enumeration takes a tenth of a microsecond to look up its member.
USUAL: Final = Ending.USUAL
LAST: Final = Ending.LAST

#: All endings but :data:`USUAL`, by their texts. A text that ends with another one comes before that one.
_UNUSUAL: Final = {
    ending.text: ending
    for ending in sorted(Ending, key=lambda ending: len(ending.text), reverse=True)
    if ending is not USUAL
}
_UNUSUAL_TEXTS: Final = tuple(_UNUSUAL)


def is_usual(line: bytes) -> bool:
    """Return True if a record is for everyone, and does not finish its trace."""
    return not line.endswith(_UNUSUAL_TEXTS)


def ending_of(line: bytes) -> Ending:
    """Return the ending of a record."""
    if is_usual(line):
        return USUAL
    return next(ending for text, ending in _UNUSUAL.items() if line.endswith(text))


def texts_for_others(audience: Audience) -> tuple[bytes, ...]:
    """Return the ends of the records that are neither for everyone nor for this audience."""
    return tuple(ending.text for ending in Ending if ending.audience not in (Audience.EVERYONE, audience))


#: The form of usual records, once the head and tail of a trace are put in: a text with places for ten values.
_USUAL: Final = (
    b'{"eventType":"%%b",%b%%d,"parentStepId":%%d,"metadata":{"within":%%d%%b},"spanId":"%%b",'
    b'"timestamp":%%b-%%d",%b,"content":%%b%%b\n'
)
_ANY: Final = (
    b'{"eventType":"%b",%b%d%b%b,"metadata":{"within":%d%b%b},"spanId":%b,'
    b'"timestamp":%b,"idempotencyKey":%b,%b%b,"content":%b%b\n'
)


def usual_form(state: TraceState) -> bytes:
    """
    Return the form of the usual records of a trace: all but its first ones, and those made by a :class:`Draft`.

    Its places are for kind, step, parent, within, metadata, span, time with the start of the key, the key's number,
    content and the text of the ending.
    """
    return _USUAL % (state.head.replace(b"%", b"%%"), state.tail.replace(b"%", b"%%"))


def _identifier(given: str | None) -> bytes:
    """Return the JSON of an id that the user gave, without secrets; nothing if none was given."""
    return encoding.string(encoding.identifier(given)) if given else b""


class Draft(msgspec.Struct, eq=False):
    """
    A record of any kind, without time and key.

    A struct, because one is made for each trace, in a third of the time that ``__init__`` takes.

    Attributes:
        state: The trace.
        kind: The event type.
        parent: The step that it follows from, or :data:`ROOT`.
        within: The step of the enclosing call, or :data:`TOP`.
        metadata: JSON members that follow ``within``, each led by a comma. The user's values were encoded by the
            recorder's ``encode``, so that they hold no secret.
        content: JSON of the content, encoded likewise; in pieces if it is large and was made to fit.
        span: The span id, JSON text without its quotes.
        ending: The ending: its audience, and if it finishes its trace.
        opens: Change of the number of open calls and steps: 1, 0 or -1.
        given: Checked options of the user, if any. A step that they choose moves the numbering up to it.
        step: The step of the record that it repeats, as an end repeats its beginning; 0 to take the next one.
    """

    state: TraceState
    kind: bytes
    parent: int
    within: int
    metadata: bytes
    content: Content
    span: bytes = NO_SPAN
    ending: Ending = USUAL
    opens: int = 0
    given: EventOptions | None = None
    step: int = 0

    def line(self, time: str, key: str) -> bytes | tuple[bytes, ...]:
        """
        Return the line with this time, ISO 8601, and this idempotency key, unless the user gave others.

        It is in pieces if the content is, which are large: a format would copy them three times.
        """
        state, given = self.state, self.given or {}
        user, span = _identifier(given.get("external_user_id")), _identifier(given.get("span_id"))
        own_key = _identifier(given.get("idempotency_key"))
        pieces = self.content if type(self.content) is tuple else None
        content, end = (self.content, self.ending.text) if pieces is None else (b"", b"")
        line = _ANY % (
            self.kind, state.head, self.step, *self._relations(), self.within, state.about, self.metadata,
            span or b'"%b"' % self.span, encoding.string(str(given.get("timestamp") or time)),
            own_key or encoding.string(key), state.tail, user and b',"externalUserId":' + user, content, end,
        )  # fmt: skip
        return line if pieces is None else (line[:-1], *pieces, self.ending.text, b"\n")

    def _relations(self) -> tuple[bytes, bytes]:
        """
        Return the JSON members ``parentStepId`` and ``given``, each led by a comma, or nothing.

        ``given`` names the numbers that are not this numbering's own, and so must never be changed: a step that the
        user chose, and a parent that is such a step or one that this process never issued.
        """
        state, step = self.state, self.step
        chosen = state.given or ()
        parent = self.parent or (state.root if state.root < step else ROOT)
        if self.given:
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
