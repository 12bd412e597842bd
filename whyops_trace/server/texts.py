"""
The texts of a trace as its page shows them, for the search in it.

Each turn repeats the messages before it; searched is where something was said for the first time, which is where the
page shows it, so that every match leads to what can be read there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from whyops_trace._reading.excerpt import value
from whyops_trace.server.rendering import visible
from whyops_trace.story import Message, Section, Story, ToolUse, Turn
from whyops_trace.tree import Node


def texts(story: Story) -> list[tuple[int, str]]:
    """Return the step of each card of a trace, and all that it says, in the order of the transcript."""
    return [
        (step, visible("\n".join(filter(None, said))))
        for section in story.sections
        for step, said in _cards(section)
    ]


def matches(said: Iterable[tuple[int, str]], wanted: str) -> tuple[int, list[int]]:
    """
    Return how often a text occurs, and at which steps, letter by letter, in either case.

    Args:
        said: What :func:`texts` returned.
        wanted: What is looked for.
    """
    folded = wanted.casefold()
    counts = [(step, text.casefold().count(folded)) for step, text in said] if folded else []
    return sum(count for _, count in counts), [step for step, count in counts if count]


def _cards(section: Section) -> Iterator[tuple[int, Iterator[str]]]:
    if section.node:
        yield section.node.step, _node(section.node)
    if section.turn:
        yield section.turn.node.step, _turn(section.turn)
    for use in section.uses:
        yield use.node.step, _use(use)
    for other in section.others:
        yield other.step, _node(other)


def _node(node: Node) -> Iterator[str]:
    yield from (node.name, node.arguments, node.result, node.error)


def _turn(turn: Turn) -> Iterator[str]:
    yield from (turn.node.name, turn.node.model, turn.system, *turn.offered)
    for message in turn.messages:
        yield from _message(message)
    yield from (*turn.thinking, turn.answer, turn.error, turn.finish_reason)
    for call in turn.calls:
        if not call.step:
            yield from (call.name, _value(call.arguments))


def _message(message: Message) -> Iterator[str]:
    yield from (message.role, message.name, message.text, message.other)
    for call in message.calls:
        yield from (call.name, _value(call.arguments))


def _use(use: ToolUse) -> Iterator[str]:
    given = use.arguments if isinstance(use.arguments, dict) else {"": use.arguments}
    yield use.node.name
    for name, one in given.items():
        yield from (name, _value(one))
    yield from (_value(use.result), use.error, use.stack)


def _value(thing: object) -> str:
    return thing if isinstance(thing, str) else "" if thing is None else value(thing)
