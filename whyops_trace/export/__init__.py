"""
A trace in a form that goes elsewhere: JSON for programs, Markdown for models and people.

Secrets are as they were recorded, which is replaced; see ``docs/export.md`` for the forms.
"""

from __future__ import annotations

import json
from typing import Final

import msgspec

from whyops_trace._version import __version__
from whyops_trace.analysis import findings
from whyops_trace.export.markdown import CHARACTERS, markdown
from whyops_trace.store import Store
from whyops_trace.story import tell

__all__ = ["CHARACTERS", "FORMAT", "MAX_TOKENS", "VERSION", "export_json", "export_markdown"]

#: What an export as JSON calls itself, and the version of its form: it rises when a member changes its meaning or goes.
FORMAT: Final = "whyops-trace"
VERSION: Final = 1
#: Tokens that an export as Markdown takes if nothing else is said.
MAX_TOKENS: Final = 20_000


def export_json(store: Store, trace_id: str) -> str:
    """
    Return a trace as a JSON object, in ASCII, an event a line.

    Args:
        store: Where it is.
        trace_id: Its id.

    Raises:
        TraceNotFoundError: if the store has no such trace.
        StoreError: if the store cannot be read.
    """
    summary = store.trace(trace_id)
    events = store.events(trace_id)
    found = findings(events, store.ended_in(trace_id))
    head = {"format": FORMAT, "version": VERSION, "writtenBy": f"whyops-trace {__version__}"}
    members = [f'"{name}": {json.dumps(member)}' for name, member in head.items()]
    members.append(f'"summary": {json.dumps(msgspec.to_builtins(summary))}')
    members.append(f'"findings": {_array([json.dumps(msgspec.to_builtins(one)) for one in found])}')
    members.append(f'"events": {_array([json.dumps(event) for event in events])}')
    return "{" + ",\n".join(members) + "}\n"


def export_markdown(store: Store, trace_id: str, *, max_tokens: int = MAX_TOKENS) -> str:
    """
    Return a trace as Markdown: what it was asked and how it ended, what explains it, findings, the transcript.

    Long texts are shortened evenly until all of it fits, and failures stay whole.

    Args:
        store: Where it is.
        trace_id: Its id.
        max_tokens: How long the text may be, of four characters a token.

    Raises:
        TraceNotFoundError: if the store has no such trace.
        StoreError: if the store cannot be read.
    """
    summary = store.trace(trace_id)
    events = store.events(trace_id)
    ended = store.ended_in(trace_id)
    return markdown(summary, tell(events, ended, priced=True), findings(events, ended), max_tokens)


def _array(lines: list[str]) -> str:
    return "[" + ",\n".join(lines) + "]"
