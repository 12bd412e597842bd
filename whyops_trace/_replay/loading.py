"""The recording to replay: from the local store, from a fixture, or from events at hand."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from whyops_trace._delivery.archive import readable
from whyops_trace._delivery.draining import take_in
from whyops_trace._home import STORE_FILE, home_directory, is_writable
from whyops_trace._replay.recording import Recording, read_calls
from whyops_trace.client import first_client
from whyops_trace.exceptions import ReplayError
from whyops_trace.store import Store

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True

#: A recording as a user names it: the id of a trace, the file of a fixture, or the events of a trace.
Source = str | os.PathLike[str] | Iterable[dict[str, Any]]


def load(source: Source, home: str | os.PathLike[str] | None) -> Recording:
    """
    Return a recording.

    Args:
        source: The id of a trace, the file of a fixture, or events.
        home: The home of the store; None for that of this user.

    Raises:
        TraceNotFoundError: if the store has no such trace.
        StoreError: if the store cannot be read.
        ReplayError: if the recording still runs, has no calls, or is a fixture that cannot be read.
    """
    if isinstance(source, os.PathLike) or (isinstance(source, str) and source.endswith(ENDING)):
        from whyops_trace._replay.fixture import read_fixture

        return read_fixture(Path(source))
    if isinstance(source, str):
        return load_trace(source, home_directory(home))
    events = list(source) if isinstance(source, Iterable) else [source]
    if not all(isinstance(event, dict) and "eventType" in event for event in events):
        raise ReplayError(
            f"{source!r:.80} is neither the id of a trace, nor the file of a fixture, nor the events of a trace."
        )
    # A program may change what it gets, and the events are the caller's.
    return _checked(read_calls(copy.deepcopy(events)), lambda _: False, "events")


#: The ending of a fixture's file.
ENDING = ".whyops"


def load_trace(trace: str, home: Path) -> Recording:
    """
    Return the recording of a trace in a home.

    Raises:
        TraceNotFoundError: if the store has no such trace.
        StoreError: if the store cannot be read.
        ReplayError: if it still runs, or has no calls.
    """
    client = first_client()
    if client is not None:
        client.flush_sync()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(readable(home))
        if is_writable(home):
            take_in(home)
        store = stack.enter_context(contextlib.closing(Store(place / STORE_FILE)))
        return of_store(store, store.resolve(trace))


def of_store(store: Store, trace_id: str) -> Recording:
    """
    Return the recording of a stored trace.

    Raises:
        TraceNotFoundError: if the store has no such trace.
        StoreError: if the store cannot be read.
        ReplayError: if it still runs, or has no calls.
    """
    return _checked(read_calls(store.events(trace_id)), store.ended_in(trace_id), trace_id)


def _checked(recording: Recording, has_ended: Callable[[str], bool], name: str) -> Recording:
    if not recording.calls:
        raise ReplayError(
            f"{name} has no calls of decorated functions or traced clients, so nothing can be replayed. Decorate the "
            "tools with @traced_tool, trace the client with sdk.openai(...) or sdk.anthropic(...), and record it again."
        )
    running = [call for call in recording.calls if call.outcome == "open"]
    processes = {str(event.get("idempotencyKey", "")).partition("-")[0] for event in recording.events}
    if running and not all(map(has_ended, processes)):
        raise ReplayError(
            f"{name} still runs: {running[0]} has not ended. Replay it when it has; "
            f"`whyops-trace show {recording.source} --follow` shows how far it is."
        )
    return recording
