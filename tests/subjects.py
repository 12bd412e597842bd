"""Decorated callables that other processes can import."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator

from whyops_trace import traced_llm, traced_tool


@traced_tool
def double(x: int) -> int:
    """Return twice a number."""
    return 2 * x


@traced_tool(name="adouble")
async def adouble(x: int) -> int:
    """Return twice a number, later."""
    return 2 * x


@traced_tool
def count(to: int) -> Iterator[int]:
    """Count."""
    yield from range(to)


@traced_tool
async def acount(to: int) -> AsyncIterator[int]:
    """Count, later."""
    for n in range(to):
        yield n


@traced_llm(name="outer")
@traced_tool
async def stacked(x: int) -> int:
    """Have two decorators."""
    return x


@traced_tool
@functools.lru_cache
def cached(x: int) -> int:
    """Have a cache."""
    return x


#: A builtin, under a name of its own.
length = traced_tool(len)


@traced_llm
def ask(prompt: str) -> str:
    """Answer."""
    return prompt.upper()


class Plain:
    """A class that is not decorated, with methods that are."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    @traced_tool
    def times(self, x: int) -> int:
        """Multiply."""
        return self.factor * x

    @traced_tool
    async def atimes(self, x: int) -> int:
        """Multiply, later."""
        return self.factor * x

    @traced_tool
    @classmethod
    def made(cls, x: int) -> int:
        """Make one and multiply."""
        return cls(3).times(x)


class Scaled:
    """A callable object."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return self.factor * x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scaled) and self.factor == other.factor

    __hash__ = None  # type: ignore[assignment]


@traced_tool
class Point:
    """A decorated class."""

    def __init__(self, x: int) -> None:
        self.x = x
