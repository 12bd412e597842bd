"""
Spans from the records of one process.

A span is a request with its response, made when it ends, and complete in itself. Until then the :class:`Reader` keeps
what it needs of the request, and tells which of that has changed, so that it outlives the process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import msgspec

from whyops_trace._guard import guarded, warn_once
from whyops_trace._recording.line import ending_of, is_usual
from whyops_trace._shapes import dict_of, text_of
from whyops_trace.exporters.otlp.calls import Kind, OpenCall, OpenTrace, Record
from whyops_trace.exporters.otlp.conventions import span_of
from whyops_trace.exporters.otlp.failing import NO_END, fail, forgive
from whyops_trace.exporters.otlp.span import Options, Span
from whyops_trace.exporters.otlp.whole import add_whole, again_of, root_of, score_of

#: Trace id, numbering, and step of a request; of a message by hand the enclosing step as ``-1 - within``, and of a
#: trace nothing but itself, as :data:`WHOLE`.
Key: TypeAlias = tuple[str, str, int]
WHOLE: Final = 0

#: Number of open traces. Beyond it the one is closed that nothing was recorded in for longest.
MAX_TRACES: Final = 10_000
#: Number of ended traces that are remembered, so that none is told as a whole twice.
MAX_ENDED: Final = 10_000
#: Number of thoughts and their characters that the span of a trace has.
MAX_THOUGHTS: Final = 100
MAX_THOUGHT: Final = 2_000

_REQUESTS: Final[dict[str, Kind]] = {
    "tool_call_request": "tool",
    "user_message": "llm",
    "tool_result": "llm",
    "embedding_request": "embedding",
}
_RESPONSES: Final[dict[str, Kind]] = {
    "tool_call_response": "tool",
    "llm_response": "llm",
    "embedding_response": "embedding",
}
_decode: Final = msgspec.json.Decoder(Record).decode


class Reader:
    """
    The open calls and traces of one process.

    Args:
        process: The name of the process.
        options: Options of the spans.
        find: Function that returns a call that is not in memory any more, None if there is none.
        whole: The records are those of a store, whose numbering is one for each trace, whoever recorded it.

    Attributes:
        calls: The open calls.
        traces: The open traces, the one with the latest record last.
        changed: The keys of calls and traces that began, changed or ended since the caller emptied it.
        now: The time, in seconds since the epoch; whoever gives it records tells it.
    """

    def __init__(
        self,
        process: str,
        options: Options,
        find: Callable[[Key], OpenCall | None] = lambda key: None,
        *,
        whole: bool = False,
    ) -> None:
        self.process: str = process
        self.calls: dict[Key, OpenCall] = {}
        self.traces: OrderedDict[tuple[str, str], OpenTrace] = OrderedDict()
        self.changed: set[Key] = set()
        self.now: float = 0.0
        self._agent = ""
        self._options = options
        self._find = find
        self._whole = whole
        self._ended: OrderedDict[tuple[str, str], None] = OrderedDict()

    @guarded("making a span", positional=2)
    def read(self, line: bytes) -> list[Span] | None:
        """Return the spans that a record completes, usually none or one; None if the line is no record."""
        try:
            record = _decode(line)
            if record.event_type == "score":
                return [score_of(record)]
            if self._whole:
                record.run = ""
            trace = self._trace(record)
            spans = self._take(trace, record)
        except (ValueError, TypeError, RecursionError) as error:  # of another version, or damaged
            warn_once("otlp: record", "A record cannot be exported as a span: %s", error)
            return None
        if not is_usual(line) and ending_of(line).ends_trace:
            return [*spans, *self._end_trace(trace, record, spans)]
        if trace.own or trace.asked:
            self.changed.add((trace.id, trace.run, WHOLE))
        return spans

    def _trace(self, record: Record) -> OpenTrace:
        key, time_ns = (record.trace_id, record.run), record.time_ns
        trace = self.traces.get(key)
        if trace is None:
            own = record.run.startswith(self.process) if record.run else record.step_id == 1
            self._agent = record.agent_name
            trace = self.traces[key] = OpenTrace(
                *key, own, record.step_id, time_ns, time_ns, record.agent_name, told=key in self._ended
            )
        else:
            self.traces.move_to_end(key)
            trace.last_ns = max(trace.last_ns, time_ns)
        trace.seen = self.now
        if record.external_user_id:
            trace.user = record.external_user_id
        if about := record.metadata.get("trace"):
            trace.about = {**trace.about, **dict_of(about)}
        if remote := record.metadata.get("remoteParent"):
            trace.remote = trace.remote or _span_id(remote)
        return trace

    def _take(self, trace: OpenTrace, record: Record) -> list[Span]:
        kind = record.event_type
        if (request := _REQUESTS.get(kind)) is not None:
            self._begin(trace, record, request)
        elif (response := _RESPONSES.get(kind)) is not None:
            return [self._end(trace, record, response)]
        elif kind == "step_end":
            return [self._end(trace, record, "step")]
        elif kind == "llm_thinking":
            self._think(trace, record)
        elif kind == "error":
            return self._fail(trace, record)
        return []

    def _begin(self, trace: OpenTrace, record: Record, kind: Kind) -> None:
        metadata, step = record.metadata, record.step_id
        within = metadata.get("within", 0)
        by_hand = kind in ("llm", "embedding") and "function" not in metadata and "otel" not in metadata
        key = (trace.id, trace.run, -1 - within if by_hand else step)
        content = bytes(record.content)
        self.calls[key] = OpenCall(
            kind, step, within, record.time_ns, record.span_id, metadata, content, [], b"", by_hand
        )
        self.changed.add(key)
        if by_hand:
            trace.by_hand = True

    def _think(self, trace: OpenTrace, record: Record) -> None:
        """Begin a step, or note what was thought: in the call of a model, before an answer by hand, or at the top."""
        metadata = record.metadata
        if "step" in metadata:
            self._begin(trace, record, "step")
            return
        within = metadata.get("within", 0)
        for key in ((trace.id, trace.run, within), (trace.id, trace.run, -1 - within)):
            call = self._call(key)
            if call is not None and call.kind == "llm":
                call.thoughts.append(bytes(record.content))
                self.changed.add(key)
                return
        text = text_of(dict_of(msgspec.json.decode(record.content)).get("thinking"))
        if text and len(trace.thoughts) < MAX_THOUGHTS:
            trace.thoughts.append((record.time_ns, text[:MAX_THOUGHT]))

    def _fail(self, trace: OpenTrace, record: Record) -> list[Span]:
        """Take an error: of a tool that responds later, of a call of a model, which ends with it, or of neither."""
        metadata = record.metadata
        key = (trace.id, trace.run, record.parent_step_id)
        call = self._call(key) if record.parent_step_id else None
        if "function" in metadata or (call is not None and call.kind in ("llm", "embedding")):
            return [self._end(trace, record, call.kind if call else "llm")]
        if call is not None and call.kind == "tool":
            call.error = bytes(record.content)
            self.changed.add(key)
            return []
        by_hand = (trace.id, trace.run, -1 - metadata.get("within", 0))
        if by_hand in self.calls and self.calls[by_hand].step == record.parent_step_id:
            return [self._end(trace, record, "llm")]
        trace.error = bytes(record.content)
        return []

    def _call(self, key: Key) -> OpenCall | None:
        return self.calls.get(key) or self._find(key)

    def _end(self, trace: OpenTrace, record: Record, kind: Kind) -> Span:
        step = record.step_id if kind == "step" else record.parent_step_id
        key = (trace.id, trace.run, step)
        call = self._call(key)
        if call is None or call.kind != kind:
            key = self._other_key(trace, record, kind, key)
            call = self._call(key)
        if call is None or call.kind != kind:
            # Its request was dropped, or it has none: an answer that was recorded by hand, without a question.
            within = record.metadata.get("within", 0)
            call = OpenCall(
                kind,
                record.step_id if kind == "step" or within != step or not step else step,
                within if within != step or kind == "step" else 0,
                record.time_ns,
                record.span_id,
                record.metadata,
                b"",
                by_hand=True,
            )
        else:
            self.calls.pop(key, None)
            self.changed.add(key)
        return self._span(trace, call, record)

    def _other_key(self, trace: OpenTrace, record: Record, kind: Kind, key: Key) -> Key:
        """Return the key of the call that a record ends whose parent is none: of a message by hand, or of its span."""
        metadata = record.metadata
        if kind in ("llm", "embedding") and "function" not in metadata and "otel" not in metadata:
            return trace.id, trace.run, -1 - metadata.get("within", 0)
        for other in self._of_trace(trace) if kind == "tool" else ():
            call = self.calls[other]
            if call.kind == "tool" and call.span == record.span_id != "span_0":
                return other
        return key

    def _of_trace(self, trace: OpenTrace) -> list[Key]:
        return [key for key in self.calls if key[0] == trace.id and key[1] == trace.run]

    def _span(self, trace: OpenTrace, call: OpenCall, end: Record | None) -> Span:
        trace.tops += not call.within
        return span_of(trace, call, end, self._options, trace.enclosing_id(call.within))

    # Traces as a whole

    def _end_trace(self, trace: OpenTrace, record: Record, spans: list[Span]) -> list[Span]:
        """Return the span of a trace as a whole, if it has one of its own, and forget the trace."""
        key = (trace.id, trace.run)
        self._drop(trace)
        if not trace.own:
            return []
        if trace.tops == 1 and spans and not trace.told and spans[-1].parent_id == trace.span_id(0):
            spans[-1].parent_id = bytes.fromhex(trace.remote)  # the only call of the trace is its root
            add_whole(spans[-1], trace, self._options)
            if trace.run:
                self._remember(key)
            return []
        told, trace.told = trace.told, True
        self._remember(key)
        if not told:
            return [root_of(trace, record, self._options)]
        return [again_of(trace, record, self._options)] if record.event_type == "trace_end" else []

    def _drop(self, trace: OpenTrace) -> None:
        """Forget a trace, with the messages in it that nobody answered."""
        del self.traces[trace.id, trace.run]
        self.changed.add((trace.id, trace.run, WHOLE))
        if trace.by_hand:
            for key in self._of_trace(trace):
                if self.calls[key].by_hand:
                    del self.calls[key]
                    self.changed.add(key)

    def _remember(self, key: tuple[str, str]) -> None:
        self._ended[key] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def crowded(self) -> list[Span]:
        """Return the spans of the traces, as a whole, that are closed because too many are open."""
        spans = []
        for key in list(self.traces)[: max(0, len(self.traces) - MAX_TRACES)]:
            if not any(self._of_trace(self.traces[key])):
                spans += self._close(self.traces[key])
        return spans

    def quiet(self, since: float, given_up: float = float("-inf")) -> list[Span]:
        """
        Return the spans of traces, as a whole, that nobody ends, and that nothing was recorded in for long.

        Of a store's records no more than that tells of the end of a step, either. Of one process's records only the
        traces are closed that have messages by hand, since others have a block, which ends.

        Args:
            since: Traces with a later record are left alone, in seconds since the epoch.
            given_up: The same for those in which a call is open. They are told as not ended then.
        """
        traces = []
        for trace in self.traces.values():
            if trace.seen > since:
                break
            if self._whole or trace.by_hand:
                traces.append(trace)
        keys: dict[tuple[str, str], list[Key]] = {}
        for key, call in self.calls.items() if traces else ():
            if not call.by_hand:
                keys.setdefault(key[:2], []).append(key)
        spans: list[Span] = []
        for trace in traces:
            calls = keys.get((trace.id, trace.run), [])
            is_given_up = trace.seen <= given_up
            if is_given_up or all(self._whole and self.calls[key].kind == "step" for key in calls):
                spans += self._give_up(trace, calls)
        return spans

    def _give_up(self, trace: OpenTrace, keys: list[Key]) -> list[Span]:
        spans = []
        for key in keys:
            call = self.calls.pop(key)
            self.changed.add(key)
            spans.append(self._span(trace, call, None))
            if call.kind == "step":
                forgive(spans[-1])
        return [*spans, *self._close(trace)]

    def spare(self, most: int) -> None:
        """Forget the oldest calls, which *find* finds, if all of them take more than so many bytes."""
        size = sum(call.size for call in self.calls.values())
        for key in list(self.calls):
            if size <= most:
                break
            size -= self.calls.pop(key).size

    def close_idle(self) -> list[Span]:
        """Return the spans, as a whole, of the traces in which nothing is open. Those are told as ended."""
        busy = {key[:2] for key, call in self.calls.items() if not call.by_hand}
        return [
            span for key, trace in list(self.traces.items()) if key not in busy for span in self._close(trace)
        ]

    def close_all(self) -> list[Span]:
        """Return the spans of the calls that have not ended and never will, then of their traces as a whole."""
        return list(self._unended())

    def _unended(self) -> Iterator[Span]:
        failed = set()
        for key, call in list(self.calls.items()):
            del self.calls[key]
            self.changed.add(key)
            trace = self.traces.get(key[:2])
            if trace is None:  # it outlived its trace
                trace = OpenTrace(*key[:2], False, 0, call.start_ns, call.start_ns, self._agent)
            if not call.by_hand:
                failed.add(key[:2])
                yield self._span(trace, call, None)
        for trace in list(self.traces.values()):
            for span in self._close(trace):
                if (trace.id, trace.run) in failed:
                    fail(span, NO_END, "The process ended before the trace did: no end was seen.")
                yield span

    def _close(self, trace: OpenTrace) -> list[Span]:
        self._drop(trace)
        if not trace.own or trace.told or not trace.tops:
            return []
        self._remember((trace.id, trace.run))
        return [root_of(trace, None, self._options)]


def _span_id(told: object) -> str:
    """Return a span id, "" if it is none."""
    try:
        return told if isinstance(told, str) and len(bytes.fromhex(told)) == 8 else ""
    except ValueError:
        return ""
