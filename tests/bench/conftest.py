"""
Benchmarks, which guard against regressions: ``nox -s bench``. No time is ever asserted.

They are collected only if this directory is asked for: what they say is worth nothing while other tests run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from whyops_trace import WhyOps, traced_tool
from whyops_trace.exporters.base import Batch, Exporter, Outcome

HERE = Path(__file__).parent


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave out what is below here, unless it was named."""
    named = (Path(argument.partition("::")[0]).resolve() for argument in config.args)
    return None if any(path.is_relative_to(HERE) for path in named) else True


class Measure(Protocol):
    """What the ``measure`` fixture is."""

    def __call__(
        self, group: str, function: Callable[..., Any], *arguments: Any, calls: int = ..., rounds: int = ...
    ) -> None: ...


class Discard(Exporter):
    """Takes everything and keeps nothing, so that the worker stays out of the caller's way."""

    name = "discard"
    ephemeral = True

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """Take a batch."""
        return [Outcome.DELIVERED] * len(batch.lines)


@pytest.fixture
def measure(benchmark: Any) -> Measure:
    """
    Time a function.

    The number of calls is fixed: what they leave in the journal is the same each time, whatever a call takes.
    """

    def run(
        group: str, function: Callable[..., Any], *arguments: Any, calls: int = 1_000, rounds: int = 30
    ) -> None:
        benchmark.group = group
        benchmark.pedantic(function, arguments, iterations=calls, rounds=rounds, warmup_rounds=1)

    return run


@pytest.fixture
def sdk(tmp_path: Path) -> Iterator[WhyOps]:
    """A client with its journal on disk, which delivers to nobody."""
    with WhyOps(agent_name="bench", home=tmp_path / "home", store=False, exporters=[Discard()]) as client:
        yield client


@pytest.fixture
def is_traced(request: pytest.FixtureRequest) -> bool:
    """Whether the test is to trace what it times; parametrized by ``beside_untraced``."""
    return bool(request.param == "traced")


@pytest.fixture
def tool(is_traced: bool, sdk: WhyOps) -> Iterator[Callable[[Any], Any]]:
    """The decorator of a tool inside an open trace, or one that leaves the function as it is."""
    with sdk.trace():
        yield traced_tool if is_traced else lambda function: function
