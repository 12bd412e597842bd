"""The static analysis of a trace, in the form of a WhyOps server's."""

from __future__ import annotations

import threading
import uuid
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from whyops_trace._clock import SystemClock, iso
from whyops_trace._recording.line import LOCAL
from whyops_trace._rules.server import SERVER_RULES
from whyops_trace.analysis import Finding, server_findings
from whyops_trace.store import Store

#: Largest number of remembered analyses. An older one can be made again at any time.
_REMEMBERED: Final = 1_000

Json = dict[str, Any]


class AnalysisRequest(msgspec.Struct, rename="camel"):
    """The body of a request for an analysis."""

    trace_id: str
    mode: Literal["quick", "standard", "deep"] = "standard"


class Analyses:
    """
    The analyses of this process: it makes them, and remembers the last 1,000.

    Args:
        store: The store of the traces.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._analyses: OrderedDict[str, Json] = OrderedDict()

    def make(self, request: AnalysisRequest) -> Json:
        """
        Analyse a trace as it is now.

        Raises:
            TraceNotFoundError: if there is no such trace.
            StoreError: if the file cannot be read.
        """
        self._store.trace(request.trace_id)
        events = [
            event for event in self._store.events(request.trace_id) if event.get("eventType") not in LOCAL
        ]
        findings = server_findings(events, deep=request.mode == "deep")
        analysis = _analysis(request, len(events), findings)
        with self._lock:
            self._analyses[analysis["id"]] = analysis
            while len(self._analyses) > _REMEMBERED:
                self._analyses.popitem(last=False)
        return analysis

    def get(self, identifier: str) -> Json | None:
        """Return an analysis, None if it is not remembered."""
        with self._lock:
            return self._analyses.get(identifier)

    def of_trace(self, trace_id: str) -> list[Json]:
        """
        Return the remembered analyses of a trace, the latest first.

        Raises:
            TraceNotFoundError: if there is no such trace.
            StoreError: if the file cannot be read.
        """
        self._store.trace(trace_id)
        with self._lock:
            return [
                analysis for analysis in reversed(self._analyses.values()) if analysis["traceId"] == trace_id
            ]


def _analysis(request: AnalysisRequest, event_count: int, findings: Sequence[Finding]) -> Json:
    identifier, made_at = str(uuid.uuid4()), iso(SystemClock.time_ns())
    return {
        "id": identifier,
        "traceId": request.trace_id,
        "status": "completed",
        "rubricVersion": "static-v1",
        "mode": request.mode,
        "summary": {
            "analyzer": "static-v1",
            "mode": request.mode,
            "traceId": request.trace_id,
            "eventCount": event_count,
            "sampledIn": True,
            "findingCount": len(findings),
            "bySeverity": dict(Counter(finding.severity for finding in findings)),
            "byDimension": dict(Counter(SERVER_RULES[finding.code].dimension for finding in findings)),
        },
        "createdAt": made_at,
        "findings": [_finding(finding, identifier, made_at) for finding in findings],
    }


def _finding(finding: Finding, analysis: str, made_at: str) -> Json:
    rule = SERVER_RULES[finding.code]
    return {
        "id": str(uuid.uuid4()),
        "analysisId": analysis,
        "stepId": finding.steps[0] if finding.steps else None,
        "dimension": rule.dimension,
        "severity": finding.severity,
        "confidence": f"{rule.confidence:.4f}",
        "evidence": {"issue": finding.code, **finding.evidence},
        "recommendation": {"action": finding.title, "detail": finding.advice},
        "createdAt": made_at,
    }
