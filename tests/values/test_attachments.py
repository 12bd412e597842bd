"""Images and documents in base64: long ones are recorded by their size and hash."""

from __future__ import annotations

import base64
import hashlib
import random
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import Recorded

from whyops_trace import traced_llm, traced_tool
from whyops_trace._values.attachments import MAX_INLINE, content_of, digest

IMAGE = random.Random(1).randbytes(6_000)
TEXT = base64.b64encode(IMAGE).decode()
ABOUT = {"bytes": len(IMAGE), "sha256": hashlib.sha256(IMAGE).hexdigest()}


@pytest.mark.parametrize(
    ("text", "about"),
    [
        (TEXT, ABOUT),
        (TEXT.rstrip("="), ABOUT),
        (base64.urlsafe_b64encode(IMAGE).decode(), ABOUT),
        (base64.encodebytes(IMAGE).decode(), ABOUT),
        (base64.encodebytes(IMAGE).decode().replace("\n", "\r\n"), ABOUT),
        (f"data:image/png;base64,{TEXT}", {"mediaType": "image/png", **ABOUT}),
        (f"data:application/pdf;name=a.pdf;base64,{TEXT}", {"mediaType": "application/pdf", **ABOUT}),
        (f'data:image/png;name="a b=c.png";base64,{TEXT}', {"mediaType": "image/png", **ABOUT}),
        (f"data:;base64,{TEXT}", ABOUT),
        (
            f"data:image/svg+xml;base64,{'AAAA' * 2_000}",
            {
                "mediaType": "image/svg+xml", "bytes": 6_000,
                "sha256": hashlib.sha256(bytes(6_000)).hexdigest(),
            },
        ),
    ],
)  # fmt: skip
def test_a_long_attachment_is_told_by_size_and_hash(text: str, about: dict[str, Any]) -> None:
    """With the media type, where the text names one."""
    assert digest("data", text) == about


@pytest.mark.parametrize(
    "text",
    [
        TEXT[:MAX_INLINE],
        "Many words, and a few more of them. " * 500,
        "ACGT" * 5_000,
        "deadbeef0123" * 5_000,
        "WORDS\nand\nM0RE\n" * 1_000,
        f"{TEXT} and what it shows",
        f"See {TEXT}",
        f"data:text/plain,{TEXT}",
        "data:" + "a;a" * 100_000,
        f"https://example.org/{TEXT}",
        string.ascii_letters * 200 + "0" + "?",
    ],
)
def test_any_other_text_is_no_attachment(text: str) -> None:
    """Short ones, prose, sequences of letters, and texts with an attachment in them."""
    assert digest("data", text) is None


def test_base64_is_an_attachment_only_where_one_is_expected() -> None:
    """What somebody wrote in these letters is what they wrote; a data URL is one anywhere."""
    assert digest("content", TEXT) is None
    assert digest("content", f"data:;base64,{TEXT}") == ABOUT


@given(st.binary(max_size=500))
def test_every_base64_is_read_in_either_alphabet(content: bytes) -> None:
    """With padding and without."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes):
        text = encode(content).decode()

        assert content_of(text) == content_of(text.rstrip("=\n")) == content


def test_attachments_of_a_request_are_recorded_by_size_and_hash(events: Recorded) -> None:
    """Those of OpenAI's and Anthropic's kinds alike; the caller's stay as they are, and so do short ones."""
    asked: list[Any] = []

    @traced_llm
    def ask(messages: Any) -> str:
        asked.append(messages)
        return "A cat."

    url = {"url": f"data:image/png;base64,{TEXT}"}
    source = {"type": "base64", "media_type": "image/png", "data": TEXT}
    small = {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGODlhAQABAAAAACw="}}
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": url},
                {"type": "image", "source": source},
                {"type": "file", "file": {"file_data": TEXT}},
                small,
            ],
        }
    ]
    ask(messages)
    ask(TEXT)  # a prompt, whatever it looks like
    content = events.records[0]["content"]["messages"][0]["content"]

    assert asked[0] is messages
    assert url["url"].endswith(TEXT)
    assert content == [
        {"type": "image_url", "image_url": {"url": {"mediaType": "image/png", **ABOUT}}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ABOUT}},
        {"type": "file", "file": {"file_data": ABOUT}},
        small,
    ]
    assert events.records[2]["content"]["messages"] == [{"role": "user", "content": TEXT}]


def test_images_that_a_model_made_are_recorded_by_size_and_hash(events: Recorded) -> None:
    """In the tool that made them, and in the response as the provider had it."""
    made = {"type": "image_generation_call", "status": "completed", "result": TEXT}

    @traced_llm
    def paint(prompt: str) -> Any:
        return {"object": "response", "status": "completed", "model": "m", "output": [made]}

    paint("A cat.")
    results = [
        each["content"]["toolResults"] for each in events.records if each["eventType"] == "tool_call_response"
    ]

    assert results == [ABOUT]
    assert [each["metadata"]["rawResponse"]["output"][0]["result"] for each in events.records[3:4]] == [ABOUT]


def test_encrypted_thoughts_are_recorded_as_they_are(events: Recorded) -> None:
    """However long: who asks the model again has to send them back."""
    thought = {"type": "redacted_thinking", "data": TEXT}
    detail = {"type": "reasoning.encrypted", "data": TEXT, "id": "r1"}
    message = {"role": "assistant", "content": "Yes.", "reasoning_details": [detail]}
    answers: list[Any] = [
        {
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [thought, {"type": "text", "text": "Yes."}],
        },
        {"object": "chat.completion", "model": "m", "choices": [{"index": 0, "message": message}]},
    ]

    @traced_llm
    def ask(messages: Any) -> Any:
        return answers.pop(0)

    ask([{"role": "user", "content": "?"}])
    ask([{"role": "assistant", "content": [thought]}, {"role": "user", "content": "And?"}])
    turns = [each for each in events.records if each["eventType"] == "llm_response"]
    raw = [each["metadata"]["rawResponse"] for each in turns]

    assert raw[0]["content"][0] == thought
    assert raw[1]["choices"][0]["message"]["reasoning_details"] == [detail]
    asked = [each for each in events.records if each["eventType"] == "user_message"]
    assert asked[1]["content"]["messages"][0]["content"] == [thought]


def test_what_a_tool_returns_is_recorded_as_it_is(events: Recorded) -> None:
    """Only requests repeat their attachments in each turn."""

    @traced_tool
    def photograph() -> str:
        return TEXT

    photograph()

    assert events.records[1]["content"]["toolResults"] == {"result": TEXT}
