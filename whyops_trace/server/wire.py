"""
Events from the body of a request: each fits the store, or the body is refused with the errors of its events.

Clients are programs in any language. Every event that passes these checks can be shown later.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, get_args

import msgspec
from msgspec import UNSET, Raw

from whyops_trace._checks import MAX_ID, MAX_NAME, MAX_STEP, size
from whyops_trace.store.collection import SentEvent, SentMetadata, metadata_decoder
from whyops_trace.types import EventType

#: Largest number of nested objects and lists.
MAX_DEPTH: Final = 200
#: Largest number of errors reported for one body. An answer with millions of them would take a gigabyte.
MAX_VIOLATIONS: Final = 100
#: Pattern of the tokens that decide the depth of a document.
_STRINGS_AND_BRACKETS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)
#: Types whose metadata has to name a tool, and a model.
_TOOL_TYPES: Final = ("tool_call_request", "tool_call_response")
_MODEL_TYPES: Final = ("llm_response", "embedding_response")

_TEXT_ID: Final = f"text of at most {MAX_ID} characters"
_STEP: Final = f"a whole number from 1 to {MAX_STEP}"
#: Allowed values of each member, in words.
_MUST_BE: Final = {
    "eventType": f"one of {', '.join(get_args(EventType))}",
    "traceId": f"text of 1 to {MAX_ID} characters",
    "agentName": f"text of 1 to {MAX_NAME} characters",
    "spanId": _TEXT_ID,
    "stepId": _STEP,
    "parentStepId": _STEP,
    "timestamp": "ISO 8601 in UTC that ends in Z, such as 2026-01-31T12:00:00.000Z",
    "metadata": "an object",
    "idempotencyKey": _TEXT_ID,
    "externalUserId": f"text of at most {MAX_NAME} characters",
    **dict.fromkeys(("userId", "projectId", "environmentId", "providerId"), "a UUID"),
}
#: Words of msgspec's error messages, and the code of a WhyOps server for each.
_CODES: Final = (
    ("Invalid enum value", "invalid_enum_value"),
    ("matching regex", "invalid_string"),
    ("Invalid UUID", "invalid_string"),
    ("<=", "too_big"),
    (">=", "too_small"),
)

E = TypeVar("E", bound=SentEvent)


class SentToolResult(SentEvent, kw_only=True, gc=False):
    """An event whose type follows from the address of the request."""

    event_type: Any = "tool_call_response"

    def __post_init__(self) -> None:
        self.event_type = "tool_call_response"


class Violation(NamedTuple):
    """
    An error in a body.

    Attributes:
        field: Path of the member, led by the index of the event if the body is an array.
        message: Description of the error, with the allowed values.
        code: Kind of the error.
        error: Name of the error on a WhyOps server, "" if it has none.
    """

    field: str
    message: str
    code: str
    error: str = ""


class RefusedError(Exception):
    """
    A body of which nothing is stored.

    Args:
        violations: The errors in it.
    """

    def __init__(self, *violations: Violation) -> None:
        super().__init__(violations[0].message)
        self.violations = violations

    @property
    def answer(self) -> dict[str, Any]:
        """The body of the answer."""
        details = [
            {"field": each.field, "message": each.message, "code": each.code} for each in self.violations
        ]
        return {"error": self.violations[0].error or "Validation failed", "details": details}


def read_events(body: bytes, kind: type[E]) -> tuple[list[E], bool]:
    """
    Return the events in a body, and True if it is an array.

    Args:
        body: JSON: an event, or an array of events.
        kind: The class of each event.

    Raises:
        RefusedError: if it is neither, or an event cannot be stored. The error names the event and the reason.
    """
    kind_of_body = type(_checked_json(body))
    if kind_of_body not in (list, dict):
        raise RefusedError(Violation("", "The body must be an event or an array of events.", "invalid_type"))
    is_array = kind_of_body is list
    array = body if is_array else b"[" + body + b"]"
    events: list[E]
    try:
        events = msgspec.json.decode(array, type=list[kind])  # type: ignore[valid-type]
    except msgspec.ValidationError:
        _refuse(array, kind, is_array)
    violations = (
        violation._replace(field=f"{index}.{violation.field}" if is_array else violation.field)
        for index, event in enumerate(events)
        for violation in _violations(event)
    )
    errors = list(itertools.islice(violations, MAX_VIOLATIONS))
    if errors:
        raise RefusedError(*errors)
    return events, is_array


def _checked_json(body: bytes) -> object:
    """
    Return the value of a body, decoded and checked in every part.

    Raises:
        RefusedError: if it is not JSON, or holds half of a surrogate pair.
    """
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise RefusedError(_too_deep("")) from None
    except msgspec.DecodeError as error:
        if "out of range" in str(error):
            message = "The body holds a number beyond 1.8e308, or of more than 4300 digits: send it as text."
            raise RefusedError(Violation("", message, "invalid_number")) from None
        if _is_json(body):
            message = (
                "The body holds half of a surrogate pair (\\ud800 to \\udfff), which is no text: "
                "cut texts between characters."
            )
            raise RefusedError(Violation("", message, "invalid_string")) from None
        raise RefusedError(Violation("", f"The body is not JSON: {error}.", "invalid_json")) from None
    except UnicodeDecodeError:
        raise RefusedError(Violation("", "The body is not UTF-8.", "invalid_json")) from None


def _is_json(body: bytes) -> bool:
    """Return True if a body is JSON for a decoder that accepts halves of surrogate pairs."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        json.loads(body, parse_constant=refuse, parse_int=float)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(array: bytes, kind: type[SentEvent], is_array: bool) -> NoReturn:
    """Raise the errors in the members of events, of which there is at least one."""
    items = enumerate(msgspec.json.decode(array, type=list[Raw]))
    violations = (
        violation for index, item in items for violation in _misshapen(item, f"{index}." * is_array, kind)
    )
    raise RefusedError(*itertools.islice(violations, MAX_VIOLATIONS))


def _misshapen(item: Raw, where: str, kind: type[SentEvent]) -> Iterator[Violation]:
    try:
        members = msgspec.json.decode(item, type=dict[str, Raw])
    except msgspec.ValidationError:
        yield Violation(where.rstrip("."), "An event must be an object.", "invalid_type")
        return
    for name, message, code, _ in _mistyped(members, kind):
        yield Violation(where + name, message, code)


def _mistyped(members: dict[str, Raw], kind: type[SentEvent]) -> Iterator[Violation]:
    for field in msgspec.structs.fields(kind):
        name = field.encode_name
        if name in members:
            try:
                msgspec.json.decode(members[name], type=SentMetadata if name == "metadata" else field.type)
            except msgspec.ValidationError as error:
                code = next((code for words, code in _CODES if words in str(error)), "invalid_type")
                yield _wrong(name, code)
        elif field.required:
            yield Violation(name, f"{name} is missing; it must be {_MUST_BE[name]}.", "invalid_type")


def _wrong(name: str, code: str) -> Violation:
    return Violation(name, f"{name} must be {_MUST_BE[name]}.", code)


def _violations(event: SentEvent) -> Iterator[Violation]:
    """Yield the errors in an event whose members have the right types."""
    for name, text, limit in (
        ("traceId", event.trace_id, MAX_ID),
        ("agentName", event.agent_name, MAX_NAME),
        ("spanId", event.span_id, MAX_ID),
        ("idempotencyKey", event.idempotency_key, MAX_ID),
        ("externalUserId", event.external_user_id or "", MAX_NAME),
    ):
        if not text.isascii() and size(text) > limit:  # a server counts an emoji as two
            yield _wrong(name, "too_big")
    if event.timestamp is not UNSET and not _is_date(event.timestamp):
        yield _wrong("timestamp", "invalid_string")
    for name, raw in (("metadata", event.metadata), ("content", event.content)):
        if _is_too_deep(bytes(raw)):
            yield _too_deep(name)
    yield from _violations_of_metadata(event)


def _violations_of_metadata(event: SentEvent) -> Iterator[Violation]:
    try:
        metadata = metadata_decoder.decode(event.metadata)
    except msgspec.ValidationError:
        yield _wrong("metadata", "invalid_type")
        return
    kind = event.event_type
    if kind in _TOOL_TYPES and metadata.tool is None:
        yield Violation("metadata.tool", f"metadata.tool is missing; a {kind} must name its tool.", "custom")
    if kind in _MODEL_TYPES:
        for name, value in (("model", metadata.model), ("provider", metadata.provider)):
            if not value:
                yield Violation(
                    f"metadata.{name}",
                    f"metadata.{name} is missing; an {kind} must name its {name}.",
                    "custom",
                    f'MISSING_{name.upper()}: {kind} events require "{name}" in metadata',
                )


def _is_date(timestamp: str) -> bool:
    try:
        datetime.fromisoformat(timestamp[:19])
    except ValueError:
        return False
    return True


def _is_too_deep(document: bytes) -> bool:
    # Counting is fast, and hardly any document has enough brackets to need a closer look.
    if document.count(b"{") + document.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _STRINGS_AND_BRACKETS.finditer(document):
        first = token[0][:1]
        depth += (first in b"[{") - (first in b"]}")
        if depth > MAX_DEPTH:
            return True
    return False


def _too_deep(name: str) -> Violation:
    where = name or "The body"
    return Violation(name, f"{where} is nested more than {MAX_DEPTH} levels deep: flatten it.", "custom")
