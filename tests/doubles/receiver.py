"""A receiver of OTLP for tests, on a real socket, that can misbehave by script. It reads with opentelemetry-proto."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Refuse:
    """An answer with a status, after which nothing is kept."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Partial:
    """The last *rejected* spans are not kept, and counted in a good answer."""

    rejected: int
    words: str = "too old"


@dataclass(frozen=True)
class Cut:
    """The connection is reset: before anything is kept, or in place of the answer."""

    when: Literal["request", "answer"]


@dataclass(frozen=True)
class Hang:
    """No answer until ``release()``, and nothing is kept."""


Fault = Refuse | Partial | Cut | Hang


@dataclass
class Span:
    """A span as it arrived, with its ids in hex digits."""

    trace_id: str
    id: str
    parent: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    message: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[str]
    resource: dict[str, Any]
    state: str = ""


@dataclass
class Log:
    """A log record as it arrived, with its ids in hex digits."""

    trace_id: str
    span_id: str
    name: str
    time_ns: int
    severity: str
    attributes: dict[str, Any]
    body: Any
    resource: dict[str, Any]


@dataclass
class Request:
    """A request: its path, headers in lower case, and the body as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """
    A receiver. Use it in a with-block.

    Attributes:
        requests: All requests.
        arrived: The spans that were kept, in order, repeats included.
        logs: The log records that were kept.
        takes_logs: False to have no address for log records.
        largest: Requests with more bytes are refused with 413.
        poison: Requests with these bytes in them are refused with 500.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.arrived: list[Span] = []
        self.logs: list[Log] = []
        self.takes_logs = True
        self.largest = 4 << 20
        self.poison = b""
        self._faults: deque[Fault | None] = deque()
        self._always: Fault | None = None
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Its address without a path."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def spans(self) -> dict[str, Span]:
        """The spans by their names; where several have one, the last."""
        return {span.name: span for span in self.arrived}

    def fail(self, *faults: Fault | None, always: Fault | None = None) -> None:
        """Let the next requests meet these faults, one each, then *always* one; None is a good answer."""
        self._faults.extend(faults)
        self._always = always

    def calm(self) -> None:
        """Forget all faults, and let requests that hang go."""
        self._faults.clear()
        self._always = None
        self._released.set()

    def wait(self, count: int, timeout: float = 20.0) -> list[Span]:
        """Return what arrived once it is so many spans."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.arrived) >= count, timeout), self.seen()
        return self.arrived

    def wait_for_requests(self, count: int, timeout: float = 20.0) -> None:
        """Wait until so many requests came."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, timeout), self.seen()

    def seen(self) -> str:
        """Return how far things got, for a test that fails."""
        return f"{len(self.requests)} requests, {len(self.arrived)} spans: {[span.name for span in self.arrived]}"

    def start(self) -> None:
        """Listen, at the same address as before."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._answer(self)

            def log_message(self, *args: object) -> None:
                pass

        server = self._server = ThreadingHTTPServer(
            ("127.0.0.1", self._port), Handler, bind_and_activate=False
        )
        server.daemon_threads, server.block_on_close, server.request_queue_size = True, False, 64
        server.allow_reuse_address = True
        server.server_bind()
        server.server_activate()
        self._port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._changed:
            self.requests.append(Request(handler.path, headers, body))
            fault = self._faults.popleft() if self._faults else self._always
            self._changed.notify_all()
        if len(body) > self.largest and fault is None:
            fault = Refuse(413)
        if self.poison and self.poison in body:
            fault = Refuse(500)
        if handler.path.endswith("/v1/logs") and not self.takes_logs:
            fault = Refuse(404)
        if isinstance(fault, Hang):
            self._released.wait()
            handler.close_connection = True
            return
        if isinstance(fault, Refuse):
            _reply(handler, fault.status, fault.body, fault.headers)
            return
        if fault != Cut("request"):
            self._keep(handler.path, headers, body, fault.rejected if isinstance(fault, Partial) else 0)
        if isinstance(fault, Cut):
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
            return
        response = ExportTraceServiceResponse()
        if isinstance(fault, Partial):
            response.partial_success.rejected_spans = fault.rejected
            response.partial_success.error_message = fault.words
        kind = headers["content-type"]
        told = (
            json_format.MessageToJson(response).encode() if "json" in kind else response.SerializeToString()
        )
        _reply(handler, 200, told, {"Content-Type": kind})

    def _keep(self, path: str, headers: dict[str, str], body: bytes, rejected: int) -> None:
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if path.endswith("/v1/logs"):
            with self._changed:
                self.logs += _logs(body, is_json="json" in headers["content-type"])
                self._changed.notify_all()
            return
        if "json" in headers["content-type"]:
            spans = list(_spans_of_json(body))
        else:
            spans = list(_spans(ExportTraceServiceRequest.FromString(body)))
        with self._changed:
            self.arrived += spans[: len(spans) - rejected]
            self._changed.notify_all()


def _reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def _with_base64(thing: Any) -> Any:
    """Return JSON of OTLP as JSON of protobuf, which has ids in base64."""
    if isinstance(thing, list):
        return [_with_base64(each) for each in thing]
    if not isinstance(thing, dict):
        return thing
    return {
        name: base64.b64encode(bytes.fromhex(value)).decode()
        if name in ("traceId", "spanId", "parentSpanId")
        else _with_base64(value)
        for name, value in thing.items()
    }


def _spans_of_json(body: bytes) -> Any:
    return _spans(json_format.ParseDict(_with_base64(json.loads(body)), ExportTraceServiceRequest()))


def _spans(request: ExportTraceServiceRequest) -> Any:
    for resource in request.resource_spans:
        about = _values(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.name, span.kind,
                    span.start_time_unix_nano, span.end_time_unix_nano, span.status.code, span.status.message,
                    _values(span.attributes),
                    [(event.name, _values(event.attributes)) for event in span.events],
                    [link.span_id.hex() for link in span.links],
                    {**about, "scope": scope.scope.name, "schema": scope.schema_url},
                    span.trace_state,
                )  # fmt: skip


def _logs(body: bytes, *, is_json: bool) -> Any:
    if is_json:
        request = json_format.ParseDict(_with_base64(json.loads(body)), ExportLogsServiceRequest())
    else:
        request = ExportLogsServiceRequest.FromString(body)
    for resource in request.resource_logs:
        about = _values(resource.resource.attributes)
        for scope in resource.scope_logs:
            for log in scope.log_records:
                yield Log(
                    log.trace_id.hex(), log.span_id.hex(), log.event_name, log.time_unix_nano, log.severity_text,
                    _values(log.attributes), _value(log.body), {**about, "scope": scope.scope.name},
                )  # fmt: skip


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _values(value.kvlist_value.values)
    return getattr(value, kind)
