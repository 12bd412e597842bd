"""
The receiver of OpenTelemetry: OTLP over HTTP, in protobuf and in JSON.

Spans are stored before the answer. What cannot be stored is counted in it, with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from whyops_trace._extras import install_hint
from whyops_trace._guard import guarded, told_once, warn_once
from whyops_trace._home import STORE_FILE
from whyops_trace._otel import protobuf
from whyops_trace._otel.span import Batch, MalformedError, read_json
from whyops_trace._values.processor import Processor
from whyops_trace.exceptions import StoreError
from whyops_trace.server.bodies import BodyError, read_body
from whyops_trace.server.inbox import Inbox
from whyops_trace.server.joining import SWEEP, Joiner
from whyops_trace.server.routing import RawRoute
from whyops_trace.settings import MAX_EVENT_BYTES, Retention
from whyops_trace.store import Store
from whyops_trace.store.forwards import Forwards

_JSON: Final = "application/json"
_PROTOBUF: Final = "application/x-protobuf"
_TYPES: Final = re.compile(r"application/(json|x-protobuf|protobuf)\s*(;.*)?", re.IGNORECASE)
#: Reasons of refused spans that an answer names, and characters of them.
_REASONS: Final = 5
_REASON: Final = 300
#: Seconds between two looks at the traces that wait.
_PAUSE: Final = 0.25
#: Seconds that a server that ends goes on bringing traces into the store. The next one does the rest.
_LAST: Final = 5.0
#: The codes of gRPC for the statuses of HTTP, which are in the body of a refusal.
_CODES: Final = {400: 3, 404: 5, 405: 5, 413: 8, 415: 3, 503: 14}

Handler = Callable[[Request], Awaitable[Response]]


class Receiver:
    """
    The receiver of one home.

    Args:
        home: The home.
        retention: Limits of the store; None deletes nothing.
    """

    def __init__(self, home: Path, retention: Retention | None = None) -> None:
        processor = Processor(max_event_bytes=MAX_EVENT_BYTES, sample_rate=1)
        self._store = Store(home / STORE_FILE)
        forwards = False
        with told_once(StoreError):
            forwards = bool(Forwards(home).all())
        self._inbox = Inbox(home, processor, forwards=forwards)
        self._joiner = Joiner(self._inbox, self._store, processor, retention)
        self._waiting = asyncio.Event()

    def routes(self) -> list[RawRoute]:
        """Return its routes, with those of paths that exporters use by mistake."""
        handlers: list[tuple[str, Handler]] = [
            ("/v1/traces", self._take_spans),
            ("/v1/logs", self._take_logs),
            ("/v1/metrics", self._drop_metrics),
            ("/", _refuse_path),
            ("/v1/traces/{rest:path}", _refuse_path),
            ("/v1/logs/{rest:path}", _refuse_path),
            ("/{rest:path}/v1/traces", _refuse_path),
            ("/{rest:path}/v1/logs", _refuse_path),
            ("/{rest:path}/v1/metrics", _refuse_path),
            ("/opentelemetry.{rest:path}", _refuse_path),
        ]
        return [RawRoute(path, _with_refusals(handler), methods=["POST"]) for path, handler in handlers]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Bring traces that wait into the store, those that an earlier server left included."""
        joining = asyncio.create_task(self._join())
        try:
            yield
        finally:
            joining.cancel()
            await asyncio.wait([joining])
            await anyio.to_thread.run_sync(self._joiner.join_all, _LAST)
            self._inbox.close()
            self._store.close()

    async def _join(self) -> None:
        join_due = guarded("bringing traces of OpenTelemetry into the store")(self._joiner.join_due)
        while True:
            waits = await anyio.to_thread.run_sync(join_due)
            if waits:
                await asyncio.sleep(_PAUSE)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._waiting.wait(), SWEEP)
            self._waiting.clear()

    async def _take_spans(self, request: Request) -> Response:
        return await self._take(request, protobuf.read_spans)

    async def _take_logs(self, request: Request) -> Response:
        return await self._take(request, protobuf.read_logs)

    async def _take(self, request: Request, read: Callable[[bytes], Batch]) -> Response:
        body = await read_body(request, content_type=_TYPES)
        is_json = _is_json(request)
        refused, waits = await anyio.to_thread.run_sync(
            self._store_body, body, read_json if is_json else read
        )
        if waits:
            self._waiting.set()
        return _accepted(
            refused, is_json=is_json, item="Spans" if read is protobuf.read_spans else "LogRecords"
        )

    def _store_body(self, body: bytes, read: Callable[[bytes], Batch]) -> tuple[list[str], bool]:
        batch = read(body)
        return batch.refused, self._joiner.arrived(self._inbox.add(batch))

    async def _drop_metrics(self, request: Request) -> Response:
        await read_body(request, content_type=_TYPES)
        warn_once(
            "otlp: metrics",
            "Metrics of OpenTelemetry are not kept; OTEL_METRICS_EXPORTER=none spares sending them.",
        )
        return _accepted([], is_json=_is_json(request), item="DataPoints")


def _is_json(request: Request) -> bool:
    return "json" in request.headers.get("content-type", "").lower()


def _with_refusals(handler: Handler) -> Handler:
    """Return a handler that answers a request with its error, if it has one, in the form of OTLP."""

    @functools.wraps(handler)
    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except BodyError as error:
            return _refusal(request, error.status, str(error))
        except MalformedError as error:
            return _refusal(request, 400, str(error))
        except ModuleNotFoundError:
            return _refusal(
                request,
                415,
                "This server reads no protobuf: set OTEL_EXPORTER_OTLP_PROTOCOL=http/json for the program that sends,"
                f" or {install_hint('otel')}.",
            )
        except StoreError as error:
            return _refusal(request, 503, str(error))

    return answered


async def _refuse_path(request: Request) -> Response:
    base = f"{request.url.scheme}://{request.headers['host']}"
    raise BodyError(
        405 if request.scope["path"] == "/" else 404,
        f"OTLP is not at {request.scope['path']} here: set OTEL_EXPORTER_OTLP_ENDPOINT={base} and"
        f" OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={base}/v1/traces."
        " gRPC is not spoken.",
    )


def _accepted(refused: list[str], *, is_json: bool, item: str) -> Response:
    """Return the answer of OTLP to a request, with the number of refused items and some of the reasons."""
    reasons = "; ".join(dict.fromkeys(reason[:_REASON] for reason in refused[: 10 * _REASONS]))
    if is_json:
        partial = {"partialSuccess": {f"rejected{item}": str(len(refused)), "errorMessage": reasons}}
        return Response(msgspec.json.encode(partial if refused else {}), 200, media_type=_JSON)
    told = _varint_field(1, len(refused)) + _text_field(2, reasons) if refused else b""
    return Response(_bytes_field(1, told) if told else b"", 200, media_type=_PROTOBUF)


def _refusal(request: Request, status: int, message: str) -> Response:
    """Return a refusal, whose body is a ``google.rpc.Status``."""
    code = _CODES.get(status, 2)
    headers = {503: {"retry-after": "5"}, 405: {"allow": "GET, HEAD"}}.get(status, {})
    if _is_json(request) or status in (404, 405):
        about: dict[str, Any] = {"code": code, "message": message}
        return Response(msgspec.json.encode(about), status, headers, media_type=_JSON)
    return Response(_varint_field(1, code) + _text_field(2, message), status, headers, media_type=_PROTOBUF)


# The three messages that are answered have two members each, so none needs a library.


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*digits, number))


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _text_field(number: int, text: str) -> bytes:
    return _bytes_field(number, text.encode("utf-8", "replace"))
