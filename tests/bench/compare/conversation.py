"""
An agent's conversation: every turn asks a model with all that was said before, and with the same tools.

The system prompt and the tools have 50 KB, a turn has 1 to 3.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

SENTENCE = """The parcel of order 8841 left "Köln" at 9:40,
and its label {"city": "Bonn", "shelf": [2, 4]} was scanned twice -- see https://example.com/scan?id=7 : 42 % done."""
WORDS = SENTENCE.split(" ")
#: Ways to hold what was said: the same dicts all the time; made anew from JSON for each turn, as by a program that
#: keeps its state in a database; and with the objects that a provider's package returns.
HELD = ("same", "rebuilt", "objects")


def text(choices: random.Random, size: int) -> str:
    """Return a text of some characters."""
    words: list[str] = []
    while sum(map(len, words)) + len(words) < size:
        words += choices.choices(WORDS, k=max(1, size // 12))
    return " ".join(words)[:size]


def tools(choices: random.Random) -> list[Any]:
    """Return the definitions of twenty tools, of a kilobyte each."""
    return [
        {
            "type": "function",
            "function": {
                "name": f"tool_{number}",
                "description": text(choices, 500),
                "parameters": {
                    "type": "object",
                    "required": ["a0", "a1"],
                    "properties": {
                        f"a{place}": {"type": "string", "description": text(choices, 60)}
                        for place in range(5)
                    },
                },
            },
        }
        for number in range(20)
    ]


def turns(count: int, held: str, marks: Iterator[int]) -> Iterator[tuple[list[Any], list[Any], Any]]:
    """
    Yield the messages, the tools and the answer of each turn.

    Args:
        count: Number of turns.
        held: One of :data:`HELD`.
        marks: Numbers by which calls are told at the sink.
    """
    choices = random.Random(7)
    wrap: Callable[[Any], Any] = _model() if held == "objects" else dict
    given = tools(choices)
    messages: list[Any] = [{"role": "system", "content": text(choices, 30_000)}]
    for turn, mark in zip(range(count), marks, strict=False):
        messages.append(
            {"role": "user", "content": f"qz{mark:07d}. {text(choices, choices.randrange(700, 1_900))}"}
        )
        arguments = json.dumps({"a0": text(choices, 80), "a1": turn})
        said = {
            "role": "assistant",
            "content": f"z{mark:07d}. {text(choices, choices.randrange(200, 900))}",
            "tool_calls": [
                {
                    "id": f"call_{turn}",
                    "type": "function",
                    "function": {"name": "tool_3", "arguments": arguments},
                }
            ],
        }
        answer = {
            "id": f"chatcmpl-{turn}",
            "object": "chat.completion",
            "model": "gpt-4o",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": said}],
            "usage": {"prompt_tokens": 900 * turn, "completion_tokens": 90, "total_tokens": 900 * turn + 90},
        }
        yield json.loads(json.dumps(messages)) if held == "rebuilt" else messages, given, answer
        messages += [
            wrap(said),
            {"role": "tool", "tool_call_id": f"call_{turn}", "content": text(choices, 300)},
        ]


def _model() -> Callable[[Any], Any]:
    """Return what makes a message an object of pydantic, as the packages of OpenAI and Anthropic do."""
    from pydantic import BaseModel

    class Function(BaseModel):
        name: str
        arguments: str

    class ToolCall(BaseModel):
        id: str
        type: str
        function: Function

    class Message(BaseModel):
        role: str
        content: str
        tool_calls: list[ToolCall]

    return Message.model_validate
