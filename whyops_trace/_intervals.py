"""Intervals in which what was measured a few times may really lie, with a confidence of 95 %."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Final

#: The confidence of all intervals.
CONFIDENCE: Final = 0.95
_Z: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
#: Samples that are drawn again for an interval, and where the draws begin, so that an interval is the same each time.
DRAWS: Final = 2_000
_SEED: Final = 8841

Interval = tuple[float, float]


def wilson(hits: int, count: int) -> Interval:
    """
    Return the interval of Wilson's score for a share.

    Args:
        hits: Number of those that count.
        count: Number of all; of none the share may be anything from 0 to 1.
    """
    if not count:
        return 0.0, 1.0
    share, square = hits / count, _Z**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _Z / (1 + square / count) * sqrt(share * (1 - share) / count + square / (4 * count**2))
    # What rounding leaves beyond the bounds is none.
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    return low, 1.0 if hits == count else min(1.0, middle + half)


def bootstrap(statistic: Callable[[Sequence[int]], float | None], count: int) -> Interval | None:
    """
    Return the interval of the percentiles of a figure over samples that are drawn again.

    Args:
        statistic: Function from the places of a sample to its figure, None if it has none.
        count: Number of places, from 0 on; of fewer than two there is no interval.
    """
    return bootstrap_of_two(lambda places, _: statistic(places), count, count)


def bootstrap_of_two(
    statistic: Callable[[Sequence[int], Sequence[int]], float | None], first: int, second: int
) -> Interval | None:
    """Return the same for a figure of two samples, each drawn by itself."""
    if min(first, second) < 2:
        return None
    draw = random.Random(_SEED)  # noqa: S311 - of a sample, not of a secret
    found = []
    for _ in range(DRAWS):
        one, other = draw.choices(range(first), k=first), draw.choices(range(second), k=second)
        if (figure := statistic(one, other)) is not None:
            found.append(figure)
    if len(found) < DRAWS / 2:
        return None
    found.sort()
    low = round((1 - CONFIDENCE) / 2 * (len(found) - 1))
    return found[low], found[len(found) - 1 - low]
