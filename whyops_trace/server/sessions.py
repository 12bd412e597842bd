"""The traces of one user, thread or value in their metadata as one conversation, and what changed between them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from whyops_trace.exceptions import StoreError, TraceNotFoundError
from whyops_trace.server import pages
from whyops_trace.server.assets import Renderer
from whyops_trace.server.readings import Readings
from whyops_trace.store import Filter, Store, TraceSummary
from whyops_trace.story import Story

#: Number of traces on a page.
PAGE: Final = 50
#: Largest number of events of a trace that is compared with the one before it: a few milliseconds.
COMPARED: Final = 2_000
#: Largest number of lines of a difference.
_LINES: Final = 400


class Setup(NamedTuple):
    """The system prompt, the tools on offer and the models of a trace."""

    system: str
    tools: Sequence[str]
    models: Sequence[str]


class Change(NamedTuple):
    """
    A difference between a trace and the one before it.

    Attributes:
        what: What differs.
        summary: The difference in words.
        diff: Lines of a unified diff, without its header.
    """

    what: str
    summary: str
    diff: Sequence[str] = ()


@dataclass(slots=True)
class Episode:
    """A trace in a conversation over many, with what changed since the one before it."""

    row: pages.Row
    changes: list[Change] = field(default_factory=list)


def url(by: str, value: str = "", after: str = "") -> str:
    """Return the address of the conversations of a kind, or of one of them."""
    params = {name: one for name, one in (("by", by), ("of", value), ("after", after)) if one}
    return f"/sessions?{urlencode(params, errors='replace')}"


def routes(store: Store, renderer: Renderer) -> list[Route]:
    """
    Return the route of the conversations.

    Args:
        store: The store of the traces.
        renderer: Renderer of the template.
    """
    readings = Readings(store)

    async def endpoint(request: Request) -> Response:
        params = request.query_params
        by, value, after = (params.get(name, "").strip() for name in ("by", "of", "after"))
        by = by or "user"
        try:
            kinds = ["user", "thread", *await to_thread.run_sync(store.metadata_keys)]
            context: dict[str, Any] = {
                "by": by,
                "value": value,
                "kinds": kinds if by in kinds else [*kinds, by],
                "url": url,
            }
            if not value:
                sessions = await to_thread.run_sync(store.sessions, by)
                return renderer.page("sessions.html", sessions=sessions, when=pages.when, **context)
            episodes, older = await _episodes(store, readings, by, value, after)
            return renderer.page("session.html", episodes=episodes, older=older, after=after, **context)
        except StoreError as error:
            return renderer.page("problem.html", 503, problem=str(error))

    return [Route("/sessions", endpoint)]


async def _episodes(
    store: Store, readings: Readings, by: str, value: str, after: str
) -> tuple[list[Episode], str]:
    """Return the latest traces of a conversation in the order of time, and the address of earlier ones, "" for none."""
    where = Filter(session=(by, value))
    try:
        latest = await to_thread.run_sync(lambda: store.traces(PAGE + 1, after or None, where=where))
    except TraceNotFoundError:  # deleted meanwhile
        latest = await to_thread.run_sync(lambda: store.traces(PAGE + 1, where=where))
    shown = latest[PAGE - 1 :: -1] if len(latest) > PAGE else latest[::-1]
    turns = await to_thread.run_sync(store.turn_tokens, [trace.trace_id for trace in shown])
    episodes = []
    before = await _setup_of(readings, latest[PAGE]) if len(latest) > PAGE else None
    for trace in shown:
        setup = await _setup_of(readings, trace)
        episode = Episode(pages.row(trace, turns.get(trace.trace_id, [])))
        if before is not None and setup is not None:
            episode.changes = changes(before, setup)
        episodes.append(episode)
        before = setup or before
    return episodes, url(by, value, shown[0].trace_id) if len(latest) > PAGE else ""


async def _setup_of(readings: Readings, trace: TraceSummary) -> Setup | None:
    """Return the setup of a trace, None if it has none or is too long to be read for that."""
    if trace.event_count > COMPARED:
        return None
    try:
        return setup((await readings.get(trace.trace_id)).story)
    except TraceNotFoundError:
        return None


def setup(story: Story) -> Setup | None:
    """Return the setup with which a trace began, and all models in it; None if no model was called."""
    turns = [section.turn for section in story.sections if section.turn]
    if not turns:
        return None
    models = dict.fromkeys(turn.node.model or turn.node.name for turn in turns)
    return Setup(turns[0].system, turns[0].offered, list(models))


def changes(before: Setup, after: Setup) -> list[Change]:
    """Return the differences between the setups of two traces."""
    found = []
    if before.system != after.system:
        lines = difflib.unified_diff(before.system.splitlines(), after.system.splitlines(), lineterm="", n=2)
        diff = [*lines][2 : 2 + _LINES]
        verb = "edited" if before.system and after.system else "removed" if before.system else "added"
        found.append(Change("System prompt", verb, diff))
    if set(before.tools) != set(after.tools):
        added = [f"+ {name}" for name in after.tools if name not in before.tools]
        removed = [f"- {name}" for name in before.tools if name not in after.tools]
        found.append(Change("Tools", f"{len(added)} added, {len(removed)} removed", [*added, *removed]))
    if set(before.models) != set(after.models):
        found.append(Change("Model", f"{', '.join(before.models)} → {', '.join(after.models)}"))
    return found
