"""The language of the search box."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyops_trace.server.query import Term, parse
from whyops_trace.store import Filter, ScoreTest

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", ()),
        ("refund", (Term("refund", begins=True),)),
        ("refund ", (Term("refund"),)),
        ("refund tea", (Term("refund"), Term("tea", begins=True))),
        ('"express fee" tea', (Term("express fee"), Term("tea", begins=True))),
        ('tea "express fee', (Term("tea"), Term("express fee"))),
        ("tool:charge_card", (Term("charge_card", "tool", True),)),
        ('model:"gpt 4" tea ', (Term("gpt 4", "model"), Term("tea"))),
        ("http://example.com", (Term("http://example.com", begins=True),)),
        ("a:b", (Term("a:b", begins=True),)),
        ('""', ()),
    ],
)  # fmt: skip
def test_words_are_looked_for(text: str, terms: tuple[Term, ...]) -> None:
    """The last one may be unfinished, unless something follows it."""
    assert parse(text).terms == terms


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("agent:shop user:42 tag:beta", {"agent": "shop", "user": "42", "tag": "beta"}),
        ('agent:"the shop"', {"agent": "the shop"}),
        ("error:yes failed:no", {"errors": True, "failed": False}),
        ("looping:YES running:true", {"looping": True, "running": True}),
        ("score:correct<0.5", {"scores": [ScoreTest("correct", "<", 0.5)]}),
        ('score:"tone = very rude" score:n', {"scores": [ScoreTest("tone", "=", "very rude"), ScoreTest("n")]}),
        ("answer:no", {"unanswered": True}),
        ("answer:yes", {"unanswered": False}),
        (">30s", {"min_seconds": 30.0}),
        ("<500ms >=1.5", {"max_seconds": 0.5, "min_seconds": 1.5}),
        (">2m <1h", {"min_seconds": 120.0, "max_seconds": 3600.0}),
        ("since:2d", {"since": "2026-11-20T12:00:00.000Z"}),
        ("since:1w until:90m", {"since": "2026-11-15T12:00:00.000Z", "until": "2026-11-22T10:30:00.000Z"}),
        ("since:2026-11-20T10:00Z", {"since": "2026-11-20T10:00:00.000Z"}),
    ],
)  # fmt: skip
def test_filters_say_what_a_trace_is_like(text: str, where: dict[str, Any]) -> None:
    """Without a word to look for."""
    assert parse(text, NOW) == ((), Filter(**where), ())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("error:maybe", "error:maybe is not understood: it is error:yes or error:no."),
        ("score:n<low", "'n<low' compares with 'low', which is no number."),
        (">soon", ">soon is not understood: times are written >30s, <500ms, >2m."),
        ("since:yesterday", "since:yesterday is not understood: it is since:2d or since:2026-11-20."),
        ("since:999999999d", "since:999999999d is not understood: it is since:2d or since:2026-11-20."),
        ("!?", "!? is no word: only letters and digits are searched for."),
    ],
)
def test_what_is_not_understood_is_said(text: str, problem: str) -> None:
    """And the rest of the query counts."""
    query = parse(f"{text} tag:beta", NOW)

    assert query.problems == (problem,)
    assert query.where == Filter(tag="beta")


@given(st.text())
def test_any_text_is_a_query(text: str) -> None:
    """Whatever somebody types or pastes."""
    query = parse(text, NOW)

    assert len(query.terms) <= 20
    assert all(any(map(str.isalnum, term.text)) for term in query.terms)
