"""What is recorded of a call for those who replay it: what the result does not say itself, and nothing else."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from recorded import Recorded

from whyops_trace import traced_tool


@pytest.mark.parametrize(
    ("result", "about"),
    [
        ({"a": 1}, {}),
        ([1], {}),
        (None, {}),
        ("text with [redacted] in it", {}),
        (5, {}),
        ({"result": 5}, {"returned": "dict"}),
        ((1, 2), {"returned": "tuple"}),
        (b"\x00", {"returned": "bytes"}),
        (ValueError("v"), {"returned": "ValueError"}),
        ({"password": "hunter2"}, {"redacted": True}),
        ("Authorization: Bearer sk-live-4eC39HqLyjWDarjtT1zdp7dc", {"redacted": True}),
        ({"password": "hunter2", "text": "[redacted]"}, {"redacted": True}),
    ],
)
def test_a_result_says_what_it_was(events: Recorded, result: Any, about: dict[str, Any]) -> None:
    """Its class if that is no JSON, and whether a secret was taken out; usual results say nothing."""

    @traced_tool
    def tool() -> Any:
        return result

    tool()
    metadata = events.records[1]["metadata"]

    assert {
        name: metadata[name] for name in ("returned", "redacted", "captured") if name in metadata
    } == about


def test_a_result_that_is_left_out_says_so(events: Recorded) -> None:
    """It could be taken for an empty object."""

    @traced_tool(capture_output=False)
    def tool() -> dict[str, int]:
        return {"a": 1}

    tool()

    assert events.records[1]["metadata"]["captured"] is False


def test_a_generator_says_what_it_returned(events: Recorded) -> None:
    """Beside its items, if it returned something."""

    @traced_tool
    def tool(value: Any) -> Generator[int, None, Any]:
        yield 1
        return value

    list(tool("end"))
    list(tool(None))

    assert events.records[1]["content"]["toolResults"] == {"items": [1], "count": 1, "returned": "end"}
    assert events.records[3]["content"]["toolResults"] == {"items": [1], "count": 1}


class OddError(Exception):
    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail, self.handle, self._hidden = code, detail, object(), 1


@pytest.mark.parametrize(
    ("error", "more"),
    [
        (ValueError("v"), {}),
        (KeyError("k"), {}),
        (ValueError("v", 1), {"arguments": ["v", 1]}),
        (FileNotFoundError(2, "No such", "f"), {"arguments": [2, "No such", "f"]}),
        (OddError(5, detail="d"), {"attributes": {"code": 5, "detail": "d"}}),
        (ValueError(object()), {}),
    ],
)
def test_an_error_says_what_its_message_does_not(
    events: Recorded, error: Exception, more: dict[str, Any]
) -> None:
    """Its arguments and public attributes, if they are plain values."""

    @traced_tool
    def tool() -> None:
        raise error

    with pytest.raises(type(error)):
        tool()
    content = events.records[1]["content"]

    assert {name: content[name] for name in ("arguments", "attributes") if name in content} == more
