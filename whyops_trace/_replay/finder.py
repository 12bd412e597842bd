"""The recorded call that a call of a replay is, and what is told where there is none."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from whyops_trace._replay.matching import differences, distance, key, nearest, normalised
from whyops_trace._replay.recording import RecordedCall, Recording, around

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True

Match = Literal["strict", "first"]
#: Calls that were not made which are named.
_SKIPPED: Final = 5


@dataclass(frozen=True)
class Divergence:
    """
    The first call of a replay that the recording does not have.

    Attributes:
        call: The call, in words.
        recorded: The recorded call that is most like it, in words; "" if none of its name is left.
        differences: The places at which the two differ.
        tree: The recorded calls around that place, a line each; those that were replayed have a check mark.
        agent: The agent of the recording if nothing of it answered a call before, else "".
        skipped: The recorded calls before that one which were not made, in words.
        silent: Names of calls answered before that returned nothing, and may have changed their arguments instead.
    """

    call: str
    recorded: str
    differences: tuple[str, ...]
    tree: str
    agent: str = ""
    skipped: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.call} is not in the recording."]
        if self.recorded:
            lines += [
                f"The nearest one there is {self.recorded}:",
                *(f"  - {each}" for each in self.differences),
            ]
        else:
            lines.append("No call of that name is left there.")
        if self.agent and not self.recorded:
            lines.append(f"Nothing of the recording was replayed before: it is of agent {self.agent!r}.")
        if self.skipped:
            lines.append(f"Recorded before it, and not made: {', '.join(self.skipped)}.")
        if self.silent:
            lines.append(
                f"{', '.join(self.silent)} returned nothing when recorded: what changes its arguments does not do so "
                "in a replay, unless it is listed in live=."
            )
        return "\n".join([*lines, *([self.tree] if self.tree else [])])


class Finder:
    """
    Finds the recorded calls that calls are. The caller holds a lock.

    Attributes:
        divergence: The first call that the recording does not have, None if there is none.
        drift: What differs from the recording though the call is the same: texts of prompts, places and order.

    Args:
        recording: The recording, whose texts are normalised here.
        match: "first" to answer a call that is not in the recording with the first one of its name.
        live: Names of what runs.
        swap: Names of what others answer.
        normalise: Function from each text of a question to the text that is compared.
        fail: Raises, given what is not there.
    """

    def __init__(
        self,
        recording: Recording,
        match: Match,
        live: frozenset[str],
        swap: frozenset[str],
        normalise: Callable[[str], str] | None,
        fail: Callable[[str], NoReturn],
    ) -> None:
        self.divergence: Divergence | None = None
        self.drift: list[str] = []
        self._recording, self._match, self._live, self._swap, self._fail = recording, match, live, swap, fail
        #: The call that began last, of each flow and call around it.
        self._latest: dict[tuple[Hashable, int], RecordedCall] = {}
        self._silent: dict[str, None] = {}
        self._by_key: dict[tuple[str, str, str], list[RecordedCall]] = {}
        for call in recording.calls:
            call.asked = normalised(call.asked, normalise)
            self._by_key.setdefault((call.kind, call.name, key(call)), []).append(call)

    def find(self, asked: RecordedCall, flow: Hashable | None) -> RecordedCall | None:
        """
        Return the recorded call that a call is, and use it; None if it runs or is swapped, and none was recorded.

        Args:
            asked: The call.
            flow: The task or thread that makes it, in which calls come one after the other; None if that is chance.

        Raises:
            ReplayMiss: if nothing answers it.
        """
        same = self._like(asked)
        here = [c for c in same if c.parent is asked.parent]
        found = nearest(here or same, asked)
        if found is None:
            found = self._diverge(asked)
        elif not here:
            before, now = found.parent or "the trace", asked.parent or "the trace"
            self.drift.append(f"{found} was recorded in {before}, and runs in {now}")
        if found is not None:
            found.is_used = True
            self.note_drift(found, asked, flow)
        return found

    def note_drift(self, found: RecordedCall, asked: RecordedCall, flow: Hashable | None) -> None:
        """Note in what a call differs from the recorded one that answers it: the order, and the texts of prompts."""
        if flow is not None:
            self._note_order(found, flow)
        if asked.kind == "llm":
            self.drift += [f"{found}: {each}" for each in differences(found.asked, asked.asked)]

    def _note_order(self, found: RecordedCall, flow: Hashable) -> None:
        """Note a call that comes after one before which it was recorded."""
        place = flow, id(found.parent)
        latest = self._latest.get(place)
        if latest is not None and found.is_before(latest):
            self.drift.append(f"{found} was recorded before {latest}, and comes after it now")
        if latest is None or latest.began < found.began:
            self._latest[place] = found

    def _diverge(self, asked: RecordedCall) -> RecordedCall | None:
        """
        Note a call that is not in the recording. Return the first of its name there, if any may answer.

        Raises:
            ReplayMiss: if nothing answers it.
        """
        if asked.name in self._swap or asked.name in self._live:
            return None
        named = [
            c for c in self._recording.calls if (c.kind, c.name) == (asked.kind, asked.name) and not c.is_used
        ]
        here = [c for c in named if c.parent is asked.parent]
        like = min(here or named, key=lambda c: distance(c.asked, asked.asked), default=None)
        tree = around(self._recording.calls, like, like.parent if like else asked.parent)
        told = () if like is None else tuple(differences(like.asked, asked.asked))
        agent = "" if any(call.is_used for call in self._recording.calls) else self._recording.agent
        left = [c for c in self._recording.calls if not c.is_used and like is not None and c.is_before(like)]
        skipped = map(str, left[:_SKIPPED])
        found = Divergence(
            str(asked), str(like or ""), told, "\n".join(tree), agent, tuple(skipped), tuple(self._silent)
        )
        self.divergence = self.divergence or found
        if self._match == "first" and here:
            return here[0]
        self._fail(str(found))

    def note_silent(self, name: str) -> None:
        """Note the name of a call that was answered with None, and was given what it may have changed."""
        self._silent[name] = None

    def take(self, asked: RecordedCall) -> RecordedCall | None:
        """Return the recorded call that one is which runs anyhow, and use it; None if there is none."""
        same = self._like(asked)
        found = nearest([c for c in same if c.parent is asked.parent] or same, asked)
        if found is not None:
            found.is_used = True
        return found

    def _like(self, asked: RecordedCall) -> list[RecordedCall]:
        """Return the recorded calls of the structure of a call that are left."""
        return [c for c in self._by_key.get((asked.kind, asked.name, key(asked)), ()) if not c.is_used]

    @property
    def unused(self) -> list[RecordedCall]:
        """
        The recorded calls that answered nothing.

        Calls inside one that was answered as a whole are none of them, nor are those of what is live or swapped.
        """
        free = self._live | self._swap

        def is_covered(call: RecordedCall | None) -> bool:
            if call is None:
                return False
            return (
                call.name in self._swap or (call.is_used and not call.holds_model) or is_covered(call.parent)
            )

        left = (call for call in self._recording.calls if not call.is_used and call.name not in free)
        return [call for call in left if not is_covered(call.parent)]
