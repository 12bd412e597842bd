"""How tests read what was recorded: each event as one short row, in the order it was recorded."""

from __future__ import annotations

import os
import traceback
from collections import defaultdict
from types import CodeType
from typing import Any

import whyops_trace

#: ``(type, step, parent, within, name, payload)``, and a dict of what else the event says, if there is anything.
Row = tuple[Any, ...]

LOCAL = ("step_end", "trace_end")
#: Metadata under which an event names what it is about, and what varies from run to run.
NAMES = ("tool", "step", "function")
VARYING = (
    "within", "latencyMs", "startedAt", "rawResponse", "requestId", "responseId", "returned", "captured", "redacted",
    "errorResponse",
)  # fmt: skip
#: Where the package's own code is, its sub-packages included.
PACKAGE = os.path.dirname(whyops_trace.__file__) + os.sep


class Recorded:
    """
    The records of a test, as rows.

    Attributes:
        records: The records themselves.
        checked: Whether :meth:`check` looks at them; False in tests that choose numbers or times themselves.
    """

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records
        self.checked = True

    @property
    def rows(self) -> list[Row]:
        """The events that a server sees."""
        return [row(record) for record in self.records if record["eventType"] not in LOCAL]

    @property
    def all_rows(self) -> list[Row]:
        """The events and the local records of how steps and traces ended."""
        return [row(record) for record in self.records]

    @property
    def traces(self) -> list[str]:
        """The trace ids, in the order they first appear."""
        return list(dict.fromkeys(record["traceId"] for record in self.records))

    def of(self, trace_id: str) -> list[Row]:
        """The events of one trace."""
        return [
            row(record)
            for record in self.records
            if record["traceId"] == trace_id and record["eventType"] not in LOCAL
        ]

    def wheres(self) -> list[Row]:
        """Where each event stands, ``(type, step, parent, within, name)``, without what it says."""
        return [told[:5] for told in self.rows]

    def check(self) -> None:
        """Check what holds of all records: numbering, order, parents, keys, and that pairs share a span id."""
        if not self.checked:
            return
        traces = defaultdict(list)
        for record in self.records:
            traces[record["traceId"]].append(record)
        keys = [record["idempotencyKey"] for record in self.records]

        assert len(set(keys)) == len(keys)
        assert [record for record in self.records if PACKAGE in stack_of(record)] == []
        lines = [line for record in self.records for line in stack_of(record).splitlines()]
        assert [line for line in lines if line.endswith(", in traced")] == []
        for records in traces.values():
            check_trace(records)


def stack_of(record: dict[str, Any]) -> str:
    """Return the stack that an error event tells, "" if it tells none."""
    content = record.get("content")
    return content.get("stack", "") if record["eventType"] == "error" and isinstance(content, dict) else ""


def frames_of_ours(error: BaseException) -> list[str]:
    """Return the functions of the package that an exception passed through, outermost first."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [code.co_name for code in codes if code.co_filename.startswith(PACKAGE) or is_template(code)]


def is_template(code: CodeType) -> bool:
    """Tell whether code is that of a traced function, which has the file of the function."""
    return code.co_name == "traced" and {"function", "whyops_site"} <= set(code.co_freevars)


def check_trace(records: list[dict[str, Any]]) -> None:
    """Check the records of one trace."""
    seen: dict[int, dict[str, Any]] = {}
    for record in records:
        if record["eventType"] in LOCAL:
            assert record["stepId"] in seen
            continue
        step, parent = record["stepId"], record.get("parentStepId")

        assert step > max(seen, default=0), "steps rise in the order of the records"
        assert parent in seen if seen else parent is None, "a parent is an event before"
        assert record["metadata"]["within"] in {0, *seen}
        if record["eventType"].endswith("_response") and "function" not in record["metadata"] and parent:
            request = seen[parent]
            if request["eventType"] == record["eventType"].replace("_response", "_request"):
                assert record["spanId"] == request["spanId"]
        seen[step] = record
    times = [record["timestamp"] for record in records]

    assert times == sorted(times), "time never falls"


def row(record: dict[str, Any]) -> Row:
    """Return a record as a row."""
    kind = record["eventType"]
    content: Any = record.get("content")
    metadata = {key: value for key, value in record["metadata"].items() if key not in VARYING}
    if isinstance(metadata.get("timeToFirstTokenMs"), int):
        metadata["timeToFirstTokenMs"] = 0  # how long it was says how busy the machine is
    name = next((metadata.pop(key) for key in NAMES if key in metadata), None)
    if kind == "tool_call_request" and content.keys() == {"toolCalls"} and len(content["toolCalls"]) == 1:
        content = content["toolCalls"][0]["arguments"]
    elif kind == "tool_call_response" and content.keys() == {"toolCalls", "toolResults"}:
        content = content["toolResults"]
    elif isinstance(content, dict):
        content = {key: value for key, value in content.items() if key != "stack"}
    rest = metadata | {key: record[key] for key in ("externalUserId", "given") if key in record}
    told = (kind, record["stepId"], record.get("parentStepId"), record["metadata"]["within"], name, content)
    return (*told, rest) if rest else told


def tool(
    name: str, arguments: dict[str, Any], results: dict[str, Any], *, step: int = 1, parent: int | None = None
) -> list[Row]:
    """Return the two rows of a tool call at the top of a trace in which nothing else was recorded."""
    return [
        ("tool_call_request", step, parent, 0, name, arguments),
        ("tool_call_response", step + 1, step, step, name, results),
    ]


def failed_tool(name: str, arguments: dict[str, Any], error: dict[str, Any]) -> list[Row]:
    """Return the three rows of a tool call that raised, in a trace of its own."""
    return [
        ("tool_call_request", 1, None, 0, name, arguments),
        ("error", 2, 1, 1, name, error),
        ("tool_call_response", 3, 1, 1, name, {"error": error}, {"outcome": "error"}),
    ]


def cancelled_tool(name: str, arguments: dict[str, Any], **items: Any) -> list[Row]:
    """Return the two rows of a tool call that was cancelled, in a trace of its own."""
    return [
        ("tool_call_request", 1, None, 0, name, arguments),
        ("tool_call_response", 2, 1, 1, name, {"cancelled": True, **items}, {"outcome": "cancelled"}),
    ]
