"""The three kinds of traced call: tools, models, embeddings. Each makes its own events of a request and of an end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from whyops_trace._calls.call import DETACHED, Call, Items, ModelCall
from whyops_trace._calls.site import C, CallSite
from whyops_trace._checks import MAX_MODEL
from whyops_trace._guard import attempt, warn_once
from whyops_trace._models.answers import (
    Turn,
    is_of_provider,
    read_embedding,
    read_error,
    read_response,
)
from whyops_trace._models.assembly import assemble, first_token
from whyops_trace._models.frameworks import id_of
from whyops_trace._models.links import TRACE_ID_ARGUMENT
from whyops_trace._models.usage import read_usage
from whyops_trace._recording.line import Content
from whyops_trace._recording.recorder import Recorder
from whyops_trace._recording.state import TraceState
from whyops_trace._values import encoding, mending
from whyops_trace._values.failures import Told, describe_passing, describe_whole
from whyops_trace._values.losses import is_redacted
from whyops_trace._values.reflection import name_of
from whyops_trace._values.secrets.finds import MARK
from whyops_trace._values.truncation import truncated
from whyops_trace.context import Scope

#: Bytes of JSON after which no more items of a generator are recorded. Short items do not count.
MAX_ITEMS_BYTES: Final = 65_536
#: Largest number of causes of a failure that are looked at.
_MAX_CAUSES: Final = 20
#: Identities of the types of results that JSON tells apart.
PLAIN: Final = frozenset(map(id, (type(None), bool, int, float, str, dict, list)))
#: Fewest bytes of a record in which a cut answer of a provider still tells something.
MIN_RAW_BYTES: Final = 1_000


class Tool(CallSite):
    """``tool_call_request``, then ``tool_call_response``; an ``error`` between the two if the tool raised."""

    options: ClassVar[Mapping[str, str]] = {
        **CallSite.options,
        "failed": "a function without async",
        "tool_call_id": "text",
    }
    written: ClassVar[frozenset[str]] = frozenset(
        {"captured", "failed", "latencyMs", "outcome", "redacted", "requestedBy", "returned", "tool"}
    )

    def __init__(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any],
        recorder: Callable[[], Recorder | None],
    ) -> None:
        super().__init__(function, options, recorder)
        #: The parameter that holds the id of the model's tool call.
        self._id_parameter: str = options.get("tool_call_id") or "tool_call_id"
        if "tool_call_id" in options:
            self.require(self._id_parameter)
        self._failed: Callable[[Any], object] | None = options.get("failed")
        self.strips = "" if self._arguments.names(TRACE_ID_ARGUMENT) else TRACE_ID_ARGUMENT
        self.keeps_short = self.capture_output and self.accumulate is None
        name = encoding.encode(self.name)
        self._request = b'{"toolCalls":[{"name":%b,"arguments":' % name
        self._response = b'{"toolCalls":[{"name":%b}],"toolResults":' % name
        self._metadata = b',"tool":%b' % name + self.metadata
        #: The same for a request, which tells if its arguments were left out.
        self._about = self._metadata + (b"" if self.captures_input else b',"captured":false')

    def request(self, named: dict[str, Any], recorder: Recorder) -> tuple[bytes, bytes, Content]:
        """Return the event type, metadata members and content of a request."""
        encode = recorder.encode
        content = b"".join((self._request, encode(named), b"}]}"))  # + would copy a large one twice
        return b"tool_call_request", self._about, content

    def requested_by(self, state: TraceState, named: Mapping[str, Any], call_id: str = "") -> bytes:
        """Return the metadata member that names the turn which asked for the call, led by a comma, or nothing."""
        tools = state.asked_tools
        known = call_id or named.get(self._id_parameter)
        step = tools.find(self.name, named, known, state.recorder.hides) if tools else 0
        return b',"requestedBy":%d' % step if step else b""

    def respond(self, call: Call, result: Any, elapsed_ms: int) -> None:
        """
        Record the tool's result: under ``result`` if it is no object, under ``items`` for a generator's items.

        The metadata tell what a replay needs beside it: the class of a result that is no JSON, and what is missing.
        """
        encode = call.state.recorder.encode
        metadata = b'%b,"latencyMs":%d' % (self._metadata, elapsed_ms)
        if not self.capture_output:
            results = b"{}"
            metadata += b',"captured":false'
        elif call.items is not None:
            ended = b"" if result is None else b',"returned":' + encode(result)
            results = b"{%b%b}" % (_items(call.items, encode), ended)
        else:
            results = encode(result)
            if results[0] != 123:  # not an object
                is_plain = id(type(result)) in PLAIN
                results = b"".join((b'{"result":', results, b"}"))
            else:
                is_plain = type(result) is dict and (len(result) != 1 or "result" not in result)
            if not is_plain:
                metadata += b',"returned":%b' % encode(name_of(type(result)))
            # `in` raises and catches an error first, which costs 2,000 instructions.
            if results.find(MARK) >= 0 and is_redacted(result, results):
                metadata += b',"redacted":true'
        try:
            if self._failed is not None and call.items is None:
                metadata += self._verdict(result, encode)
        finally:  # also if an interrupt or an exit ends the judging
            call.close(b"tool_call_response", metadata, b"".join((self._response, results, b"}")))

    def _verdict(self, result: Any, encode: Callable[[object], bytes]) -> bytes:
        """Return the metadata member in which the tool itself says whether its result tells of a failure."""
        said, error = attempt(self._decide, result)
        if error is not None:
            warn_once(f"failed of {self.name}", "failed of %r raised %s.", self.name, type(error).__name__)
            return b""
        return b',"failed":%b' % encode(said if self.capture_output else bool(said))

    def _decide(self, result: Any) -> str | bool:
        said = self._failed(result) if self._failed is not None else None
        return said if type(said) is str and said else bool(said)

    def fail(self, call: Call, error: BaseException, elapsed_ms: int) -> None:
        """Record an ``error`` event and a response with the error, or a response that says how else it ended."""
        encode, ended = call.state.recorder.encode, self.outcome(call, error)
        if ended == "error":
            told = describe_whole(error, stacks=True, parts=True)
            call.record(b"error", self._metadata, encode(told))
            results = b'{"error":%b}' % encode(
                {name: told[name] for name in ("type", "message") if name in told}
            )
        else:
            items = b""
            if call.items is not None and self.capture_output:
                items = b"," + _items(call.items, encode)
            way = (
                b'"cancelled":true' if ended == "cancelled" else b'"raised":%b' % self._passing(encode, error)
            )
            results = b"{%b%b}" % (way, items)
        self._close(call, results, elapsed_ms, encode(ended))

    def _passing(self, encode: Callable[[object], bytes], error: BaseException) -> bytes:
        """Return an exception that is no failure as JSON; what it carries is an output."""
        return encode(describe_passing(error) if self.capture_output else {"type": name_of(type(error))})

    def _close(self, call: Call, results: bytes, elapsed_ms: int, outcome: bytes) -> None:
        metadata = b'%b,"latencyMs":%d,"outcome":%b' % (self._metadata, elapsed_ms, outcome)
        call.close(b"tool_call_response", metadata, b"".join((self._response, results, b"}")))

    def keep(self, call: Call, items: Items, item: Any) -> None:
        """Keep the first items as JSON."""
        if self.capture_output and items.count <= items.most:
            encoded = call.state.recorder.encode(item)
            items.values.append(encoded)
            items.size += len(encoded)
            if items.size >= MAX_ITEMS_BYTES:
                items.most = 0


class Llm(CallSite):
    """``user_message`` or ``tool_result``, then ``llm_thinking`` and ``llm_response``; or an ``error``."""

    options: ClassVar[Mapping[str, str]] = {
        **CallSite.options,
        "model": "text",
        "provider": "text",
        "extract": "a function without async",
    }
    written: ClassVar[frozenset[str]] = frozenset(
        {"captured", "doubles", "errorResponse", "function", "latencyMs", "model", "outcome", "params", "provider",
         "rawResponse", "redacted", "requestId", "responseId", "returned", "system", "systemPrompt",
         "timeToFirstTokenMs", "tools", "usage", "wraps"}
    )  # fmt: skip
    holds = True
    follows = True

    def __init__(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any],
        recorder: Callable[[], Recorder | None],
    ) -> None:
        super().__init__(function, options, recorder)
        self._model: str = options.get("model") or ""
        self._provider: str = options.get("provider") or ""
        self._extract: Callable[[Any], Any] | None = options.get("extract")
        self._function = b',"function":' + encoding.encode(self.name) + self.metadata

    def _open(self, named: dict[str, Any], run: type[C], made_in: Scope | None = None) -> C | None:
        call = super()._open(named, run, made_in)
        if call is not None:
            self._note_request(call, named)
        return call

    def start(
        self, named: dict[str, Any], scope: Scope, call_id: str = "", about: bytes = b""
    ) -> tuple[Call, Scope]:
        """Record the request of a call that code elsewhere makes; see :meth:`CallSite.start`."""
        call, inside = super().start(named, scope, call_id, about)
        self._note_request(call, named)
        return call, inside

    @staticmethod
    def _note_request(call: Call, named: Mapping[str, Any]) -> None:
        model_call = call.model_call = call.model_call or ModelCall()
        model_call.model = _text(named.get("model"))
        model_call.provider = _text(named.get("provider"))
        model_call.streams = named.get("stream") is True

    def request(self, named: dict[str, Any], recorder: Recorder) -> tuple[bytes, bytes, Content]:
        """Return the event type, metadata members and content of a request."""
        return recorder.requests.encode(named, self._function)

    def respond(self, call: Call, result: Any, elapsed_ms: int) -> None:
        """Record the model's thinking and its answer."""
        answer = assemble(call.items.values) if call.items is not None else result
        turn = self._read(call, answer)
        ending = self._settle(call, turn)
        if error := self._error(call, answer):
            if not turn.provider:  # nothing but the error came
                turn.content = None
            self._fail(call, turn, elapsed_ms, ending, error)
            return
        if self.capture_output:
            for thought in turn.thinking:
                call.record(b"llm_thinking", self._function, call.state.recorder.encode(thought))
            self._record_provider_calls(call, turn)
        _note_answer(call, (turn.said(), turn.finish()))
        if not self.capture_output:
            ending += b',"captured":false'
        elif type(result) is not str and call.items is None and not self._is_told(call):
            ending += b',"returned":%b' % call.state.recorder.encode(name_of(type(result)))
        self._close(call, turn, elapsed_ms, ending)

    @staticmethod
    def _is_told(call: Call) -> bool:
        """Return True for a turn that no function returns: a client or a framework tells of it."""
        return call.outer is DETACHED or (call.model_call is not None and call.model_call.by_client)

    @staticmethod
    def _error(call: Call, answer: Any) -> dict[str, Any]:
        """Return the error that a stream, or the answer of a client, reports with a status of success."""
        if call.items is None and not (call.model_call and call.model_call.by_client):
            return {}
        hides = call.state.recorder.hides
        # An answer from the wire is plain data, of which only an error is made safe here: it is large, and read again.
        error = read_error(answer if isinstance(answer, dict) else mending.plain(answer, hides))
        return mending.plain(error, hides) if error else error

    @staticmethod
    def _record_provider_calls(call: Call, turn: Turn) -> None:
        """Record the tools that the provider ran, unless a turn inside has done so."""
        encode = call.state.recorder.encode
        for ran in () if call.model_call and call.model_call.wraps else turn.ran:
            metadata = b',"tool":%b,"ranAt":"provider"' % encode(ran.name)
            if ran.server:
                metadata += b',"server":%b' % encode(ran.server)
            head = b'{"toolCalls":[{"name":%b' % encode(ran.name)
            results = ran.result if isinstance(ran.result, dict) else {"result": ran.result}
            outcome = b',"outcome":"error"' if ran.failed else b""
            call.record_pair(
                (b"tool_call_request", metadata, b'%b,"arguments":%b}]}' % (head, encode(ran.arguments))),
                (
                    b"tool_call_response",
                    metadata + outcome,
                    b'%b}],"toolResults":%b}' % (head, encode(results)),
                ),
            )

    def _settle(self, call: Call, turn: Turn) -> bytes:
        """Decide if the call reports its turn. Return the metadata member about that, led by a comma, or nothing."""
        if call.settle():
            turn.usage, turn.raw = {}, {}  # they are in the turns inside
            return b',"wraps":true'
        layer = call.model_call.turn.layer if call.model_call and call.model_call.turn else None
        if layer is not None:
            told = layer.answer
            turn.id, turn.model = turn.id or told.id, turn.model or told.model
            turn.usage, turn.finish_reason = (
                turn.usage or told.usage,
                turn.finish_reason or told.finish_reason,
            )
        return b""

    def _read(self, call: Call, result: Any) -> Turn:
        if self._extract is not None:
            result = self.apply("extract", self._extract, result)
        answer = mending.plain_view(result, call.state.recorder.hides, digests=True)
        turn = read_response(answer)
        turn.id = id_of(answer)
        if self._extract is None and is_of_provider(answer):
            turn.raw = answer
        return turn

    def fail(self, call: Call, error: BaseException, elapsed_ms: int) -> None:
        """Record an ``error`` event, or an answer that says how else it ended, with the text that came before."""
        has_pieces = call.items is not None and self._extract is None
        turn = self._read(call, assemble(call.items.values)) if has_pieces and call.items else Turn()
        ending, ended = self._settle(call, turn), self.outcome(call, error)
        if ended == "error":
            ending += self._doubled(call, error)
            self._fail(call, turn, elapsed_ms, ending, describe_whole(error, stacks=True))
        else:
            turn.finish_reason = ended
            ending += b',"outcome":%b' % call.state.recorder.encode(ended)
            self._close(call, turn, elapsed_ms, ending)

    @staticmethod
    def _doubled(call: Call, error: BaseException) -> bytes:
        """Return the metadata member that names the record of a turn inside that failed alike, led by a comma."""
        turn = call.model_call.turn if call.model_call else None
        if turn is None or turn.failure is None or not _is_of(error, turn.failure[0]):
            return b""
        return b',"doubles":%d' % turn.failure[1]

    def _fail(self, call: Call, turn: Turn, elapsed_ms: int, ending: bytes, error: Mapping[str, Any]) -> None:
        content = {"message": "The stream broke off.", **error}
        if turn.content and self.capture_output:
            content["partial"] = turn.content
        response = call.model_call.error_response if call.model_call else None
        if response is not None:
            ending += b',"errorResponse":%b' % call.state.recorder.encode(response)
        body = call.state.recorder.encode(content)
        call.close(b"error", self._answer_metadata(call, turn, elapsed_ms, ending), body)

    def _close(self, call: Call, turn: Turn, elapsed_ms: int, ending: bytes) -> None:
        recorder = call.state.recorder
        content = turn.said() if self.capture_output else {}
        if turn.others and self.capture_output:
            content["otherChoices"] = [
                {
                    **other.said(),
                    **other.finish(),
                    **({"thinking": other.thinking} if other.thinking else {}),
                }
                for other in turn.others
            ]
        content |= turn.finish()
        tool_calls = [item for choice in (turn, *turn.others) for item in choice.tool_calls]
        if turn.usage:
            ending = b',"usage":%b%b' % (recorder.encode(turn.usage), ending)
        metadata, body = self._answer_metadata(call, turn, elapsed_ms, ending), recorder.encode(content)
        if turn.raw and self.capture_output:
            raw = self._raw_response(turn, recorder, recorder.processor.room - len(metadata) - len(body))
            metadata += raw
            if MARK in raw and is_redacted(turn.raw, raw):
                metadata += b',"redacted":true'
        step = call.close(b"llm_response", metadata, body)
        if tool_calls:
            call.state.note_asked(step, tool_calls)
        if call.model_call and call.model_call.by_client:
            call.state.note_turn(step, (call.model_call.model, turn.model), turn.content)

    @staticmethod
    def _raw_response(turn: Turn, recorder: Recorder, room: int) -> bytes:
        """Return the metadata member with the answer as the provider had it, cut to what other members leave it."""
        room -= len(b',"rawResponse":')
        if room < MIN_RAW_BYTES:
            return b""
        return b',"rawResponse":%b' % truncated(recorder.encode(turn.raw), room)

    def _answer_metadata(self, call: Call, turn: Turn, elapsed_ms: int, ending: bytes) -> bytes:
        """Return the metadata members of an answer. Its own model comes before the requested and the decorator's."""
        request = call.model_call
        model = (turn.model or (request.model if request else "") or self._model or "unknown")[:MAX_MODEL]
        name = turn.provider or (request.provider if request else "") or self._provider
        # Many providers answer in the form of OpenAI, and some serve Anthropic's models. So the arguments, the
        # decorator and the client tell the provider better than the form of the answer.
        if turn.provider == "openai" or (request and request.by_client):
            name = (request.provider if request else "") or self._provider or name
        provider = name or (model.split("/")[0] if "/" in model else "unknown")
        encode = call.state.recorder.encode
        if turn.id:
            ending = b',"responseId":%b%b' % (encode(turn.id), ending)
        if request and request.request_id:
            ending = b',"requestId":%b%b' % (encode(request.request_id), ending)
        if request and request.first_token_ms is not None:
            ending = b',"timeToFirstTokenMs":%d%b' % (request.first_token_ms, ending)
        return b'%b,"model":%b,"provider":%b,"latencyMs":%d%b' % (
            self._function, encode(model), encode(provider), elapsed_ms, ending,
        )  # fmt: skip

    def keep(self, call: Call, items: Items, item: Any) -> None:
        """Keep every piece of text, and other items as plain data."""
        piece = (
            item if type(item) is str else mending.plain(_without_snapshot(item), call.state.recorder.hides)
        )
        items.values.append(piece)
        if call.model_call and call.model_call.first_token_ms is None and first_token([piece]) is not None:
            call.model_call.first_token_ms = call.elapsed_ms()


class Embedding(Llm):
    """``embedding_request``, then ``embedding_response``; or an ``error``. The vectors are counted, not recorded."""

    options: ClassVar[Mapping[str, str]] = {
        name: expected for name, expected in Llm.options.items() if name != "capture_output"
    }

    def request(self, named: dict[str, Any], recorder: Recorder) -> tuple[bytes, bytes, Content]:
        """Return the event type, metadata members and content of a request."""
        texts: Any = next((value for name, value in named.items() if not recorder.hides(name)), [])
        for name in ("input", "inputs", "texts", "text"):
            texts = named.get(name, texts)
        inputs = texts if type(texts) in (list, tuple) else [texts]
        return b"embedding_request", self._function, b'{"input":%b}' % recorder.encode(inputs)

    def respond(self, call: Call, result: Any, elapsed_ms: int) -> None:
        """Record the number of vectors, and the length of the first."""
        result = call.items.values if call.items is not None else result
        if self._extract is not None:
            result = self.apply("extract", self._extract, result)
        answer = mending.plain(result, call.state.recorder.hides, shapes=True)
        if error := self._error(call, answer):
            self._fail(call, Turn(), elapsed_ms, self._settle(call, Turn()), error)
            return
        vectors = read_embedding(answer)
        members = answer if isinstance(answer, dict) else {}
        model = members.get("model")
        turn = Turn(model=model if isinstance(model, str) else "", usage=read_usage(members))
        ending = self._settle(call, turn)
        if turn.usage:
            ending += b',"usage":%b' % call.state.recorder.encode(turn.usage)
        content = {
            "object": "list",
            "embeddingCount": vectors.count,
            "firstEmbeddingDimensions": vectors.dimensions,
            "encodingFormat": vectors.encoding,
        }
        _note_answer(call, content)
        self._answer(call, turn, elapsed_ms, ending, content)

    def fail(self, call: Call, error: BaseException, elapsed_ms: int) -> None:
        """Record an ``error`` event, or an answer without vectors that says how else it ended."""
        ended = self.outcome(call, error)
        if ended != "error":
            ending = self._settle(call, Turn()) + b',"outcome":%b' % call.state.recorder.encode(ended)
            self._answer(call, Turn(), elapsed_ms, ending, {"embeddingCount": 0})
        else:
            super().fail(call, error, elapsed_ms)

    def _answer(
        self, call: Call, turn: Turn, elapsed_ms: int, ending: bytes, content: dict[str, Any]
    ) -> None:
        body = call.state.recorder.encode(content)
        call.close(b"embedding_response", self._answer_metadata(call, turn, elapsed_ms, ending), body)


def _is_of(error: BaseException, inner: BaseException) -> bool:
    """Tell whether a failure is one of a turn inside, as it is, raised from it, or in words alone."""
    if type(error) is Told:
        return bool(words := str(inner)) and words in str(error)
    seen: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if seen is inner or seen is None:
            break
        seen = seen.__cause__ or seen.__context__
    return seen is inner


def _note_answer(call: Call, content: object) -> None:
    """Note what a model answered if the proxy reports it, which has another form for a stream."""
    model_call = call.model_call
    if model_call is not None and model_call.proxied:
        model_call.answer = hash((encoding.encode(content), model_call.streams))


def _without_snapshot(item: Any) -> Any:
    """Return an event of a stream without its copy of the text so far, which grows with each event."""
    fields = getattr(item, "__dict__", None)
    if type(fields) is not dict or "snapshot" not in fields:
        return item
    return {name: value for name, value in fields.items() if name != "snapshot"}


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _items(items: Items, encode: Callable[[object], bytes]) -> bytes:
    """Return a generator's kept items and their number as JSON members. Items of type bytes are JSON already."""
    if bytes in map(type, items.values):
        texts = (item if type(item) is bytes else encode(item) for item in items.values)
        array = b"[%b]" % b",".join(texts)
    else:
        array = encode(items.values)
    return b'"items":%b,"count":%d' % (array, items.count)
