"""Spans and log records as a framework sends them, in a file that is small and says nothing of a machine."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from runs.told import Told

#: Characters kept of the head and of the tail of a text. What we say is shorter, what frameworks add is longer.
_HEAD, _TAIL = 100, 60
#: Largest number of characters of a text that is JSON.
_LARGEST = 4_000
#: Paths and addresses of a machine in a text.
_PLACES = re.compile(r"(?:/[\w.+-]+){3,}|0x[0-9a-f]{6,}")
#: Members of a request whose texts are not ours.
_OTHERS = ("system", "tools")


class Golden:
    """What was sent in one run, in OTLP/JSON. It is an exporter of spans for the SDK of OpenTelemetry."""

    def __init__(self) -> None:
        self._spans: list[Any] = []
        self._logs: list[Any] = []

    def export(self, spans: Sequence[Any]) -> Any:
        """Keep the spans of an SDK."""
        from google.protobuf.json_format import MessageToDict
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.trace.export import SpanExportResult

        request = MessageToDict(encode_spans(spans))
        for span in _members(request, "resourceSpans", "scopeSpans", "spans"):
            for name in ("traceId", "spanId", "parentSpanId"):
                if name in span:
                    span[name] = base64.b64decode(span[name]).hex()
        self.keep(request)
        return SpanExportResult.SUCCESS

    def keep(self, request: dict[str, Any]) -> None:
        """Keep a request in OTLP/JSON."""
        for kind, kept in (("Spans", self._spans), ("Logs", self._logs)):
            for resource in request.get(f"resource{kind}", ()):
                resource["resource"] = {
                    "attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]
                }
                kept.append(resource)

    def force_flush(self, timeout_millis: int = 0) -> bool:
        """Return True, as nothing waits."""
        return True

    def shutdown(self) -> None:
        """Do nothing."""

    def write(self, path: Path, told: Told, packages: Sequence[str]) -> None:
        """
        Write the file, a line for each span.

        Args:
            path: The file.
            told: What the framework's objects tell of the run.
            packages: Those whose versions are written.
        """
        lines = [f'"versions": {json.dumps({name: version(name) for name in packages})}']
        lines.append(f'"told": {json.dumps(_bare(json.loads(told.to_json())), ensure_ascii=False)}')
        for name, kept in (("resourceSpans", self._spans), ("resourceLogs", self._logs)):
            text = json.dumps(_bare(kept), ensure_ascii=False, separators=(",", ":"))
            lines.append(f'"{name}": ' + re.sub(r'(?=\{"(?:traceId|timeUnixNano)")', "\n", text))
        path.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


def _members(request: dict[str, Any], *names: str) -> Iterator[Any]:
    name, *rest = names
    for each in request.get(name, ()):
        if rest:
            yield from _members(each, *rest)
        else:
            yield each


def _bare(value: Any) -> Any:
    """Return a value without places and long texts; of a text that is JSON the values in it are cut."""
    if isinstance(value, dict):
        return {name: _bare(each) for name, each in value.items() if name != "flags"}
    if isinstance(value, list):
        return [_bare(each) for each in value]
    if not isinstance(value, str):
        return value
    if value[:1] in "[{":
        try:
            inner = json.loads(value)
        except ValueError:
            inner = None
        if inner is not None:
            if isinstance(inner, dict):
                inner = {name: each for name, each in inner.items() if name not in _OTHERS}
            return _cut(json.dumps(_bare(inner), ensure_ascii=False), _LARGEST)
    return _cut(_PLACES.sub("-", value), _HEAD + _TAIL)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:_HEAD]}…{text[-_TAIL:]}"
