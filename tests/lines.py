"""Records as a recording process writes them, for tests of what reads them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from whyops_trace._clock import iso

#: When all records begin: 2026-11-21 22:30 UTC.
START_NS = 1_795_300_200_000_000_000


class Process:
    """
    A process that records on one trace.

    Args:
        token: Its name.
        trace: The trace id.
        run: What its numbering is called; None for a trace whose id was made up.
    """

    def __init__(
        self, token: str = "9f2c41aa01be", trace: str = "checkout-8841", run: str | None = None
    ) -> None:
        self.token = token
        self.trace = trace
        self.run = run
        self._keys = itertools.count(1)

    def event(
        self,
        kind: str,
        step: int,
        parent: int | None = None,
        *,
        within: int = 0,
        metadata: dict[str, Any] | None = None,
        content: Any = None,
        given: Sequence[str] = (),
        at: float = 0,
        end: bool = False,
        **members: Any,
    ) -> dict[str, Any]:
        """Return a record, its members in the recorder's order; *at* is in milliseconds since the start."""
        return {
            "eventType": kind,
            "traceId": self.trace,
            **({"run": self.run} if self.run else {}),
            "stepId": step,
            **({"parentStepId": parent} if parent else {}),
            **({"given": list(given)} if given else {}),
            "metadata": {"within": within, **(metadata or {})},
            "spanId": "span_17",
            "timestamp": iso(START_NS + round(at * 1_000_000)),
            "idempotencyKey": f"{self.token}-{next(self._keys)}",
            "agentName": "shop",
            **members,
            "content": {} if content is None else content,
            **({"end": True} if end else {}),
        }

    def line(self, kind: str, step: int, parent: int | None = None, **members: Any) -> bytes:
        """Return a record as the line that stands in the journal."""
        return encoded(self.event(kind, step, parent, **members))


def encoded(event: dict[str, Any]) -> bytes:
    """Return a record as a line."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def tool_request(process: Process, step: int, parent: int | None = None, **members: Any) -> dict[str, Any]:
    """Return the request of a call ``charge_card(amount=4999)``, or of the tool and arguments named."""
    tool, arguments = members.pop("tool", "charge_card"), members.pop("arguments", {"amount": 4999})
    content = {"toolCalls": [{"name": tool, "arguments": arguments}]}
    return process.event(
        "tool_call_request", step, parent, metadata={"tool": tool}, content=content, **members
    )


def tool_response(process: Process, step: int, parent: int, **members: Any) -> dict[str, Any]:
    """Return the response of a tool; *about* joins its metadata."""
    tool, results = members.pop("tool", "charge_card"), members.pop("results", {"id": "ch_1"})
    metadata = {"tool": tool, **members.pop("about", {})}
    content = {"toolCalls": [{"name": tool}], "toolResults": results}
    members.setdefault("within", parent)
    return process.event("tool_call_response", step, parent, metadata=metadata, content=content, **members)
