"""
Replay of a recorded run: decorated functions and traced clients answer from the recording, and nothing else runs.

::

    with replay("checkout-8841") as run:
        agent("refund order 8841")

    assert run.divergence is None

A replay is as good as what was recorded. ``docs/explanation/replay.md`` tells what it proves, and what it does not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from whyops_trace._checks import MAX_ID
from whyops_trace._home import STORE_FILE, home_directory, make_private
from whyops_trace._replay.branching import Answer, Branch, branch, check_answers
from whyops_trace._replay.checks import Run, check_same_tree, tree_of
from whyops_trace._replay.failures import in_words
from whyops_trace._replay.finder import Divergence, Match
from whyops_trace._replay.loading import Source, load
from whyops_trace._replay.names import names_of
from whyops_trace._replay.session import Session
from whyops_trace._shapes import dict_of
from whyops_trace.default import default_recorder
from whyops_trace.exceptions import ConfigurationError, RecordedError, ReplayError, ReplayMiss, StoreError
from whyops_trace.store import Store

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True

__all__ = [
    "Answer",
    "Divergence",
    "Match",
    "RecordedError",
    "Replay",
    "ReplayError",
    "ReplayMiss",
    "Run",
    "Source",
    "replay",
]

#: Lines of drift and of unused calls that an error names.
_NAMED: Final = 10


class Replay(Run):
    """
    One replay, open in a ``with`` block, and assertions about what the agent did in it.

    Guarantees: a call that nothing answers raises :class:`~whyops_trace.exceptions.ReplayMiss`, which is raised again
    when the block ends, whatever caught it. Inside the block nothing is delivered. Python's own sockets and new
    processes are refused, unless a call that is listed as live makes them, or the run has left its recording.

    Attributes:
        source: The id of the recorded trace.
        trace_id: The id of the replay, under which it is stored; "" before the block ends, and if it is not stored.
        events: The records of the replay.
    """

    def __init__(
        self, session: Session, match: Match, home: str | os.PathLike[str] | None, *, stores: bool
    ) -> None:
        self._session = session
        self._match = match
        self._home = home
        self._stores = stores
        self._is_used = False
        self.source: str = session.recording.source
        self.trace_id: str = ""
        self.events: list[dict[str, Any]] = session.events

    @property
    def live_from(self) -> int:
        """The step of the first call behind ``until`` that ran; 0 if none did."""
        return self._session.live_from

    @property
    def divergence(self) -> Divergence | None:
        """The first call that the recording does not have, None if there is none."""
        return self._session.finder.divergence

    @property
    def drift(self) -> list[str]:
        """The differences though the calls are the same: the texts of prompts, and the places and order of calls."""
        return self._session.finder.drift

    @property
    def unused(self) -> list[str]:
        """The recorded calls that answered nothing, in words."""
        return [str(call) for call in self._session.finder.unused]

    @property
    def notes(self) -> list[str]:
        """Further differences in words, such as tools that are not decorated and so ran."""
        return self._session.notes

    def matches_tree(self) -> None:
        """Assert that the calls are those of the recording, each within the same one."""
        __tracebackhide__ = True
        check_same_tree(tree_of(self._session.recording.calls), tree_of(self._session.calls), self._fail)

    def __enter__(self) -> Self:
        if self._is_used:
            raise RuntimeError("A replay can be opened once; call replay() again for another one.")
        self._session.open()
        self._is_used = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.close()
        left_at = self._session.branch
        if self._stores and (left_at is None or self._session.has_left):
            try:
                self._store()
            except (StoreError, OSError) as failure:
                self.notes.append(f"The replay is not stored: {failure}")
        miss = self._session.miss
        if miss is not None and miss is not error:
            raise miss from error
        if left_at is not None:
            ends = error is None or isinstance(error, Exception | SystemExit)  # Ctrl-C and the like go on
            if miss is None and ends and not (self._session.has_left and self.events):
                raise ReplayMiss(self._told_end(left_at, error)) from error
        elif error is None and self._match == "strict":
            self._check_strictly()
        elif unknown := self._session.unknown:
            self.notes.append(f"live= and swap= name what no call was made of: {', '.join(unknown)}.")

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _told_end(self, left_at: Branch, error: BaseException | None) -> str:
        """Return why a run did not come to the step at which it would have left its recording."""
        ending = ""
        if isinstance(error, SystemExit):
            ending = f": it exited with {error.code!r}"
        elif error is not None:
            ending = f": it raised {in_words(error)}".rstrip(".")
        told = f"The run ended before step {left_at.call.step}, {left_at.call}{ending}."
        if not self.unused:
            return told
        return "\n  - ".join([f"{told} These recorded calls were not made:", *self.unused[:_NAMED]])

    def _check_strictly(self) -> None:
        told = []
        for what, lines in (
            ("These names in live= and swap= are of no call that was made", self._session.unknown),
            ("These recorded calls were not made in the replay", self.unused),
            ("The replay asks something else than the recording, or in another order", self.drift),
        ):
            if lines:
                more = [f"… and {len(lines) - _NAMED} more"] if len(lines) > _NAMED else []
                told.append("\n  - ".join([f"{what}:", *lines[:_NAMED], *more]))
        if told:
            raise ReplayMiss("\n".join(told))

    def _store(self) -> None:
        """Store the replay as traces of their own, each linked to the recorded one."""
        left_at, kind = self._session.branch, "replay"
        link: dict[str, Any] = {"replayOf": self.source}
        if left_at is not None:
            kind = "whatif"
            link["whatIf"] = f"#{left_at.call.step} {left_at.call} {left_at.answer or 'runs again'}"
            link["liveFrom"] = self.live_from
        recorder = default_recorder()
        token = recorder.token if recorder is not None else ""
        names: dict[str, str] = {}
        lines = []
        for recorded in self.events:
            trace = recorded["traceId"]
            is_first = trace not in names
            if is_first:
                number = f"-{len(names) + 1}" if names else ""
                names[trace] = f"{kind}{number}-{_suffix(recorded)}-{self.source}"[:MAX_ID]
            event = {**recorded, "traceId": names[trace]}
            if is_first:
                about = dict_of(event["metadata"].get("trace"))
                linked = {**about, "metadata": {**dict_of(about.get("metadata")), **link}}
                event["metadata"] = {**event["metadata"], "trace": linked}
            lines.append(msgspec.json.encode(event) + b"\n")
        if lines:
            home = home_directory(self._home)
            make_private(home)
            with closing(Store(home / STORE_FILE)) as store:
                store.ingest((token, lines))
            self.trace_id = next(iter(names.values()))


def _suffix(event: Mapping[str, Any]) -> str:
    """Return what tells this replay from others of the same trace: the key of its first record."""
    return re.sub(r"[^\w-]", "", str(event["idempotencyKey"]))


def replay(
    source: Source,
    *,
    match: Match = "strict",
    live: Iterable[str | Callable[..., Any]] = (),
    swap: Mapping[str, Callable[..., Any]] | None = None,
    normalise: Callable[[str], str] | None = None,
    network: bool = False,
    store: bool = True,
    home: str | os.PathLike[str] | None = None,
    until: int | None = None,
    answer: Answer | None = None,
) -> Replay:
    """
    Return a replay of a recorded trace, to be opened with ``with`` or ``async with``.

    In the block every call of a decorated function and every request of a traced client is answered with what it
    returned, yielded or raised when it was recorded. A call is the recorded one of the same name and arguments, in
    the order they came, below the same call. A request to a model is told by who spoke, which tools were called and
    offered, and the parameters; other texts are drift. A decorated function runs if calls of models are inside it.

    Args:
        source: The id of a trace in the local store, its beginning, or "latest"; the file of a fixture; or events, as
            ``capture_events(local=True)`` collects them.
        match: ``"strict"`` to fail at the end for drift, for recorded calls that were not made, and for names in *live*
            and *swap* that nothing has. ``"first"`` to
            answer a call that is not in the recording with the first one of its name there.
        live: What runs: functions, or the names by which they are recorded; of clients ``"chat.completions"``,
            ``"responses"``, ``"messages"`` or ``"embeddings"``.
        swap: Functions that answer, by the name of what they answer. They get its arguments, without self, and may be
            coroutine functions where it is one. For a client it gets the body of the request, and returns the JSON of
            an answer.
        normalise: Function from a text to one without what differs each time, such as dates and ids. Questions are
            compared after it.
        network: True to leave the network open to code that is not traced.
        store: False to store nothing. Else the replay is stored as a trace of its own, whose metadata has the id of
            the recorded one as ``replayOf``.
        home: The home of the store; None for that of this user.
        until: Step of a recorded call behind which everything runs: models are asked and tools do what they do. The
            calls before it are answered, and have to be those of the recording; texts of prompts may differ. *swap*
            answers what comes behind it, and before it what the recording cannot answer.
        answer: The answer to that call; None if it runs as well.

    Raises:
        TraceNotFoundError: if the store has no such trace.
        StoreError: if the store cannot be read.
        ReplayError: if the recording still runs, holds no calls, is no fixture of this version, has no call at the step
            *until*, or cannot answer one before it.
        ConfigurationError: if *match* is another word, *answer* is given without *until* or is no :class:`Answer`,
            *until* is no whole number, *normalise* is no function, or *swap* has something else than functions.
    """
    if match not in ("strict", "first"):
        raise ConfigurationError(f"match is {match!r}; it must be 'strict' or 'first'.")
    if answer is not None and until is None:
        raise ConfigurationError("answer goes with until, the step of the call that it answers.")
    if not (normalise is None or callable(normalise)):
        raise ConfigurationError(
            f"normalise is {normalise!r:.80}; it must be a function from a text to a text."
        )
    for name, function in dict(swap or {}).items():
        if not callable(function):
            raise ConfigurationError(
                f"swap has {function!r:.80} for {name!r}; it must be a function that returns that: lambda *_, **__: …"
            )
    recording, names = load(source, home), names_of(live)
    found = None if until is None else branch(recording, until, answer)
    if found is not None:
        recording = found.recording
        check_answers(found, names | frozenset(swap or ()))
    session = Session(recording, match, names, dict(swap or {}), normalise, network=network, branch=found)
    return Replay(session, match, home, stores=store)
