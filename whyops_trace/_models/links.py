"""
What later events of a trace may belong to: the tool calls its models asked for, and the turns its clients reported.

Both are found again by what they say, since nothing else connects them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from whyops_trace._shapes import dict_of, dicts_of, parsed, text_of
from whyops_trace._values import encoding

#: The argument that the WhyOps proxy adds to the tool calls of an answer.
TRACE_ID_ARGUMENT: Final = "_whyops_trace_id"
#: Tool calls, and turns of clients, that are remembered of a trace.
REMEMBERED: Final = 1_000


class _AskedTool:
    """A tool call as a model asked for it: who asked, its id, name and arguments, and whether it was made."""

    __slots__ = ("arguments", "id", "made", "name", "step")

    def __init__(self, step: int, item: Mapping[str, Any]) -> None:
        function = dict_of(item.get("function"))
        self.step = step
        self.id = text_of(item.get("id"))
        self.name = text_of(function.get("name"))
        self.arguments = _decoded(text_of(function.get("arguments")))
        self.made = False

    def fits(self, arguments: Mapping[str, Any], hides: Callable[[str], bool]) -> bool:
        """Tell whether a call has the arguments asked for; it may have more, such as defaults."""
        return self.arguments is not None and all(
            name == TRACE_ID_ARGUMENT or hides(name) or (name in arguments and arguments[name] == value)
            for name, value in self.arguments.items()
        )


class AskedTools:
    """The tool calls that the models of a trace asked for."""

    def __init__(self) -> None:
        self._asked: deque[_AskedTool] = deque(maxlen=REMEMBERED)

    def note(self, step: int, tool_calls: Any) -> None:
        """Remember the tool calls, plain data, that the answer of that step asks for."""
        self._asked.extend(_AskedTool(step, item) for item in dicts_of(tool_calls))

    def find(
        self, name: str, arguments: Mapping[str, Any], call_id: Any, hides: Callable[[str], bool]
    ) -> int:
        """
        Return the step of the answer that asked for a call, 0 if none did.

        It is found by its id; else by its name and arguments: the first one asked for that was not made yet, or the
        last one that was, which is made once more.

        Args:
            name: The tool.
            arguments: What it is called with, by name.
            call_id: The id that the model gave the call, if it is known.
            hides: Which names stand for secrets; their values are not compared.
        """
        asked = [one for one in tuple(self._asked) if one.name == name or one.id == call_id]
        found = [one for one in asked if call_id and one.id == call_id]
        if not found and asked:
            plain = dict_of(encoding.plain(dict(arguments), hides))
            found = [one for one in asked if one.name == name and one.fits(plain, hides)]
        if not found:
            return 0
        one = next((one for one in found if not one.made), found[-1])
        one.made = True
        return one.step


class ReportedTurns:
    """The turns of a trace that clients of providers made, until somebody reports them again by hand."""

    def __init__(self) -> None:
        self._turns: deque[tuple[int, frozenset[str], str]] = deque(maxlen=REMEMBERED)

    def note(self, step: int, models: Iterable[str], text: str | None) -> None:
        """Remember the turn of that step: the models asked for and answering, and what it said."""
        self._turns.append((step, frozenset(map(_bare, filter(None, models))), text or ""))

    def claim(self, model: str, text: Any) -> int:
        """Return the step of the latest turn that a report of this model or text tells of again, once; 0 if none."""
        for turn in reversed(tuple(self._turns)):
            step, models, said = turn
            if _bare(model) in models or (said and said == text):
                self._turns.remove(turn)
                return step
        return 0


def _bare(model: str) -> str:
    """Return the name of a model without the provider before it."""
    return model.rpartition("/")[2].lower()


def asked_arguments(arguments: Any) -> Any:
    """Return the arguments of a call as a model wrote them, decoded if they are JSON, without what the proxy adds."""
    arguments = parsed(arguments)
    if isinstance(arguments, dict) and TRACE_ID_ARGUMENT in arguments:
        return {name: given for name, given in arguments.items() if name != TRACE_ID_ARGUMENT}
    return arguments


def _decoded(arguments: str) -> dict[str, Any] | None:
    try:
        decoded = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, ValueError, RecursionError):  # no JSON, or nested deeper than the stack
        return None
    return decoded if isinstance(decoded, dict) else None
