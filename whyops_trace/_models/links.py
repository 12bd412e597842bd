"""
Links to earlier turns of a trace: the tool calls that its models requested, and the turns that its clients reported.

Both are recognised by their content, since nothing else connects them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from whyops_trace._shapes import dict_of, dicts_of, parsed, text_of
from whyops_trace._values import mending

#: The argument that the WhyOps proxy adds to the tool calls of an answer.
TRACE_ID_ARGUMENT: Final = "_whyops_trace_id"
#: Largest numbers of tool calls and of client turns that are remembered for a trace.
REMEMBERED: Final = 1_000
#: Characters of the longest arguments that are remembered as they are.
_MAX_ARGUMENTS: Final = 1_000


class AskedTool:
    """
    A tool call that a model requested: step of the answer, id, name, and a flag once it was made.

    Its arguments are known by digests, long ones by these alone: they may be whole files, and a process may remember
    many calls.
    """

    __slots__ = ("arguments", "digests", "id", "is_made", "name", "step")

    def __init__(self, step: int, item: Mapping[str, Any]) -> None:
        function = dict_of(item.get("function"))
        self.step: int = step
        self.id: str = text_of(item.get("id"))
        self.name: str = text_of(function.get("name"))
        text = text_of(function.get("arguments"))
        arguments = _arguments(text)
        self.arguments: dict[str, Any] | None = arguments if 0 < len(text) <= _MAX_ARGUMENTS else None
        self.digests: dict[str, int] | None = (
            None if arguments is None else {name: _digest(value) for name, value in arguments.items()}
        )
        self.is_made: bool = False

    def named(self, value: Any) -> dict[str, Any] | None:
        """Return the arguments of a call of which one value alone is known, by name; None if it is another call."""
        if self.digests is None or list(self.digests.values()) != [_digest(value)]:
            return None
        return dict.fromkeys(self.digests, value)

    def fits(self, digests: Mapping[str, int], hides: Callable[[str], bool]) -> bool:
        """Return True if a call has the requested arguments. It may have more, such as defaults."""
        return self.digests is not None and all(
            name == TRACE_ID_ARGUMENT or hides(name) or digests.get(name) == digest
            for name, digest in self.digests.items()
        )


class AskedTools:
    """The tool calls that the models of a trace requested."""

    def __init__(self) -> None:
        self._tools: deque[AskedTool] = deque(maxlen=REMEMBERED)
        #: The request of the latest answer which does not tell it, if that is the latest one that requests anything.
        self.untold: AskedTool | None = None

    def note(self, step: int, tool_calls: Any) -> None:
        """Remember the tool calls, plain data, that the answer at that step requests; none if it does not tell them."""
        self._tools.extend(AskedTool(step, item) for item in dicts_of(tool_calls))
        self.untold = None if tool_calls else AskedTool(step, {})

    def find(
        self, name: str, arguments: Mapping[str, Any], call_id: Any, hides: Callable[[str], bool]
    ) -> int:
        """Return the step of the answer that requested a call, 0 if none did; see :meth:`match`."""
        one = self.match(name, arguments, call_id, hides)
        return 0 if one is None else one.step

    def match(
        self, name: str, arguments: Any, call_id: Any, hides: Callable[[str], bool]
    ) -> AskedTool | None:
        """
        Return the request of a call, None if there was none.

        The request is found by its id, otherwise by its name and arguments: the first one that was not made yet, or
        the last one that was, which is then made once more.

        Args:
            name: The tool.
            arguments: The arguments of the call, by name; or the only one, if its name is unknown.
            call_id: The id that the model gave the call, if known.
            hides: Function from a name to True if the value under it is a secret. Such values are not compared.
        """
        candidates = [one for one in tuple(self._tools) if one.name == name or one.id == call_id]
        matches = [one for one in candidates if call_id and one.id == call_id]
        if not matches and isinstance(arguments, Mapping):
            plain = dict_of(mending.plain(dict(arguments), hides)) if candidates else {}
            digests = {name: _digest(value) for name, value in plain.items()}
            matches = [one for one in candidates if one.name == name and one.fits(digests, hides)]
        elif not matches:
            matches = [one for one in candidates if one.named(arguments) is not None]
        if not matches:
            return None
        one = next((one for one in matches if not one.is_made), matches[-1])
        one.is_made = True
        return one

    def take(self, name: str) -> AskedTool | None:
        """Return the first request of that name that was not made yet, None if there is none; now it is made."""
        one = next((one for one in tuple(self._tools) if one.name == name and not one.is_made), None)
        if one is not None:
            one.is_made = True
        return one

    def arguments(self, one: AskedTool) -> dict[str, Any] | None:
        """
        Return the arguments of a request whose call does not tell its own.

        None if they are not remembered, or if the same answer requests that tool with others.
        """
        rivals = (
            each
            for each in tuple(self._tools)
            if each.step == one.step and each.name == one.name and each.digests != one.digests
        )
        return one.arguments if next(rivals, None) is None else None


class ReportedTurns:
    """The turns of a trace that clients of providers made, until they are reported once more by hand."""

    def __init__(self) -> None:
        self._turns: deque[tuple[int, frozenset[str], int]] = deque(maxlen=REMEMBERED)

    def note(self, step: int, models: Iterable[str], text: str | None) -> None:
        """Remember the turn at that step: the requested and the answering model, and the text of its answer."""
        self._turns.append((step, frozenset(map(_bare, filter(None, models))), _digest(text or "")))

    def claim(self, model: str, text: Any) -> int:
        """Return the step of the latest turn of this model or text and forget it, 0 if there is none."""
        for turn in reversed(tuple(self._turns)):
            step, models, digest = turn
            if _bare(model) in models or (text and isinstance(text, str) and digest == _digest(text)):
                self._turns.remove(turn)
                return step
        return 0


def _bare(model: str) -> str:
    """Return the name of a model without the provider before it."""
    return model.rpartition("/")[2].lower()


def asked_arguments(arguments: Any) -> Any:
    """Return the arguments of a call that a model wrote, decoded if they are JSON, without the proxy's addition."""
    arguments = parsed(arguments)
    if isinstance(arguments, dict) and TRACE_ID_ARGUMENT in arguments:
        return {name: argument for name, argument in arguments.items() if name != TRACE_ID_ARGUMENT}
    return arguments


def _arguments(text: str) -> dict[str, Any] | None:
    """Return the arguments of a call that a model wrote, None if they are no object in JSON."""
    try:
        decoded = msgspec.json.decode(text or "{}")
        return decoded if isinstance(decoded, dict) else None
    except (msgspec.DecodeError, ValueError, RecursionError):  # not JSON, or nested deeper than the stack
        return None


def _digest(value: Any) -> int:
    """Return a number that equal plain data have in common in this process, and other data most likely not."""
    if isinstance(value, dict):
        return hash(frozenset((name, _digest(item)) for name, item in value.items()))
    if isinstance(value, list):
        return hash(tuple(map(_digest, value)))
    if isinstance(value, (bool, float)) and value == value // 1:
        value = int(value)  # 1, 1.0 and true are equal
    # By its text, since -1 and -2 have the same hash.
    return hash(value if isinstance(value, str) else (str(value),))
