"""
The local collector: the API of a WhyOps server in front of the local store.

Any WhyOps SDK can report to it. Its answers have the form of the server's, with three differences. Accepted events are
stored before the answer. Events that cannot be stored are refused, with the reason. All traces are kept, at any
sampling rate.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from whyops_trace._checks import MAX_NAME
from whyops_trace._clock import SystemClock, iso
from whyops_trace._database import UnstorableError
from whyops_trace._home import STORE_FILE
from whyops_trace._shapes import text_of
from whyops_trace._version import __version__
from whyops_trace.exceptions import StoreError, TraceNotFoundError
from whyops_trace.server.agents import AgentInit, SamplingRate, issue
from whyops_trace.server.analyses import Analyses, AnalysisRequest
from whyops_trace.server.bodies import BodyError, read_body
from whyops_trace.server.forwarding import status_of
from whyops_trace.server.routing import RawRoute
from whyops_trace.server.threads import (
    event_id,
    event_number,
    pagination,
    told_event,
    told_graph,
    told_summary,
    told_thread,
)
from whyops_trace.server.wire import RefusedError, SentToolResult, read_events
from whyops_trace.server.writer import Writer
from whyops_trace.settings import Retention
from whyops_trace.store import Filter, Store
from whyops_trace.store.collection import SentEvent, Stored

#: Bytes above which a body is decoded in a thread, since that takes a millisecond and more.
_LONG: Final = 64 << 10

Handler = Callable[[Request], Awaitable[Response]]


def routes(store: Store, retention: Retention | None = None, home: Path | None = None) -> list[RawRoute]:
    """
    Return the API of one store.

    Args:
        store: The store for reading. Writes go through a connection of their own.
        retention: Limits of the store, applied when events are stored; None deletes nothing.
        home: The home to write to, if *store* is a copy of its store.
    """
    return _Collector(store, retention, home or store.path.parent).routes()


def _answer(status: int, body: object) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def _with_refusals(handler: Handler) -> Handler:
    """Return a handler that answers a request with its error, if it has one."""

    @functools.wraps(handler)
    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except RefusedError as refused:
            return _answer(400, refused.answer)
        except BodyError as error:
            details = [{"field": "", "message": str(error), "code": "invalid_body"}]
            return _answer(error.status, {"success": False, "error": str(error), "details": details})
        except TraceNotFoundError as error:
            return _answer(404, {"success": False, "error": str(error)})
        except UnstorableError as error:
            return _answer(400, {"success": False, "error": f"An event cannot be stored: {error}"})
        except StoreError as error:
            return _answer(503, {"success": False, "error": str(error)})

    return answered


class _Collector:
    def __init__(self, store: Store, retention: Retention | None, home: Path) -> None:
        self._store = store
        self._home = home
        self._write_store = Store(home / STORE_FILE)
        self._writer = Writer(self._write_store, retention)
        self._analyses = Analyses(store)

    def routes(self) -> list[RawRoute]:
        handlers: list[tuple[str, str, Handler]] = [
            ("POST", "/api/events", self._add_events),
            ("POST", "/api/events/ingest", self._ingest),
            ("POST", "/api/events/tool-result", self._add_tool_results),
            ("GET", "/api/events", self._list_events),
            ("GET", "/api/events/{event_id}", self._show_event),
            ("GET", "/api/threads", self._list_threads),
            ("GET", "/api/threads/{trace_id:path}/graph", self._show_graph),
            ("GET", "/api/threads/{trace_id:path}", self._show_thread),
            ("POST", "/api/analyses", self._analyse),
            ("GET", "/api/analyses/trace/{trace_id:path}", self._list_analyses),
            ("GET", "/api/analyses/{analysis_id}", self._show_analysis),
            ("PATCH", "/api/entities/{agent_id}/sampling-rate", self._sampling_rate),
            ("GET", "/api/health", self._health),
        ]
        # SDKs register at the server of events, and at the proxy, whose address may end in /api as well.
        inits = ("/api/entities/init", "/v1/agents/init", "/api/v1/agents/init")
        handlers += [("POST", path, self._init) for path in inits]
        return [
            RawRoute(path, _with_refusals(handler), methods=[method]) for method, path, handler in handlers
        ]

    # Reports of clients

    async def _add_events(self, request: Request) -> Response:
        results, is_array = await self._take(request, SentEvent)
        outcomes = [_outcome(each) for each in results]
        return _answer(201, outcomes if is_array else outcomes[0])

    async def _add_tool_results(self, request: Request) -> Response:
        results, is_array = await self._take(request, SentToolResult)
        outcomes = [_outcome(each) for each in results]
        return _answer(201, outcomes if is_array else outcomes[0])

    async def _ingest(self, request: Request) -> Response:
        results, _ = await self._take(request, SentEvent)
        return _answer(202, {"success": True, "accepted": True, "queuedCount": len(results)})

    async def _take(self, request: Request, kind: type[SentEvent]) -> tuple[Sequence[Stored], bool]:
        body = await read_body(request)
        if len(body) > _LONG:
            events, is_array = await anyio.to_thread.run_sync(read_events, body, kind)
        else:
            events, is_array = read_events(body, kind)
        user = request.headers.get("x-external-user-id", "")[:MAX_NAME]
        if user:
            for event in events:
                event.external_user_id = event.external_user_id or user
        return (await self._writer.store(events, len(body)) if events else []), is_array

    async def _init(self, request: Request) -> Response:
        try:
            init = msgspec.json.decode(await read_body(request), type=AgentInit)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _answer(400, _issue(error))
        definition = msgspec.json.encode(init.metadata)
        version, created = await anyio.to_thread.run_sync(
            self._write_store.register_agent, init.agent_name, definition
        )
        answer = {
            "success": True,
            "agentId": version.agent_id,
            "agentVersionId": version.version_id,
            "status": "created" if created else "existing",
            "versionHash": version.hash,
        }
        return _answer(201 if created else 200, answer)

    async def _sampling_rate(self, request: Request) -> Response:
        try:
            rate = msgspec.json.decode(await read_body(request), type=SamplingRate)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _answer(400, _issue(error))
        agent_id = request.path_params["agent_id"]
        agents = await anyio.to_thread.run_sync(self._store.agents)
        versions = [version for version in agents if version.agent_id == agent_id]
        if not versions:
            return _answer(404, {"success": False, "error": "Agent not found"})
        answer = {
            "success": True,
            "agentId": agent_id,
            "samplingRate": 1.0,
            "updatedVersions": 0,
            "latestVersionId": versions[0].version_id,
            "updatedAt": iso(versions[0].made_at * 1_000_000_000),
        }
        if rate.sampling_rate < 1:
            answer["message"] = "This collector keeps every trace; the rate that was asked for is not obeyed."
        return _answer(200, answer)

    # Stored events

    async def _list_events(self, request: Request) -> Response:
        query = request.query_params
        trace_id = query.get("traceId") or query.get("threadId") or None
        limit, offset = _number(query.get("limit"), 100, 1, 200), _number(query.get("offset"), 0, 0)
        events, total = await anyio.to_thread.run_sync(self._store.latest, trace_id, limit, offset)
        included = _included(query.get("include"))
        items = [told_event(event, included) for event in events]
        return _answer(200, {"events": items, "pagination": pagination(total, limit, offset)})

    async def _show_event(self, request: Request) -> Response:
        number = event_number(request.path_params["event_id"])
        matches = await anyio.to_thread.run_sync(self._store.all_after, number - 1, 1) if number else []
        if not matches or matches[0].number != number:
            return _answer(404, {"error": "Event not found"})
        return _answer(200, told_event(matches[0], _included(request.query_params.get("include"))))

    async def _list_threads(self, request: Request) -> Response:
        query = request.query_params
        count, page = _number(query.get("count"), 20, 1, 100), _number(query.get("page"), 1, 1, 10_000)
        where = Filter(
            agent=query.get("agentName") or None,
            user=query.get("externalUserId") or None,
            since=query.get("startDate") or None,
            until=query.get("endDate") or None,
        )
        return await anyio.to_thread.run_sync(self._threads, where, count, page)

    def _threads(self, where: Filter, count: int, page: int) -> Response:
        total = self._store.counts(where).total
        summaries = self._store.traces(count * page, where=where)[count * (page - 1) :]
        agents = self._store.agents()
        part = {"total": total, "count": count, "page": page, "totalPages": -(-total // count)}
        answer = {
            "success": True,
            "threads": [told_summary(summary, agents) for summary in summaries],
            "pagination": {**part, "hasMore": page * count < total},
        }
        return _answer(200, answer)

    async def _show_thread(self, request: Request) -> Response:
        query = request.query_params
        thread = await anyio.to_thread.run_sync(
            told_thread,
            self._store,
            request.path_params["trace_id"],
            _included(query.get("eventInclude")),
            _number(query.get("eventLimit"), 200, 1, 1000),
            _number(query.get("eventOffset"), 0, 0),
        )
        return _answer(200, {"success": True, **thread})

    async def _show_graph(self, request: Request) -> Response:
        trace_id = request.path_params["trace_id"]
        await anyio.to_thread.run_sync(self._store.trace, trace_id)
        graph = await anyio.to_thread.run_sync(told_graph, self._store, trace_id)
        return _answer(200, {"threadId": trace_id, "graph": graph})

    async def _analyse(self, request: Request) -> Response:
        try:
            analysis_request = msgspec.json.decode(await read_body(request), type=AnalysisRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _answer(400, _issue(error))
        analysis = await anyio.to_thread.run_sync(self._analyses.make, analysis_request)
        return _answer(201, {"success": True, "analysis": analysis})

    async def _list_analyses(self, request: Request) -> Response:
        analyses = await anyio.to_thread.run_sync(self._analyses.of_trace, request.path_params["trace_id"])
        return _answer(200, {"success": True, "analyses": analyses})

    async def _show_analysis(self, request: Request) -> Response:
        analysis = self._analyses.get(request.path_params["analysis_id"])
        if analysis is None:
            return _answer(404, {"success": False, "error": "Analysis not found"})
        return _answer(200, {"success": True, "analysis": analysis})

    async def _health(self, _: Request) -> Response:
        about: dict[str, Any] = {"status": "healthy", "service": "whyops-trace", "version": __version__}
        about |= {"home": str(self._home), "timestamp": iso(SystemClock.time_ns())}
        if forwarded := await anyio.to_thread.run_sync(status_of, self._home):
            about["forward"] = [each._asdict() for each in forwarded]
        return _answer(200, about)


def _outcome(result: Stored) -> dict[str, Any]:
    outcome = {"id": event_id(result.number), "status": result.status, "stepId": result.step}
    if result.status == "skipped":
        outcome |= {"parentStepId": result.parent, "spanId": result.span}
        return {**outcome, "message": "Event already exists (idempotency check)"}
    if result.parent is not None:
        outcome["parentStepId"] = result.parent
    return {**outcome, "spanId": result.span}


def _issue(error: Exception) -> dict[str, Any]:
    if isinstance(error, msgspec.DecodeError):
        return issue(error)
    return issue(msgspec.DecodeError("The body is no JSON that can be read"))


def _included(names: str | None) -> frozenset[str]:
    return frozenset(name.strip() for name in text_of(names).split(","))


def _number(text: str | None, default: int, least: int, most: int = 2**53) -> int:
    """Return a number of a query within bounds, the default for any other text."""
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 15:
        return default
    return max(least, min(int(text), most))
