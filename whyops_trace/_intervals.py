"""Intervals in which what was measured a few times may really lie, with a confidence of 95 %."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from operator import itemgetter
from statistics import NormalDist, fmean
from typing import Final

#: The confidence of all intervals.
CONFIDENCE: Final = 0.95
_Z: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
#: Samples that are drawn again for an interval, and where the draws begin, so that an interval is the same each time.
DRAWS: Final = 2_000
_SEED: Final = 8841
#: Most values that are drawn, so that large sets take no longer.
_MOST: Final = 500
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


def draw_means(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], *, paired: bool
) -> list[list[tuple[float, float]]]:
    """
    Return the means of two sets of runs over sets that are drawn again from them, of each of their figures.

    Of a set of more than 500 runs as many are drawn, and their means brought as near to the mean of all as
    those of so many draws would be.

    Args:
        first: The figures of one set: each has a value of every run, in the same order.
        second: The same of the other one, with one run at least.
        paired: True if the runs of both sets at the same place belong together, and are drawn together.
    """
    draw = random.Random(_SEED)  # noqa: S311 - of a sample, not of a secret
    counts = len(first[0]), len(second[0])
    middles = [(fmean(one), fmean(other)) for one, other in zip(first, second, strict=True)]
    factors = [sqrt(min(count, _MOST) / count) for count in counts]
    found: list[list[tuple[float, float]]] = [[] for _ in first]
    for _ in range(DRAWS):
        pick = _picked(draw, counts[0])
        other_pick = pick if paired else _picked(draw, counts[1])
        for means, (middle, other), one_values, other_values in zip(
            found, middles, first, second, strict=True
        ):
            one_mean, other_mean = fmean(pick(one_values)), fmean(other_pick(other_values))
            means.append(
                (middle + (one_mean - middle) * factors[0], other + (other_mean - other) * factors[1])
            )
    return found


def _picked(draw: random.Random, count: int) -> Callable[[Sequence[float]], tuple[float, ...]]:
    """Return a function from the values of a set to those at places that are drawn."""
    # Two at least, since itemgetter() returns no tuple of one; a set of one has no interval.
    return itemgetter(*draw.choices(range(count), k=min(max(count, 2), _MOST)))


def interval_of(middle: float | None, draws: Iterable[float | None], count: int) -> Interval | None:
    """
    Return the interval of a figure by its percentiles over samples that are drawn again.

    Of few values these draws vary too little; so the interval is widened as that of Student is for so few.

    Args:
        middle: The figure, None if it has none.
        draws: It of each draw.
        count: Number of values in the smallest sample; of fewer than three there is no interval.
    """
    found = sorted(figure for figure in draws if figure is not None)
    if middle is None or count < _FEWEST or len(found) < DRAWS / 2:
        return None
    low = round((1 - CONFIDENCE) / 2 * (len(found) - 1))
    wider = _student(count - 1) / _Z * sqrt(count / (count - 1))
    return middle - (middle - found[low]) * wider, middle + (found[len(found) - 1 - low] - middle) * wider


def _student(freedom: int) -> float:
    """Return the quantile of Student's distribution, by the expansion of Cornish and Fisher; 3 % off at worst."""
    first = (_Z**3 + _Z) / 4
    second = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    third = (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384
    return _Z + first / freedom + second / freedom**2 + third / freedom**3
