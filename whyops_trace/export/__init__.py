"""
Exports of a trace: JSON for programs, Markdown for models and people.

Secrets are replaced when they are recorded, so no export holds them. ``docs/how-to/export.md`` describes the formats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from whyops_trace._version import __version__
from whyops_trace.analysis import findings
from whyops_trace.export.markdown import CHARACTERS, markdown
from whyops_trace.store import Store
from whyops_trace.story import provenance, tell

__all__ = [
    "CHARACTERS",
    "FORMAT",
    "MAX_TOKENS",
    "VERSION",
    "export_json",
    "export_markdown",
    "file_name",
    "json_pieces",
]

#: Name of the JSON format.
FORMAT: Final = "whyops-trace"
#: Version of the JSON format; it rises when a member changes its meaning or is removed.
VERSION: Final = 1
#: Default limit of tokens of an export as Markdown.
MAX_TOKENS: Final = 20_000


def export_json(store: Store, trace_id: str) -> str:
    """
    Return a trace as a JSON object, in ASCII, with one event a line.

    Args:
        store: The store of the trace.
        trace_id: Its id.

    Raises:
        TraceNotFoundError: if the store has no such trace.
        StoreError: if the store cannot be read.
    """
    return "".join(json_pieces(store, trace_id))


def json_pieces(store: Store, trace_id: str) -> Iterator[str]:
    """
    Yield what :func:`export_json` returns, in pieces: the text of a long trace takes more memory than its events.

    Args:
        store: The store of the trace.
        trace_id: Its id.

    Raises:
        TraceNotFoundError: if the store has no such trace.
        StoreError: if the store cannot be read.
    """
    summary = store.trace(trace_id)
    events = store.events(trace_id)
    is_gone = store.ended_in(trace_id)
    head = {"format": FORMAT, "version": VERSION, "writtenBy": f"whyops-trace {__version__}"}
    members = [f'"{name}": {json.dumps(member)}' for name, member in head.items()]
    members.append(f'"summary": {json.dumps(msgspec.to_builtins(summary))}')
    story = tell(events, is_gone)
    found = ",\n".join(json.dumps(msgspec.to_builtins(one)) for one in findings(events, is_gone, story=story))
    came = ",\n".join(
        json.dumps({"step": step, "arguments": [msgspec.to_builtins(origin) for origin in origins]})
        for step, origins in provenance(story).items()
    )
    del story
    yield "{" + ",\n".join((*members, f'"findings": [{found}]', f'"provenance": [{came}]', '"events": ['))
    events.reverse()
    separator = ""
    while events:  # each goes once it is written
        yield separator + json.dumps(events.pop())
        separator = ",\n"
    yield "]}\n"


def export_markdown(store: Store, trace_id: str, *, max_tokens: int = MAX_TOKENS) -> str:
    """
    Return a trace as Markdown: question, end, explanation, findings and transcript.

    Long texts are shortened evenly until everything fits, and failures stay complete.

    Args:
        store: The store of the trace.
        trace_id: Its id.
        max_tokens: Largest length of the text, in tokens of four characters.

    Raises:
        TraceNotFoundError: if the store has no such trace.
        StoreError: if the store cannot be read.
    """
    summary = store.trace(trace_id)
    events = store.events(trace_id)
    is_gone = store.ended_in(trace_id)
    story = tell(events, is_gone, priced=True)
    return markdown(summary, story, findings(events, is_gone, story=story), max_tokens)


def file_name(trace_id: str, ending: str) -> str:
    """
    Return the name of a file for a trace, valid on every system.

    Args:
        trace_id: The id of the trace.
        ending: The ending, such as ``json``.
    """
    stem = re.sub(r"[^\w.-]+", "_", trace_id).strip("._")
    return f"{stem or 'trace'}.{ending}"
