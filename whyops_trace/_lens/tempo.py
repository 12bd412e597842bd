"""Grafana Tempo: ``/api/v2/traces/ID`` and ``/api/traces/ID``. It has no pages of its own."""

from __future__ import annotations

import re
from typing import Final

from whyops_trace._lens.otlp import read_answers
from whyops_trace._lens.place import Address, Place, Reading, Request

TITLE: Final = "Tempo"
EXAMPLE: Final = "http://localhost:3200/api/v2/traces/TRACE"
_PATH: Final = re.compile(r"(?P<base>.*?)(?P<api>/api/v2/traces|/api/traces)/(?P<id>[^/]+)")


def find(address: Address) -> Place | None:
    """Return the place that an address of its API names, None if it is no such."""
    match = address.match(_PATH)
    return address.place(match) if match else None


def read(place: Place) -> Reading:
    """Read a trace."""
    return read_answers((yield Request(f"{place.api}/{place.trace_id}")))
