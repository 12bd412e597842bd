"""The state of a trace in this process: its identity, and how far its numbering has come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from whyops_trace._models.links import AskedTools, ReportedTurns
from whyops_trace._values import encoding

if TYPE_CHECKING:
    from whyops_trace._recording.recorder import Recorder


class TraceState:
    """
    What this process knows of one trace: its identity and how far its numbering has come.

    Attributes:
        id: The trace id, 1 to 128 characters.
        recorder: Where its records go.
        on: Whether anything is recorded at all: tracing is on, and the trace is not sampled out.
        numbering: The name of its numbering, where the user chose the id or a proxy reports to the same trace, or None.
        head: The fixed start of its records, ``"traceId":...,["run":...,]"stepId":``, where ``run`` is the numbering.
        tail: The fixed part after the key, ``"agentName":...[,"externalUserId":...]``.
        steps: The next step numbers, *stride* apart; taken under the recorder's lock.
        stride: How far apart they are.
        first: The step of its first event.
        root: The step of the first one that a server has as well: what an event follows from that follows from nothing
            else.
        last: The last event at the top that was recorded outside any with-block, where the next one there chains.
        last_ms: The latest timestamp given out, in milliseconds since the epoch.
        form: The fixed parts of its records, with places for all else; None where the next record is an unusual one:
            the first of its trace, the first after there was something to tell of that, any after a step of the user's.
        token: The process the numbering belongs to.
        blocks: How many with-blocks of the trace are open.
        open: How many decorated calls and steps of the trace are open.
        untold: While a server has nothing of it: what records the requests held back from it, should something that is
            not held back come after them.
        asked_tools: The tool calls that models asked for in it; None if there were none.
        reported: The turns of it that clients of providers made, and so report; None if there were none.
        user: The user it acts for, if that was told.
        when: The recorder's text for the time of its last record, by identity: another one means that time has passed,
            or that this is a forked process.
        about: The metadata member, led by a comma, that tells of the trace as a whole, until an event carries it.
        given: The steps the user chose, if any.
        open_tools: For manual tool calls by span id, until their responses come: the request's step, what that is
            nested in, and the span id again if the library made it.
    """

    __slots__ = (
        "about", "asked_tools", "blocks", "first", "form", "given", "head", "id", "last", "last_ms",
        "numbering", "on", "open", "open_tools", "recorder", "reported", "root", "steps",
        "stride", "tail", "token", "untold", "user", "when",
    )  # fmt: skip

    def __init__(
        self,
        recorder: Recorder,
        trace_id: str,
        numbering: str | None = None,
    ) -> None:
        self.id = trace_id
        self.recorder = recorder
        self.on = recorder.keeps(trace_id) if recorder.processor.samples else recorder.on
        self.name_numbering(numbering)
        self.tail = recorder.tail
        self.stride = recorder.stride
        self.steps: Iterator[int] = count(1, self.stride)
        self.first = 0
        self.root = 0
        self.last = 0
        self.last_ms = 0
        self.when = b""
        self.form: bytes | None = None
        self.token = recorder.token
        self.untold: list[Callable[[], None]] = []
        self.about = b""
        self.user = ""
        self.asked_tools: AskedTools | None = None
        self.reported: ReportedTurns | None = None
        self.blocks = 0
        self.open = 0
        self.given: set[int] | None = None
        self.open_tools: dict[str, tuple[int, int, bytes]] = {}

    def name_numbering(self, numbering: str | None) -> None:
        """Name the numbering, before the first record: whoever stores that has to find out where it begins."""
        self.numbering = numbering
        member = b',"run":' + encoding.string(numbering) if numbering else b""
        self.head = b'"traceId":%b%b,"stepId":' % (encoding.string(self.id), member)

    def note_asked(self, step: int, tool_calls: Any) -> None:
        """Remember the tool calls, plain data, that the answer of that step asks for."""
        if self.asked_tools is None:
            self.asked_tools = AskedTools()
        self.asked_tools.note(step, tool_calls)

    def note_turn(self, step: int, models: Iterable[str], text: str | None) -> None:
        """Remember that the turn which the answer of that step ends is reported: whoever made it need not do so."""
        if self.reported is None:
            self.reported = ReportedTurns()
        self.reported.note(step, models, text)

    def tell(self, external_user_id: str | None, about: bytes) -> None:
        """
        Tell of the trace as a whole, from its next event on.

        Args:
            external_user_id: The user the agent acts for; None: no other than before.
            about: A metadata member, led by a comma, or nothing.
        """
        about = self.recorder.processor.told(about) if about else about
        with self.recorder.lock:
            if external_user_id is not None:
                self.user = external_user_id
                self.tail = b'%b,"externalUserId":%b' % (
                    self.recorder.tail,
                    encoding.string(external_user_id),
                )
            self.about = about or self.about
            self.form = None
