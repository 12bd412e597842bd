"""The attributes of a span, with a note of those that were understood."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from whyops_trace._shapes import is_number, parsed

#: Texts and what was made of them, by the function that made it and the names that they were found under.
Decoded: TypeAlias = dict[tuple[Callable[[Any], Any], tuple[str, ...]], tuple[str, Any]]
#: Longest text that is read as a literal of Python.
_MAX_LITERAL = 1 << 20


class Attributes:
    """
    The attributes of a span.

    Each name that is asked for counts as understood, if it is there. What is left is :meth:`rest`.

    Args:
        values: The attributes.
        decoded: What an earlier reading of the same span decoded, which is not decoded again.
    """

    def __init__(self, values: Mapping[str, Any], decoded: Decoded | None = None) -> None:
        self.values = values
        self._decoded: Decoded = {} if decoded is None else decoded
        self._understood: set[str] = set()

    def get(self, *names: str) -> Any:
        """Return the value of the first of the names that is there and not empty, else None."""
        found = None
        for name in names:
            value = self.values.get(name)
            if value is not None:
                self._understood.add(name)
                if found is None and value != "":
                    found = value
        return found

    def text(self, *names: str) -> str:
        """Return the first of the names that is a text, "" if none is."""
        value = self.get(*names)
        return value if isinstance(value, str) else ""

    def flag(self, name: str) -> bool:
        """Return True if that is true, or the text of it."""
        return self.get(name) in (True, "true", "True")

    def count(self, *names: str) -> int | None:
        """Return the first of the names that is a count, which may be written as a text; None if none is."""
        value = self.get(*names)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
            return int(value)
        return int(value) if is_number(value) and 0 <= value < 2**53 else None

    def parsed(self, *names: str) -> Any:
        """Return the first of the names, decoded if it is JSON."""
        return self.made(parsed, *names)

    def made(self, make: Callable[[Any], Any], *names: str) -> Any:
        """Return what a function makes of the first of the names; of one text it is made once."""
        value = self.get(*names)
        if not isinstance(value, str):
            return make(value)
        text, made = self._decoded.get((make, names), ("", None))
        if text is not value:
            made = make(value)
            self._decoded[make, names] = value, made
        return made

    def texts(self, *names: str) -> list[str]:
        """Return the texts of a list, which may be written as JSON; one text is a list of it."""
        value = self.parsed(*names)
        return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]

    def named(self, prefix: str) -> dict[str, Any]:
        """Return the values of the names that begin with *prefix*, by what follows it."""
        return {name[len(prefix) :]: value for name, value in self._beginning(prefix)}

    def nested(self, prefix: str) -> Any:
        """
        Return what is spread over names that begin with *prefix*, as in ``prefix.0.role``, as dicts and lists.

        None if there is nothing.
        """
        tree: dict[str, Any] = {}
        for name, value in self._beginning(f"{prefix}."):
            *way, last = name[len(prefix) + 1 :].split(".")
            place = tree
            for step in way:
                inner = place.setdefault(step, {})
                if not isinstance(inner, dict):  # a value and something below it: what is below counts
                    inner = place[step] = {}
                place = inner
            place.setdefault(last, value)
        return _lists(tree) if tree else None

    def _beginning(self, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in self.values.items():
            if name.startswith(prefix):
                self._understood.add(name)
                yield name, value

    def rest(self) -> dict[str, Any]:
        """Return what nobody understood."""
        understood = self._understood
        if len(understood) == len(self.values):
            return {}
        return {name: value for name, value in self.values.items() if name not in understood}


def _lists(tree: Any) -> Any:
    """Return a tree whose dicts with numbers for names are lists."""
    if not isinstance(tree, dict):
        return tree
    inner = {name: _lists(value) for name, value in tree.items()}
    if inner and all(name.isdigit() for name in inner):
        return [inner[name] for name in sorted(inner, key=int)]
    return inner


def literal(value: Any) -> Any:
    """
    Return the value of a text that is JSON, or that Python prints for plain data and objects with named fields.

    An object is a dict of its fields. Anything else is returned as it is.
    """
    value = parsed(value)
    if isinstance(value, str) and value[-1:] in ("]", "}", ")") and len(value) <= _MAX_LITERAL:
        try:
            return _evaluated(ast.parse(value, mode="eval").body)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    return value


def _evaluated(node: ast.expr) -> Any:
    """
    Return the value of an expression that consists of literals and of objects with their fields.

    Raises:
        ValueError: if there is anything else in it.
    """
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [_evaluated(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {str(_evaluated(key)): _evaluated(value) for key, value in pairs if key is not None}
    if isinstance(node, ast.Call) and not node.args:
        return {each.arg: _evaluated(each.value) for each in node.keywords if each.arg is not None}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluated(node.operand)
    raise ValueError("That is no literal.")
