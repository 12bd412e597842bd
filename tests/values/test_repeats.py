"""Secrets that were hidden for their name stay hidden when they come up again in the same trace."""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import STEADY, texts

from whyops_trace import WhyOps, step, traced_llm, traced_tool
from whyops_trace._values.processor import REDACTED
from whyops_trace._values.secrets.repeats import MAX_TEXTS, Repeats, note
from whyops_trace.testing import capture_events

SECRET = "blue-Tiger_42"
OPEN = "The door is open."
WEIRD = [
    'say "hi" \\ back',
    "l\u00f6we-\U0001f981-42",
    "one\ntwo\tthree",
    "a/b<c>&'d'",
    'twice ""quoted""!',
    "back\\\\slash\\\nand more",
]


@dataclasses.dataclass
class Login:
    user: str
    password: str


@traced_tool
def login(credentials: Any, more: Any = None) -> str:
    return OPEN


@traced_tool(redact=["customer"])
def welcome(customer: Any) -> str:
    return OPEN


@traced_tool
def say(text: str) -> str:
    return text


@traced_tool
def fail(text: str) -> None:
    raise ValueError(text)


@traced_llm(model="m", provider="openai")
def ask(messages: list[Any]) -> Any:
    message = {"role": "assistant", "content": f"I used {SECRET}."}
    return {"object": "chat.completion", "choices": [{"message": message, "finish_reason": "stop"}]}


@pytest.fixture
def sdk() -> WhyOps:
    return WhyOps(agent_name="repeats")


WAYS = {
    "dict": lambda: login({"config": {"password": SECRET}}),
    "header": lambda: login([("Authorization", f"Bearer {SECRET}")]),
    "parameter of the decorator that is a dict": lambda: welcome({"settings": {"secret": SECRET}}),
    "raw header": lambda: login([(b"x-api-key", SECRET.encode())]),
    "member": lambda: login({"name": "API_KEY", "value": SECRET}),
    "attribute": lambda: login(None, Login("ann", SECRET)),
    "attribute of what is hidden whole": lambda: login(Login("ann", SECRET)),
    "parameter of the decorator": lambda: welcome(SECRET),
    "list": lambda: login({"recovery_codes": ["a", SECRET]}),
    "json in a text": lambda: say(json.dumps({"access_token": SECRET})),
    "address": lambda: say(f"postgres://ann:{SECRET}@db/main"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_secret_stays_hidden_when_it_comes_up_again(way: str, sdk: WhyOps) -> None:
    """In arguments, results, errors, names of steps, messages old and new, answers, JSON in texts, other threads."""
    history: list[Any] = [{"role": "user", "content": f"Is {SECRET} right?"}]
    with capture_events() as events:
        with sdk.trace("other"):
            ask(history)
        before = len(events)
        with sdk.trace("one"):
            WAYS[way]()
            say(f"It was {SECRET}!")
            with pytest.raises(ValueError, match="Tiger"):
                fail(SECRET)
            with step(f"try {SECRET}"):
                ask(history)
            history.append({"role": "tool", "tool_call_id": "1", "content": json.dumps({"said": SECRET})})
            ask(history)
        handle = sdk.trace("one")
        thread = threading.Thread(target=handle.error_sync, args=(f"no {SECRET}",))
        thread.start()
        thread.join()
        after = len(events)
        with sdk.trace("two"):
            say(SECRET)

    assert SECRET in json.dumps(events[:before])
    assert SECRET not in json.dumps(events[before:after])
    assert SECRET in json.dumps(events[after:])
    assert f"no {REDACTED}" in json.dumps(events[before:after])


@pytest.mark.parametrize("secret", WEIRD)
def test_a_secret_is_found_however_it_is_escaped(secret: str, sdk: WhyOps) -> None:
    """Quotes, backslashes, controls and other scripts, in JSON inside of JSON, by any encoder."""
    value: Any = f"<{secret}>"
    with capture_events() as events, sdk.trace():
        login({"password": secret})
        for is_ascii in (True, False, True):
            say(value)
            value = json.dumps({"v": value}, ensure_ascii=is_ascii)

    said = [event["content"]["toolCalls"][0]["arguments"]["text"] for event in events[2::2]]
    assert [f"<{REDACTED}>", json.dumps({"v": f"<{REDACTED}>"})] == said[:2]
    assert json.loads(json.loads(said[2])["v"]) == {"v": f"<{REDACTED}>"}


def test_placeholders_short_texts_and_common_words_are_not_remembered(sdk: WhyOps) -> None:
    """Or they would be missing everywhere; numbers neither."""
    common = ["required", "production", "<your token>", "short", "your-api-key", "in progress", "[redacted]"]
    with capture_events() as events, sdk.trace():
        for text in common:
            login({"token": text, "otp": 12345678})
        said = [
            say(text) and events[-1]["content"]["toolResults"]["result"] for text in [*common, "12345678"]
        ]

    assert said == [*common, "12345678"]


def test_the_latest_secrets_of_a_trace_are_remembered(sdk: WhyOps) -> None:
    """As many as there is room for."""
    with capture_events() as events, sdk.trace():
        for number in range(MAX_TEXTS + 1):
            login({"password": f"secret-number-{number}."})
        say("secret-number-0. secret-number-1. secret-number-64.")

    result = events[-1]["content"]["toolResults"]["result"]
    assert result == f"secret-number-0. {REDACTED} {REDACTED}"


@STEADY
@given(st.text(alphabet='nu0e9"\\/\n\u00e9 ', min_size=8, max_size=12) | texts, texts, st.integers(0, 2))
@example("nabc1234", "x\nabc1234", 1)
@example("00e9abcd", "x\u00e9abcd", 1)
def test_what_is_left_is_json(secret: str, around: str, depth: int) -> None:
    """At each level, whatever is removed."""
    value: Any = around + secret + around
    for _ in range(depth):
        value = json.dumps(value)
    note("", secret)
    after = json.loads(Repeats().and_noted().removed(json.dumps([value, 12345678]).encode()))

    assert after[1] == 12345678
    for _ in range(depth):
        after = [json.loads(after[0])]
