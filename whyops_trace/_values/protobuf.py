"""
Messages of Protocol Buffers, and of proto-plus on them, as the fields that are set.

The classes of messages are made by the package and have no subclasses, so no code of a user runs.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

from whyops_trace._values.reflection import Pairs, Reader, attributes_of, package_of


def _message(value: Any, base: Any, limit: int) -> Pairs:
    fields = islice(base.ListFields(value), limit)
    return Pairs((field.name, _contents(content, limit)) for field, content in fields)


def _contents(content: Any, limit: int) -> Any:
    """Return the content of a field: of a repeated one its items, of a map its entries."""
    kind: Any = type(content)
    if package_of(kind) != "google" or hasattr(kind, "ListFields"):
        return content
    return Pairs(islice(content.items(), limit)) if hasattr(kind, "items") else content[:limit]


def _first(value: Any, base: Any, limit: int) -> Any:
    """Return the content of the only field: a value of JSON, or a container of such values."""
    for field, content in base.ListFields(value):
        return None if field.name == "null_value" else _contents(content, limit)
    return {} if base.__name__ == "Struct" else [] if base.__name__ == "ListValue" else None


#: Readers by the names of their classes.
PROTOBUF: Final[dict[str, Reader]] = {
    "google._upb._message.Message": _message,
    **dict.fromkeys(
        (f"google.protobuf.struct_pb2.{name}" for name in ("ListValue", "Struct", "Value")), _first
    ),
    "proto.message.Message": lambda value, base, limit: attributes_of(value).get("_pb"),
}
