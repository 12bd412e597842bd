"""The line a record is: what its end says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lines import Process, encoded

from whyops_trace._recording.line import USUAL, Ending, ending_of, is_usual, texts_for_others
from whyops_trace.types import Audience

EVERYONE, LOCAL, SERVER = Audience.EVERYONE, Audience.LOCAL, Audience.SERVER


def record(ending: Ending, content: Any = None) -> bytes:
    """Return a record with an ending."""
    return Process().line("error", 1, content=content).removesuffix(b"}") + ending.text


def test_the_ends_of_lines_stay_as_they_are() -> None:
    """Journals that an older version wrote are read."""
    assert {(ending.audience, ending.ends_trace): ending.text for ending in Ending} == {
        (EVERYONE, False): b"}",
        (EVERYONE, True): b',"end":true}',
        (LOCAL, False): b',"for":"local"}',
        (LOCAL, True): b',"for":"local","end":true}',
        (SERVER, False): b',"for":"server"}',
        (SERVER, True): b',"for":"server","end":true}',
    }


@pytest.mark.parametrize("ending", Ending)
def test_a_line_tells_its_ending(ending: Ending) -> None:
    """Without being decoded."""
    assert ending_of(record(ending)) is ending
    assert is_usual(record(ending)) is (ending is USUAL)


@pytest.mark.parametrize(
    ("audience", "others"),
    [(EVERYONE, {LOCAL, SERVER}), (LOCAL, {SERVER}), (SERVER, {LOCAL})],
)
def test_what_is_for_everyone_is_for_every_audience(audience: Audience, others: set[Audience]) -> None:
    """What is for another audience is for no other."""
    texts = texts_for_others(audience)

    assert {ending.audience for ending in Ending if record(ending).endswith(texts)} == others


@given(
    ending=st.sampled_from(Ending),
    member=st.sampled_from(
        [{"for": "local"}, {"for": "server"}, {"end": True}, {"for": "local", "end": True}]
    ),
    depth=st.integers(0, 2),
)
def test_what_a_user_wrote_looks_like_no_ending(ending: Ending, member: dict[str, Any], depth: int) -> None:
    """Content ends with a brace more, whatever is in it."""
    content: Any = member
    for _ in range(depth):
        content = {"content": content}
    line = encoded({**Process().event("error", 1), "content": content}).removesuffix(b"}") + ending.text

    assert ending_of(line) is ending
