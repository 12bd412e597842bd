"""What a client registers of its agent, and what is wrong with it, in the form of a WhyOps server."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from whyops_trace._checks import MAX_NAME

_Text = Annotated[str, Meta(min_length=1)]

#: How msgspec words what is wrong with a body, and the parts of where.
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
_TYPES: Final = re.compile(r"Expected `(\w+)`, got `(\w+)`")
_PART: Final = re.compile(r"\.?(\w+)|\[(\d+)\]")
#: The types of members that are no text.
_MEMBERS: Final = {"metadata": "object", "tools": "array", "samplingRate": "number"}
#: Names of types in JSON.
_JSON_TYPES: Final = {
    "str": "string",
    "int": "number",
    "float": "number",
    "bool": "boolean",
    "null": "null",
    "array": "array",
    "object": "object",
}


class Tool(msgspec.Struct, rename="camel"):
    """A tool as an agent declares it; the schemas are JSON as text."""

    name: _Text
    input_schema: _Text
    output_schema: _Text
    description: _Text


class Definition(msgspec.Struct, rename="camel"):
    """What defines a version of an agent, its members in the order they are hashed in."""

    system_prompt: _Text
    tools: list[Tool]
    description: str | UnsetType = UNSET


class AgentInit(msgspec.Struct, rename="camel"):
    """The body of a registration."""

    agent_name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    metadata: Definition


class SamplingRate(msgspec.Struct, rename="camel"):
    """How much of an agent's traces is asked to be kept."""

    sampling_rate: Annotated[float, Meta(ge=0, le=1)]


def issue(error: msgspec.DecodeError) -> dict[str, Any]:
    """Return what is wrong with a body as the body of an answer."""
    what, _, path = str(error).partition(" - at `$")
    where: list[str | int] = [name or int(index) for name, index in _PART.findall(path)]
    missing, types = _MISSING.fullmatch(what), _TYPES.fullmatch(what)
    found: dict[str, Any]
    if missing:
        where.append(missing[1])
        expected = _MEMBERS.get(missing[1], "string")
        found = {"code": "invalid_type", "expected": expected, "received": "undefined"}
        found |= {"path": where, "message": "Required"}
    elif types:
        expected, received = (_JSON_TYPES.get(name, name) for name in types.groups())
        message = f"Expected {expected}, received {received}"
        found = {"code": "invalid_type", "expected": expected, "received": received}
        found |= {"path": where, "message": message}
    else:
        code = "too_big" if "<=" in what else "too_small" if ">=" in what else "invalid_json"
        found = {"code": code, "path": where, "message": what.replace("`", "")}
    return {"success": False, "error": {"issues": [found], "name": "ZodError"}}
