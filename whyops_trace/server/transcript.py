"""
The transcript of a trace as markup: its sections in chunks that a page fetches when they come near.

A page with the cards of ten thousand events would be slow, so a long trace has empty chunks of about the height of
their texts. The estimate need not be exact: a browser keeps the place that is being read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from whyops_trace._models.stops import stop_of
from whyops_trace._reading.excerpt import value
from whyops_trace.analysis import Finding
from whyops_trace.server.assets import Renderer
from whyops_trace.server.attachments import Attachment
from whyops_trace.server.readings import Reading
from whyops_trace.server.rendering import SHOWN
from whyops_trace.store import Score
from whyops_trace.story import Message, Section, Story, ToolUse, Turn

#: Largest number of events for which the whole transcript is in the page: Ctrl-F finds it, and no script is needed.
WHOLE: Final = 500
#: Fewest pixels of a chunk: two of them fill a screen.
CHUNK: Final = 900
#: Pixels of a line of text, and characters that fit into one.
_LINE, _COLUMNS = 18, 110
#: Number of lines of an indented value that are shown at once, by estimate.
_MEMBERS: Final = 40


@dataclass(slots=True, frozen=True)
class Chunk:
    """
    Sections that are fetched together.

    Attributes:
        first: The number of the first of them.
        end: The number after the last of them.
        height: Their height in pixels, by estimate.
    """

    first: int
    end: int
    height: int


class Transcript:
    """
    The sections of one trace as markup.

    Args:
        reading: The trace.
        renderer: Renderer of the templates.
        base: The address of the page, with which those of its parts begin; "" if there is no server behind it.
    """

    def __init__(self, reading: Reading, renderer: Renderer, base: str) -> None:
        self._reading = reading
        self._renderer = renderer
        self._base = base
        self._placed = _placed(reading)
        self._scored = scored_steps(reading)
        self._turns = {
            section.turn.number: section.turn for section in reading.story.sections if section.turn
        }

    def sections(self, first: int, end: int) -> str:
        """Return the markup of the sections from number *first* to before *end*."""
        sections = self._reading.story.sections
        numbered = [(number, sections[number]) for number in range(max(0, first), min(end, len(sections)))]
        return self._renderer.text("_sections.html", numbered=numbered, **self.context())

    def context(self) -> dict[str, Any]:
        """Return the names that the templates of the transcript use."""
        return {
            "agent": self._reading.team.name,
            "base": self._base,
            "address": self._address,
            "node": self._reading.node,
            "origins": self._reading.origins,
            "placed": self._placed,
            "scored": self._scored,
            "stop_of": stop_of,
            "turns": self._turns,
            "turn_at": self._turn_at,
        }

    def _address(self, attachment: Attachment) -> str:
        """Return the address of an attachment: of the server, or one that holds it."""
        return f"{self._base}/attachments/{attachment.digest}" if self._base else attachment.data_url

    def _turn_at(self, step: int) -> int:
        """Return the number of the turn that shows a step, 0 if no turn shows it."""
        story = self._reading.story
        place = story.steps.get(step)
        turn = None if place is None else story.sections[place].turn
        return turn.number if turn else 0


def chunks(story: Story) -> list[Chunk]:
    """Return the sections of a trace in chunks of a screen or more."""
    pieces: list[Chunk] = []
    first = height = 0
    for number, section in enumerate(story.sections):
        height += _height(section)
        if height >= CHUNK or number == len(story.sections) - 1:
            pieces.append(Chunk(first, number + 1, height))
            first, height = number + 1, 0
    return pieces


def _height(section: Section) -> int:
    """Return the height of a section in pixels, by estimate."""
    height = 34 if section.node else 0
    height += 30 * len(section.others)
    if section.turn:
        height += _turn_height(section.turn)
    return height + sum(_tool_height(use) for use in section.uses)


def _turn_height(turn: Turn) -> int:
    messages: Sequence[Message] = [message for message in turn.messages if message.role != "tool"]
    height = 80 + 26 * (
        bool(turn.earlier) + bool(turn.system) + bool(turn.thinking) + len(turn.messages) - len(messages)
    )
    height += sum(30 + _text_height(message.text) + 200 * len(message.blocks) for message in messages)
    diffs = (0 if change.only_removes else min(40, len(change.diff)) for change in turn.changes)
    height += sum(60 + _LINE * lines for lines in diffs)
    return height + (30 + _text_height(turn.answer) if turn.answer else 0) + (40 if turn.error else 0)


def _tool_height(use: ToolUse) -> int:
    arguments = use.arguments if isinstance(use.arguments, dict) else {"": use.arguments}
    result = 0 if use.result is None else _text_height(use.result)
    return 62 + 20 * len(use.changes) + sum(map(_text_height, arguments.values())) + result


def _text_height(thing: object) -> int:
    # Indenting a value is slow. Most values take a line of some 40 characters for each member.
    text = thing if isinstance(thing, str) else value(thing)
    if thing is not text and len(text) > _COLUMNS:
        return _LINE * min(_MEMBERS, 2 + len(text) // 40)
    begin = text[:SHOWN]
    lines = begin.count("\n") + 1 + len(begin) // _COLUMNS
    return _LINE * lines + (26 if len(text) > SHOWN else 0)


def scored_steps(reading: Reading) -> dict[int, list[Score]]:
    """Return the scores of steps, by the step of the node that shows them."""
    scored: dict[int, list[Score]] = {}
    for score in reading.summary.scores:
        if score.step:
            scored.setdefault(reading.node(score.step), []).append(score)
    return scored


def _placed(reading: Reading) -> dict[int, list[Finding]]:
    """Return the findings, by the step of the node that shows them."""
    placed: dict[int, list[Finding]] = {}
    for finding in reading.findings or ():
        if finding.steps:
            placed.setdefault(reading.node(finding.steps[0]), []).append(finding)
    return placed
