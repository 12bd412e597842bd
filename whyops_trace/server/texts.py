"""
The texts of a trace as its page shows them, for the search in it.

Each turn repeats the messages before it. Only the first occurrence of a message is searched, since the page shows it
there. So every match leads to a text that can be read there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from whyops_trace._reading.excerpt import value
from whyops_trace.server.rendering import visible
from whyops_trace.story import Message, Section, Story, ToolUse, Turn
from whyops_trace.tree import Node


def texts(story: Story) -> list[tuple[int, str]]:
    """Return the step and the text of each card of a trace, in the order of the transcript."""
    return [
        (step, visible("\n".join(filter(None, parts))))
        for section in story.sections
        for step, parts in _cards(section)
    ]


def matches(cards: Iterable[tuple[int, str]], sought: str) -> tuple[int, list[int]]:
    """
    Return the number of exact occurrences of a text in any case, and the steps of the cards with one.

    Args:
        cards: The result of :func:`texts`.
        sought: The text to search for.
    """
    folded = sought.casefold()
    counts = [(step, text.casefold().count(folded)) for step, text in cards] if folded else []
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
    arguments = use.arguments if isinstance(use.arguments, dict) else {"": use.arguments}
    yield use.node.name
    for name, one in arguments.items():
        yield from (name, _value(one))
    yield from (_value(use.result), use.error, use.stack)


def _value(thing: object) -> str:
    return thing if isinstance(thing, str) else "" if thing is None else value(thing)
