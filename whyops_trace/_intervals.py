"""Intervals in which what was measured a few times may really lie, with a confidence of 95 %."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import sqrt
from statistics import NormalDist
from typing import Final

#: The confidence of all intervals.
CONFIDENCE: Final = 0.95
_Z: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
#: Samples that are drawn again for an interval, and where the draws begin, so that an interval is the same each time.
DRAWS: Final = 2_000
_SEED: Final = 8841
#: Fewest values of a sample that tell how they vary.
_FEWEST: Final = 3

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


def difference_of_shares(first: tuple[int, int], second: tuple[int, int]) -> Interval:
    """
    Return the interval of the difference of two shares, the second less the first, after Newcombe.

    Args:
        first: Number of those that count, and of all.
        second: The same of the other ones.
    """
    one, other = first[0] / first[1], second[0] / second[1]
    (low, high), (other_low, other_high) = wilson(*first), wilson(*second)
    difference = other - one
    below = sqrt((other - other_low) ** 2 + (high - one) ** 2)
    return difference - below, difference + sqrt((other_high - other) ** 2 + (one - low) ** 2)


def bootstrap(statistic: Callable[..., float | None], *counts: int) -> Interval | None:
    """
    Return the interval of a figure of one or more samples: of its percentiles over samples that are drawn again.

    Of few values these draws vary too little; so the interval is widened as that of Student is for so few.

    Args:
        statistic: Function from the places of each sample to the figure; None if these have none.
        counts: Number of places in each sample; of fewer than three there is no interval.
    """
    if min(counts) < _FEWEST:
        return None
    draw = random.Random(_SEED)  # noqa: S311 - of a sample, not of a secret
    middle = statistic(*(range(count) for count in counts))
    draws = (statistic(*(draw.choices(range(count), k=count) for count in counts)) for _ in range(DRAWS))
    found = sorted(figure for figure in draws if figure is not None)
    if middle is None or len(found) < DRAWS / 2:
        return None
    low = round((1 - CONFIDENCE) / 2 * (len(found) - 1))
    wider = _student(min(counts) - 1) / _Z * sqrt(min(counts) / (min(counts) - 1))
    return middle - (middle - found[low]) * wider, middle + (found[len(found) - 1 - low] - middle) * wider


def _student(freedom: int) -> float:
    """Return the quantile of Student's distribution, by the expansion of Cornish and Fisher; 3 % off at worst."""
    first = (_Z**3 + _Z) / 4
    second = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    third = (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384
    return _Z + first / freedom + second / freedom**2 + third / freedom**3
