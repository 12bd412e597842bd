"""Two sets of runs side by side: each figure with its mean, its median, and the interval of its difference."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, median
from typing import Final, Literal, NamedTuple

import msgspec

from whyops_trace._intervals import Interval, difference_of_shares, draw_means, interval_of
from whyops_trace._reading.excerpt import dollars, duration, percent
from whyops_trace.commands.run_figures import RunFigures

Metric = Literal["cost", "tokens", "cached", "turns", "tools", "failures", "findings", "seconds", "failed"]
_METRICS: Final[tuple[Metric, ...]] = (
    "cost", "tokens", "cached", "turns", "tools", "failures", "findings", "seconds", "failed",
)  # fmt: skip
#: Figures that are shares, from 0 to 1.
SHARES: Final = frozenset({"cached", "failed"})
_TEST: Final = re.compile(r"(\w+)\s*([<>])\s*([+-]?)(\d+(?:\.\d+)?|\.\d+)\s*(%?)")


class Figure(msgspec.Struct, rename="camel"):
    """
    One figure of two sets.

    Attributes:
        name: Its name.
        means: Means of both sets; of shares too.
        medians: Medians of both sets.
        difference: The second mean less the first.
        interval: The interval of that with a confidence of 95 %; None of too few runs.
        change: That as a share of the first mean; None if that is 0.
        change_interval: The interval of that.
        second_interval: The interval of the second mean.
    """

    name: str
    means: tuple[float, float]
    medians: tuple[float, float]
    difference: float
    interval: Interval | None
    change: float | None
    change_interval: Interval | None
    second_interval: Interval | None

    @property
    def is_relative(self) -> bool:
        """True if its change is a share of the first mean: it is no share itself, and that mean is not 0."""
        return self.change is not None and self.name not in SHARES

    @property
    def told(self) -> Interval | None:
        """The interval that people are told: of the change if there is one, else of the difference."""
        return self.change_interval if self.is_relative else self.interval

    @property
    def verdict(self) -> str:
        """``more`` or ``less`` if that interval says so, ``same`` if no value differs, else ""."""
        if self.told is None:
            return ""
        low, high = self.told
        return "same" if low == high == 0 else "more" if low > 0 else "less" if high < 0 else ""

    def shown(self, amount: float, *, signed: bool = False) -> str:
        """Return an amount of this figure for people."""
        sign = "-" if amount < 0 else "+" if signed and amount else ""
        size = abs(amount)
        if self.name == "cost":
            return sign + dollars(size)
        if self.name == "seconds":
            return sign + duration(size * 1_000)
        if self.name in SHARES:
            return sign + (f"{100 * size:.1f} points" if signed else percent(size, 1))
        return f"{sign}{size:,.0f}" if size == round(size) else f"{sign}{size:,.2f}"


class SetComparison(NamedTuple):
    """
    Two sets of runs.

    Attributes:
        counts: Numbers of their runs.
        pairs: Number of pairs that are compared; 0 if all of one set are with all of the other.
        figures: What is known of all runs.
        missing: Names of figures that are not known of some.
    """

    counts: tuple[int, int]
    pairs: int
    figures: list[Figure]
    missing: Sequence[str]


def compare_sets(first: Sequence[RunFigures], second: Sequence[RunFigures]) -> SetComparison:
    """
    Compare two sets of runs.

    They are compared in pairs if each run has a key and both sets have the same keys, two at least. Of runs with one
    key the mean is taken.
    """
    keys = {run.key for run in first}
    paired = "" not in keys and keys == {run.key for run in second} and len(keys) > 1
    missing = [name for name in _METRICS if any(getattr(run, name) is None for run in (*first, *second))]
    known = [name for name in _METRICS if name not in missing]
    sets = [[_values(runs, name, by_key=paired) for name in known] for runs in (first, second)]
    counts = len(first), len(second)
    drawn = draw_means(sets[0], sets[1], paired=paired)
    figures = [
        _figure(name, one, other, draws, counts)
        for name, one, other, draws in zip(known, *sets, drawn, strict=True)
    ]
    return SetComparison(counts, len(keys) if paired else 0, figures, missing)


def _values(runs: Sequence[RunFigures], name: str, *, by_key: bool) -> list[float]:
    """Return a figure of each run, or the mean of those with the same key, in the order of the keys."""
    if not by_key:
        return [getattr(run, name) for run in runs]
    found: defaultdict[str, list[float]] = defaultdict(list)
    for run in runs:
        found[run.key].append(getattr(run, name))
    return [fmean(found[key]) for key in sorted(found)]


def _figure(
    name: str,
    first: Sequence[float],
    second: Sequence[float],
    drawn: Sequence[tuple[float, float]],
    counts: tuple[int, int],
) -> Figure:
    one, other, fewest = fmean(first), fmean(second), min(len(first), len(second))
    difference = other - one
    interval = interval_of(difference, (now - before for before, now in drawn), fewest)
    change = difference / one if one else None
    changes = interval_of(change, (now / before - 1 if before else None for before, now in drawn), fewest)
    if one and not other and interval is not None:  # then each draw falls by all of it, however few they are
        changes = interval[0] / one, interval[1] / one
    if changes is not None:
        changes = max(-1.0, changes[0]), changes[1]  # nothing falls by more than all of it
    if name == "failed":
        hits = round(one * counts[0]), round(other * counts[1])
        interval = difference_of_shares((hits[0], counts[0]), (hits[1], counts[1]))
    means, medians = (one, other), (median(first), median(second))
    of_second = interval_of(other, (now for _, now in drawn), len(second))
    return Figure(name, means, medians, difference, interval, change, changes, of_second)


class Threshold(NamedTuple):
    """
    What fails a comparison: ``cost > +10%``, ``cached < -0.05``, ``seconds > 30``.

    Attributes:
        text: It, as the user wrote it.
        name: The figure.
        is_above: True if it must not be more, False if it must not be less.
        of: ``change`` of the mean, its ``difference``, or the second ``mean`` itself.
        bound: The amount.
    """

    text: str
    name: str
    is_above: bool
    of: Literal["change", "difference", "mean"]
    bound: float

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """
        Return the threshold in a text.

        Raises:
            ValueError: if it is none; the message says what one looks like.
        """
        match = _TEST.fullmatch(text.strip())
        if match is None or match[1] not in _METRICS or (match[5] and not match[3]):
            raise ValueError(
                f"{text!r} is no threshold; write 'cost > +10%', 'cached < -0.05' or 'seconds > 30', of "
                f"{', '.join(_METRICS)}."
            )
        bound = float(match[3] + match[4]) / (100 if match[5] else 1)
        of: Literal["change", "difference", "mean"] = (
            "change" if match[5] else "difference" if match[3] else "mean"
        )
        return cls(text.strip(), match[1], match[2] == ">", of, bound)

    def judge(self, comparison: SetComparison) -> Literal["passed", "open", "failed"]:
        """Return ``failed`` if it is broken with confidence, ``open`` if it may be or nobody knows, else ``passed``."""
        figure = next((each for each in comparison.figures if each.name == self.name), None)
        if figure is None:
            return "open"
        amount, interval = {
            "change": (figure.change, figure.change_interval),
            "difference": (figure.difference, figure.interval),
            "mean": (figure.means[1], figure.second_interval),
        }[self.of]
        if amount is None and figure.difference == 0:
            amount, interval = 0.0, (0.0, 0.0)
        if amount is None or interval is None:
            return "open"
        sign = 1 if self.is_above else -1
        low, high = sorted(sign * each for each in interval)
        bound = sign * self.bound
        return "failed" if low > bound else "passed" if high <= bound else "open"
