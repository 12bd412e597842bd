"""The figures of runs, wherever these are: in the store, in fixtures, or in exported files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec

from whyops_trace._clock import iso
from whyops_trace._reading.excerpt import Tokens, clean, elapsed
from whyops_trace._reading.prices import cost, total
from whyops_trace._reading.verdict import verdict_of
from whyops_trace._replay.fixture import is_part, read_fixture
from whyops_trace._replay.loading import ENDING
from whyops_trace._replay.recording import Recording
from whyops_trace._shapes import dict_of, list_of
from whyops_trace.analysis import findings
from whyops_trace.commands.common import tracked
from whyops_trace.export import FORMAT
from whyops_trace.store import Filter, Store, TraceSummary

#: Nanoseconds of the day on which turns without a time are priced: one for all, so that they compare.
_PRICED_AT: Final = 1_780_000_000_000_000_000
#: Members of a trace's metadata that tell what it has in common with its partner.
_KEYS: Final = ("replayOf", "test", "case")
#: What a terminal shows while runs are read.
_READING: Final = "reading runs"


class RunFigures(NamedTuple):
    """
    The figures of one run; None for what is not known of it.

    Attributes:
        key: What it has in common with its partner in another set: the trace that it replays, the ``test`` or ``case``
            in its metadata, or its file; "" for nothing.
        cost: Dollars.
        tokens: Tokens of prompts and answers.
        cached: The share of the tokens of prompts that came from a cache.
        turns: Turns of models.
        tools: Calls of tools.
        failures: Calls that failed, or said so.
        findings: What ``check`` finds.
        seconds: How long it took.
        failed: 1 if it ended with an error, else 0.
    """

    key: str
    cost: float | None
    tokens: float
    cached: float | None
    turns: float
    tools: float
    failures: float
    findings: float | None
    seconds: float | None
    failed: float


def select(store: Store, words: str, since: str | None) -> list[RunFigures]:
    """
    Return the figures of the runs that a user names.

    Args:
        store: The store of the traces.
        words: A file or folder; ``tag:``, ``agent:``, ``user:`` or a key of metadata with a colon, and the value; the
            beginning of ids with a ``*``; or an id, the beginning of one, or ``latest``.
        since: Earliest time of their latest records, None for any.

    Raises:
        click.ClickException: if there are none, or nothing is named.
        WhyOpsError: if one cannot be read.
    """
    path = Path(words)
    if not words.strip():
        raise click.UsageError("Name two sets of runs; one is empty.")
    if path.exists():
        files = _files(path)
        found = [_of_file(file, path) for file in tracked(files, _READING, len(files))]
        what = "it holds no recordings (.whyops) and no JSON exports (.json)"
    else:
        traces = [*_traces(store, words, since)]
        found = [_of_trace(store, trace) for trace in tracked(traces, _READING, len(traces))]
        what = "no such file is there, and no stored trace" + (f" since {since[:16]}" if since else "")
        what += " fits; whyops-trace ls lists what there is"
    if not found:
        raise click.ClickException(f"There are no runs in {clean(words)}: {what}.")
    return found


def _traces(store: Store, words: str, since: str | None) -> Iterator[TraceSummary]:
    by, colon, value = words.partition(":")
    if words.endswith("*"):
        beginning = words.removesuffix("*")
        yield from (each for each in store.each(Filter(since=since)) if each.trace_id.startswith(beginning))
    elif colon and words not in store.known([words]):
        chosen = {
            "tag": Filter(since=since, tag=value),
            "agent": Filter(since=since, agent=value),
            "user": Filter(since=since, user=value),
        }
        yield from store.each(chosen.get(by) or Filter(since=since, session=(by, value)))
    else:
        yield store.trace(store.resolve(words))


def _of_trace(store: Store, trace: TraceSummary) -> RunFigures:
    found = findings(store.events(trace.trace_id), store.ended_in(trace.trace_id))
    return _of_summary(trace, len(found), "")


def _of_summary(trace: TraceSummary, found: int, name: str) -> RunFigures:
    tokens = trace.tokens
    took = None if trace.running else elapsed(trace.started_at, trace.last_at)
    return RunFigures(
        key=next((str(trace.metadata[one]) for one in _KEYS if trace.metadata.get(one)), name),
        cost=trace.cost,
        tokens=tokens.total,
        cached=tokens.cache_read / tokens.sent if tokens.sent else None,
        turns=trace.llm_responses,
        tools=trace.tool_calls,
        failures=trace.errors + trace.said_failed,
        findings=found,
        seconds=None if took is None else took / 1_000,
        failed=float(trace.failed),
    )


def _files(path: Path) -> list[Path]:
    """Return a file, or the fixtures and exports in a folder."""
    if not path.is_dir():
        return [path]
    found = (each for each in path.rglob("*") if each.suffix in (ENDING, ".json") and each.is_file())
    return sorted(each for each in found if not is_part(each))


def _of_file(file: Path, path: Path) -> RunFigures:
    name = file.relative_to(path).as_posix() if path.is_dir() else file.name
    return _of_recording(read_fixture(file), name) if file.suffix == ENDING else _of_export(file, name)


def _of_export(file: Path, name: str) -> RunFigures:
    try:
        export = dict_of(json.loads(file.read_bytes()))
        if export.get("format") != FORMAT:
            raise ValueError("it is of another format")
        trace = msgspec.convert(export.get("summary"), TraceSummary)
        run = _of_summary(trace, len(list_of(export.get("findings"))), name)
        if not all(each is None or isfinite(each) for each in run[1:]):
            raise ValueError("a figure in it is no number")
    except (ValueError, OverflowError, RecursionError) as error:
        raise click.ClickException(
            f"{clean(str(file))} is no trace that `whyops-trace export --json` wrote: {clean(str(error))}"
        ) from error
    return run


def _of_recording(recording: Recording, name: str) -> RunFigures:
    turns = [call for call in recording.calls if call.kind == "llm" and not call.wraps]
    asked = [
        call for call in recording.calls if call.kind != "tool" and not call.wraps and call.error is None
    ]
    tokens = Tokens()
    for call in asked:
        tokens = tokens.plus(Tokens.of(call.usage))
    amount = total(cost(call.model, call.provider, call.usage, iso(_PRICED_AT)) for call in asked)
    tools = [call for call in recording.calls if call.kind == "tool"]
    said = [verdict_of(None, call.answer) for call in tools if call.error is None]
    failures = sum(call.error is not None for call in recording.calls)
    last = next((call for call in reversed(recording.calls) if call.parent is None), None)
    return RunFigures(
        key=name,
        cost=None if amount is None else float(amount),
        tokens=tokens.total,
        cached=tokens.cache_read / tokens.sent if tokens.sent else None,
        turns=len(turns),
        tools=len(tools),
        failures=failures + sum(one is not None and one.kind == "failed" for one in said),
        findings=None,
        seconds=None,
        failed=float(last is not None and last.error is not None),
    )
