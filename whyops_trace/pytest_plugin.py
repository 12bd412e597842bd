"""
Fixtures of pytest for agents: ``recorded`` replays a recording, ``traces`` collects what a test records.

::

    def test_refund(recorded):
        with recorded("refund.whyops") as run:
            agent("refund order 8841")

        run.called("look_up", before="refund", times=1)
        run.no_findings("medium")

``--whyops=record`` runs the agent for real and writes the recording, ``--whyops=live`` runs it without writing one. The
plugin is loaded with pytest, and the library only by a test that uses a fixture of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from whyops_trace._replay.runs import LiveRun
    from whyops_trace.replay import Replay

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True

__all__ = ["pytest_addoption", "recorded", "traces"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--whyops``."""
    parser.getgroup("whyops-trace").addoption(
        "--whyops",
        choices=("replay", "record", "live"),
        default="replay",
        help="What recorded() does: replay the recording, run the agent and record it, or run it only.",
    )


@pytest.fixture
def recorded(request: pytest.FixtureRequest) -> Callable[..., Replay | LiveRun]:
    """
    Return a function from the file of a recording to the run of an agent, to be opened with ``with``.

    The file is looked for beside the test, and takes the further arguments of :func:`whyops_trace.replay.replay`.
    """
    from whyops_trace._replay.runs import LiveRun
    from whyops_trace.replay import replay

    mode = request.config.getoption("--whyops")

    def run(file: str, **options: Any) -> Replay | LiveRun:
        path = request.path.parent / file
        if mode == "replay":
            return replay(path, **{"store": False, **options})
        return LiveRun(path, writes=mode == "record")

    return run


@pytest.fixture
def traces() -> Iterator[LiveRun]:
    """Collect the records of the test, instead of delivering them, and check them."""
    from whyops_trace._replay.runs import LiveRun

    with LiveRun() as run:
        yield run
