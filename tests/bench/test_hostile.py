"""Texts that are made to hold up the search for secrets: the time for each should be near that of prose as long."""

from __future__ import annotations

from typing import Any

import pytest

from whyops_trace._values.processor import Processor

PROSE = "The committee met on Tuesday and agreed that the plan was sound; two members asked for more time to read it. "
#: What a text is filled with.
FILLINGS = [
    PROSE, "password=", "password: ", "token: '", '"password":[', '\\"password\\":\\"', "Cookie: a=b; ",
    "--token a1b2c3d4 ",
    "Authorization: Digest a=b,", "('password','", "?sig=", "curl -u a:bcd ", "eyJ", "_eyJ", "eyJa.", "sk-a1",
    "AKIA ", "hvs.",
    "A1b2", "-", "_", ".", "=", ":", '\\"', "a=b ", "some_snake_name ", "://a:b@", "-----BEGIN PRIVATE KEY-----",
    "0b9fcd2e-0c5a-4c4e-9a4e-6e0d1f9a7c11 ", "_sk-a1'!api/webhooks/1", "ABCDEFGHIJ", "A=", "-us", "-a-",
    "a: ", "gsk_a1b2c3d4e5f6g7h8 ", "bedrock-api-key- ",
]  # fmt: skip


#: Texts of lines that all differ.
LISTINGS = {
    "environment": "SERVICE_{0}_HOST=10.0.0.{0}\n", "queries": "k{0}=v{0} ", "names": "key_{0}=v{0} ",
    "other names": "token{0}x=v{0} ", "members": "k{0}: v{0} ",
}  # fmt: skip


@pytest.mark.parametrize("size", [50_000, 200_000], ids=lambda size: f"{size:,}")
@pytest.mark.parametrize("filling", FILLINGS)
def test_encoding(measure: Any, filling: str, size: int) -> None:
    """A text with nothing else in it."""
    encode = Processor(max_event_bytes=1_000_000, sample_rate=1.0).encode
    text = (filling * (size // len(filling) + 1))[:size]
    measure(f"hostile text of {size:,} characters", encode, text, calls=1, rounds=10)


@pytest.mark.parametrize("size", [50_000, 200_000], ids=lambda size: f"{size:,}")
@pytest.mark.parametrize("line", LISTINGS)
def test_encoding_a_listing(measure: Any, line: str, size: int) -> None:
    """A text of names that all differ."""
    encode = Processor(max_event_bytes=1_000_000, sample_rate=1.0).encode
    text = "".join(LISTINGS[line].format(number) for number in range(size // 8))[:size]
    measure(f"listing of {size:,} characters", encode, text, calls=1, rounds=10)
