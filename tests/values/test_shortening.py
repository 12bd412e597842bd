"""What is recorded of values that are too large, and what that costs."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import tracemalloc
from collections.abc import Callable
from datetime import date
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from secret_forms import TOKENS
from strategies import SECRET, STEADY, hiding_values, json_values

from whyops_trace._values.encoding import encoder
from whyops_trace._values.processor import REDACTED, Redactor
from whyops_trace._values.shortening import shortened
from whyops_trace._values.truncation import truncated

ROOM = 100_000
hides = Redactor().hides
whole = encoder(hides)
encode = encoder(hides, ROOM)

NOTE = re.compile(r" \.\.\. \[cut ([\d,]+) of ([\d,]+) (\w+)\] \.\.\. ")
#: A private key of RSA with 16,384 bits: its lines, between the marks.
KEY = "-----BEGIN PRIVATE KEY-----\n" + "Ab3/" * 16 * 190 + "\n-----END PRIVATE KEY-----"


def recorded(value: Any) -> Any:
    """Return what is read of a value that was recorded in *ROOM* bytes."""
    encoded = truncated(encode(value), ROOM)
    assert len(encoded) <= ROOM
    return json.loads(encoded)


@dataclasses.dataclass
class Document:
    text: str
    page: int


class Model(pydantic.BaseModel):
    text: str


@STEADY
@given(json_values)
def test_what_fits_is_recorded_as_it_is(value: Any) -> None:
    """The room for a value changes nothing that has room."""
    assert encode(value) == whole(value)


@STEADY
@given(st.lists(hiding_values, max_size=5), st.integers(100, 5_000))
def test_secrets_of_large_values_are_hidden(values: list[Any], room: int) -> None:
    """Whatever is cut."""
    long = [*values, {"note": "a word " * 2_000, "password": SECRET * 1_000}]
    encoded = encoder(hides, room)(long)

    assert SECRET.encode() not in encoded
    json.loads(encoded)


LARGE: dict[str, Callable[[str], Any]] = {
    "alone": lambda text: text,
    "argument": lambda text: {"n": 1, "log": text},
    "below a flaw": lambda text: {"day": date(2026, 1, 2), "log": text},
    "dataclass": lambda text: Document(text, 1),
    "model": lambda text: [Model(text=text)],
    "bytes": lambda text: text.encode(),
    "bytearray": lambda text: {"body": bytearray(text.encode())},
    "memoryview": lambda text: memoryview(text.encode()),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_text_keeps_head_and_tail(kind: str) -> None:
    """Up to what a record can hold, wherever the text stands; one note says how much of all is missing."""
    line = 'level=info msg="order 4711" path=/a/b\n'
    text = "FIRST\n" + line * 40_000 + "LAST"
    left = recorded(LARGE[kind](text))
    while not isinstance(left, str):
        left = max(left.values() if isinstance(left, dict) else left, key=lambda item: len(json.dumps(item)))

    head, missing, total, _, tail = NOTE.split(left)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert int(total.replace(",", "")) == len(text)
    assert int(missing.replace(",", "")) == len(text) - len(head) - len(tail)
    assert len(json.dumps(left)) > ROOM * 0.9


def test_texts_of_other_scripts_are_counted_right() -> None:
    """Bytes that are a text are counted in bytes, as nobody knows how many characters they are."""
    text = "äöü€" * 500_000
    for value, length in ((text, len(text)), (text.encode(), len(text.encode()))):
        head, _, total, unit, tail = NOTE.split(recorded(value))

        assert text.startswith(head)
        assert text.endswith(tail)
        assert int(total.replace(",", "")) == length
        assert unit == ("characters" if value is text else "bytes")


@pytest.mark.parametrize("size", [15_000, 40_000, 90_000])
def test_no_part_of_bytes_of_other_scripts_is_kept_twice(size: int) -> None:
    """Head and tail share the room by bytes, of which a character has several."""
    text = "".join(f"{n} 日本語の文章、" for n in range(size // 7)).encode()
    head, missing, total, _, tail = NOTE.split(encoder(hides, len(text) * 7 // 8)(text).decode()[1:-1])

    assert int(total.replace(",", "")) == len(text)
    assert int(missing.replace(",", "")) == len(text) - len(head.encode()) - len(tail.encode()) > 0


def test_large_bytes_keep_head_and_tail() -> None:
    """In base64, of which both are true parts."""
    data = bytes(range(256)) * 20_001 + b"\xff"
    left = recorded({"image": data})["image"]
    head, _, total, _, tail = NOTE.split(left["base64"])
    encoded = base64.b64encode(data).decode()

    assert left["bytes"] == len(data)
    assert encoded.startswith(head)
    assert encoded.endswith(tail)
    assert int(total.replace(",", "")) == len(encoded)


@pytest.mark.parametrize(
    "make",
    [str, lambda text: {"text": text, "page": 3}, lambda text: Document(text, 3)],
    ids=["text", "dict", "object"],
)
def test_of_many_large_texts_each_has_its_share(make: Callable[[str], Any]) -> None:
    """The first ones don't take the room of the others."""
    left = recorded([make(f"{n} " + "word " * 10_000) for n in range(100)])
    texts = [item if isinstance(item, str) else item["text"] for item in left]

    assert [text.split()[0] for text in texts] == [str(n) for n in range(100)]
    assert max(map(len, texts)) < 2 * min(map(len, texts))
    assert len(json.dumps(left)) > ROOM * 0.5


@pytest.mark.parametrize("number", [int, float], ids=["integers", "floats"])
def test_a_long_list_of_numbers_keeps_head_and_tail(number: Callable[[int], Any]) -> None:
    """About as many as a record can hold."""
    numbers = [number(n) for n in range(1_000_000)]
    left = recorded(numbers)
    place = next(n for n, item in enumerate(left) if isinstance(item, str))

    assert left[:place] == numbers[:place]
    assert left[place + 1 :] == numbers[-(len(left) - place - 1) :]
    assert left[place] == f"[cut {len(numbers) - len(left) + 1:,} items]"
    assert len(json.dumps(left)) > ROOM * 0.6


def test_many_lists_of_numbers_share_what_a_record_can_hold() -> None:
    """Those for which there is no room keep the ends of theirs."""
    rows = json.loads(encode([[0.5 + n] * 1_536 for n in range(1_000)]))

    assert len(json.dumps(rows)) < 5 * ROOM
    assert len(rows) == 1_000
    assert rows[0] == [0.5] * 1_536
    assert rows[-1] == [*[999.5] * 8, "[cut 1,520 items]", *[999.5] * 8]


def test_a_long_list_that_has_to_be_mended_keeps_head_and_tail() -> None:
    """A copy is bounded, and the end is as telling as the beginning."""
    left = recorded([{"day": date(2026, 1, 2), "n": n} for n in range(100_000)])

    assert left[0]["n"] == 0
    assert left[-1]["n"] == 99_999


@pytest.mark.parametrize("other", [object(), "\ud800", 2**70], ids=["object", "half a character", "large"])
def test_a_long_list_that_begins_with_numbers_may_go_on_with_anything(other: object) -> None:
    """What is guessed from its beginning need not be true of all."""
    left = recorded([*range(1_000), *[other] * 200_000])

    assert left[:1_000] == list(range(1_000))


def test_a_large_integer_is_cut() -> None:
    """Its digits are a text."""
    assert len(encode([1 << 8_000_000])) < 2 * ROOM


@pytest.mark.parametrize("kind", [str, str.encode], ids=["text", "bytes"])
@pytest.mark.parametrize("form", ["openai", "jwt", "github", "gitlab routable"])
@pytest.mark.parametrize("filler", ["word ", "x\n", "y.z,"])
def test_no_part_of_a_token_is_left_at_a_cut(form: str, filler: str, kind: Callable[[str], Any]) -> None:
    """Wherever the cut goes through it, at the end of the head or at the beginning of the tail."""
    token = TOKENS[form]
    room = 4_000
    shorten = encoder(hides, room)
    secret = {token[n : n + 12] for n in range(len(token) // 3, len(token) - 11)}
    for middle in (room // 2, 200_000 - room // 2):
        for before in range(middle - 120 - len(token), middle + 120, 7):
            text = (filler * 50_000)[:before] + "; " + token + " ; "
            text += (filler * 50_000)[: 200_000 - len(text)]
            left = shorten(kind(text)).decode()

            assert not [part for part in secret if part in left]


@pytest.mark.parametrize("offset", range(-8_400, 600, 299))
def test_no_part_of_a_long_token_is_left_at_a_cut(offset: int) -> None:
    """A JSON Web Token may hold thousands of characters."""
    header, _, signature = TOKENS["jwt"].split(".")
    token = f"{header}.eyJ{'Ab3x' * 2_000}.{signature}"
    room = 4_000
    for middle in (room // 2, 200_000 - room // 2):
        text = ("word " * 40_000)[: middle + offset] + " " + token
        text += " word" * ((200_000 - len(text)) // 5)

        assert "Ab3xAb3x" not in encoder(hides, room)(text).decode()


@pytest.mark.parametrize("offset", range(-560, -480, 2))
def test_no_part_of_a_token_is_left_without_the_word_before_it(offset: int) -> None:
    """Only the word tells that it is one."""
    room = 4_000
    cut = 200_000 - (room - 64) // 2
    text = ("word " * 40_000)[: cut + offset] + " Bearer " + "Ab3x" * 150 + " "
    text += ("word " * 40_000)[: 200_000 - len(text)]

    assert "Ab3xAb3x" not in encoder(hides, room)(text).decode()


def test_no_part_of_many_tokens_is_left_at_a_cut() -> None:
    """What is hidden before a cut makes the text shorter."""
    token = TOKENS["openai"]
    for room in range(4_000, 4_100, 7):
        left = encoder(hides, room)(f"{token} " * 5_000).decode()

        assert token[-8:] not in left
        assert token[5:13] not in left


@pytest.mark.parametrize("offset", range(-14_000, 2_000, 1_999))
def test_no_part_of_a_private_key_is_left_at_a_cut(offset: int) -> None:
    """It is longer than any token."""
    room = 4_000
    for middle in (room // 2, 200_000 - room // 2):
        text = ("word " * 40_000)[: middle + offset] + " " + KEY
        text += " word" * ((200_000 - len(text)) // 5)

        assert "Ab3/Ab3/" not in encoder(hides, room)(text).decode()


@pytest.mark.parametrize("length", [100, 1_900, 2_100, 12_000])
def test_no_part_of_a_private_key_is_left_that_the_end_of_the_text_cuts(length: int) -> None:
    """What is kept of the end then has neither of its lines."""
    text = "word " * 40_000 + KEY[:length]

    assert "Ab3/Ab3/" not in encoder(hides, 4_000)(text).decode()


@pytest.mark.parametrize("offset", range(-12_000, 1_000, 1_999))
def test_no_part_of_a_private_key_is_left_in_bytes_of_other_scripts(offset: int) -> None:
    """Wherever the bytes begin that are looked at for the tail."""
    for reach in (ROOM // 2 + 16_384, ROOM // 2):
        last = ("語" * ROOM).encode()[: (reach + offset) // 3 * 3]
        text = ("語" * ROOM + KEY).encode() + last

        assert "Ab3/Ab3/" not in encode(text).decode()


@pytest.mark.parametrize(
    "value",
    [
        "a" * 30_000_000,
        {"body": b"\xff\x00" * 15_000_000},
        {"body": b"\xff\x00" * 15_000_000, "text": b"a" * 15_000_000},
        [{"text": "word " * 10_000} for _ in range(300)],
        [Document("word " * 10_000, 1) for _ in range(300)],
        list(range(1_000_000)),
    ],
    ids=["text", "bytes", "several bytes", "dicts", "objects", "numbers"],
)
def test_a_large_value_costs_what_is_kept_of_it(value: Any) -> None:
    """Memory, and with it time: of a value of many megabytes nothing of its size is made."""
    tracemalloc.start()
    try:
        recorded(value)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 30 * ROOM + (16_000_000 if type(value) is list and len(value) > 1_000 else 0)


def test_head_and_tail_of_a_text_are_searched_together() -> None:
    """Most of a search is its start, so that of a thousand texts it would take most of the time."""
    searched = []

    def removed(json: bytes) -> bytes:
        searched.append(json)
        return json

    shortened(["word " * 10_000] * 100, hides, removed, ROOM)

    assert len(searched) == 100


def test_a_text_full_of_what_may_be_secrets_keeps_nothing_of_both_ends() -> None:
    """Its head and its tail are hidden as a whole."""
    left = recorded("password=x" * 100_000)

    assert NOTE.fullmatch(left.removeprefix(REDACTED).removesuffix(REDACTED))


def test_what_is_under_the_name_of_a_secret_is_not_looked_at() -> None:
    """However large it is."""
    assert recorded({"password": "a b " * 10_000_000, "n": 1}) == {"password": REDACTED, "n": 1}
