"""The choice of the traces that remote destinations get, by what became of them."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from typing import Any, Final

import msgspec

from whyops_trace._shapes import is_number
from whyops_trace.exceptions import ConfigurationError

_VARIABLE: Final = "WHYOPS_TAIL_SAMPLING"
_SWITCHES: Final = {"on": True, "off": False}
_FORM: Final = "it must be a share from 0 to 1, or words such as share=0.1,slower_than=30,costlier_than=0.5"


class TailSampling(msgspec.Struct, frozen=True, kw_only=True):
    """
    A choice of traces by their outcome, for ``WhyOps(tail_sampling=...)``.

    A remote destination gets the traces that meet one of the conditions, and a share of the others. What meets none is
    counted as sampled out. The local store gets all of them.

    Attributes:
        share: The share of traces that are sent whatever becomes of them, 0 to 1. A hash of the trace id decides, so
            that every process decides alike.
        failed: True to send those that failed: that ended with an error, with a question that has no answer or in the
            middle of a call, and those in which a call failed or said that it did, as ``ls --errors`` has them.
        slower_than: Seconds; those that took longer are sent. None for no such condition.
        costlier_than: US dollars; those whose calls of models cost more are sent. It needs the extra ``prices``.
        flagged: True to send those that got a score or a note from the program, at any time, or that have the tag
            ``keep``.

    Raises:
        ConfigurationError: if one of them cannot be obeyed.
    """

    share: float
    failed: bool = True
    slower_than: float | None = None
    costlier_than: float | None = None
    flagged: bool = True

    def __post_init__(self) -> None:
        if not (is_number(self.share) and 0 <= self.share <= 1):
            raise _refused("share", self.share, "a number from 0 to 1, such as 0.1")
        for name in ("failed", "flagged"):
            if type(getattr(self, name)) is not bool:
                raise _refused(name, getattr(self, name), "True or False; on or off in the environment")
        for name in ("slower_than", "costlier_than"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 0 <= value < math.inf):
                raise _refused(name, value, "a number, 0 or more, such as 0.5")

    def is_in_share(self, trace_id: str) -> bool:
        """Return True if a trace is sent whatever becomes of it."""
        digest = hashlib.sha256(trace_id.encode("utf-8", "surrogatepass")).digest()
        # Other bytes than those that decide which traces are recorded: the share is one of the recorded ones.
        return int.from_bytes(digest[8:16], "big") < round(self.share * 2**64)

    @property
    def words(self) -> str:
        """The conditions in words, to complete "Remote destinations get"."""
        conditions = [
            "failed traces" * self.failed,
            "" if self.slower_than is None else f"those slower than {self.slower_than:g} s",
            "" if self.costlier_than is None else f"those costlier than ${self.costlier_than:g}",
            "flagged ones" * self.flagged,
        ]
        told = ", ".join(filter(None, conditions)) or "none by their outcome"
        return f"{told}, and {100 * self.share:.4g} % of the others"


def tail_sampling(value: TailSampling | float | None) -> TailSampling | None:
    """
    Return the choice that an argument, or else the environment, asks for; None if all traces are sent.

    Args:
        value: A choice, or its share alone.

    Raises:
        ConfigurationError: if it is none.
    """
    if isinstance(value, TailSampling):
        return value
    if value is not None:
        if not is_number(value):
            raise ConfigurationError(
                f"tail_sampling ({_VARIABLE}) is {value!r:.80}; it must be a share from 0 to 1 or a TailSampling."
            )
        return TailSampling(share=value)
    text = os.environ.get(_VARIABLE, "").strip()
    return None if text.lower() in ("", "off") else _read(text)


def _read(text: str) -> TailSampling:
    members: dict[str, Any] = {}
    for word in text.split(","):
        name, sign, value = (part.strip() for part in word.rpartition("="))
        name = name if sign else "share"
        if name not in TailSampling.__struct_fields__ or name in members:
            raise ConfigurationError(f"{_VARIABLE} is {text!r:.200}; {_FORM}.")
        members[name] = _SWITCHES.get(value.lower(), value)
        with contextlib.suppress(ValueError):
            members[name] = float(value)
    if "share" not in members:
        raise ConfigurationError(f"{_VARIABLE} is {text!r:.200}; it names no share, such as share=0.1.")
    return TailSampling(**members)


def _refused(name: str, value: object, what: str) -> ConfigurationError:
    return ConfigurationError(f"tail_sampling ({_VARIABLE}): {name} is {value!r:.80}; it must be {what}.")
