"""
The shares of processes in the steps of one trace, so that no two give the same one.

A process that waits for another one gives it a share of its next steps. So steps rise with time, also where calls go
through several processes. Whoever was given none counts in a range that its process id tells.
"""

from __future__ import annotations

import os
import random
from itertools import chain, count
from typing import TYPE_CHECKING, Final

from whyops_trace._checks import MAX_STEP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whyops_trace._recording.state import TraceState

#: Number of steps in the range of a process, and number of such ranges. Children of one parent have neighbouring
#: process ids, and so different ranges.
RANGE: Final = 100_000
RANGES: Final = 20_000
#: Number of steps in a share: at most so many, one part in so many of what the giver has, and none if they were fewer
#: than so many.
SHARE: Final = 1_000_000
SHARES: Final = 10
LEAST_SHARE: Final = 100

_random: Final = random.SystemRandom()


def count_apart(state: TraceState) -> None:
    """Have this process count in its range, in a trace that another process began."""
    start, width = _range(state.stride)
    state.steps, state.end = count(_anywhere(start, width // 2), state.stride), start + width


def give_share(state: TraceState) -> tuple[int, int]:
    """
    Give another process a share of the next steps of a trace, and go on after it here.

    Returns:
        The first step of the share and the one after it; zeros if there is none to give.
    """
    with state.recorder.lock:
        if state.stride > 1:  # the steps between two are for the proxy
            return 0, 0
        first = next(state.steps)
        end = first + min((state.end - first) // SHARES, SHARE)
        if end - first < LEAST_SHARE:
            return 0, 0
        state.steps = count(end) if state.end == MAX_STEP else _up_to(end, state.end)
        return first, end


def take_share(state: TraceState, first: int, end: int) -> bool:
    """Count in a share that another process gave, and return True; False if the steps here are beyond it."""
    if state.stride > 1 or not state.end <= first < end:
        return False
    # A second try of a request, or a job that is done again, brings the same share to another process.
    state.steps, state.end = _up_to(_anywhere(first, (end - first) // 4), end), end
    return True


def _up_to(start: int, end: int) -> Iterator[int]:
    """Return the steps from *start* to *end*, and after them others of this process."""
    own, width = _range(1)
    return chain(range(start, end), count(_anywhere(own, width // 2)))


def _anywhere(start: int, width: int) -> int:
    """Return a step in the first part of a range: processes of other machines may have the same process id."""
    return start + _random.randrange(max(width, 1))


def _range(stride: int) -> tuple[int, int]:
    """Return the first step of this process's range, and the width of the range."""
    width = RANGE if stride == 1 else 10 * RANGE
    return (os.getpid() % (RANGE * RANGES // width) + 1) * width, width
