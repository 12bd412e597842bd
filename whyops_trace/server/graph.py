"""
A drawing of the agents of a trace: a box for each, and an arrow for whom it brought in.

An agent stands to the right of the one that brought it in first. Arrows back run below the boxes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from whyops_trace._reading.excerpt import cells, clean, counted, dollars, shorten
from whyops_trace.server.team import Link, Member

#: Largest number of agents that are drawn: more are a tangle, and the table says the same.
AGENTS: Final = 12
#: Size of a box, and the distance to the next one, in pixels.
WIDTH, HEIGHT = 160, 58
_BESIDE, _BELOW = 112, 24
_MARGIN: Final = 6
#: Columns of a name, and the characters of its end that stay if it is longer: names often differ in a number.
_NAME, _END = 20, 7
#: Depth of an arrow that leads back, below the lower one of its boxes.
_ARC: Final = 30


class Box(NamedTuple):
    """
    An agent in the drawing.

    Attributes:
        x: Its left edge.
        y: Its upper edge.
        name: Its name, shortened.
        member: The agent.
        work: Its turns and calls of tools in words.
        cost: Its cost in words, "" if none is known.
    """

    x: int
    y: int
    name: str
    member: Member
    work: str
    cost: str


class Arrow(NamedTuple):
    """
    The line from an agent to one that it brought in.

    Attributes:
        path: Its line, as a path of SVG.
        x: The middle of its label.
        y: The base line of its label.
        label: What it stands for.
        way: ``called``, ``handed`` or ``followed``: the first thing that it stands for.
    """

    path: str
    x: int
    y: int
    label: str
    way: str


class Drawing(NamedTuple):
    """
    The drawing, whose upper left corner is at 0, 0.

    Attributes:
        width: Its width in pixels.
        height: Its height in pixels.
        boxes: The agents.
        arrows: The arrows between them.
    """

    width: int
    height: int
    boxes: list[Box]
    arrows: list[Arrow]


def drawing(members: Sequence[Member]) -> Drawing | None:
    """Return the drawing of some agents, None if nobody brought in anybody, or if they are too many."""
    links = {member.name: _together(member.links) for member in members}
    if len(members) > AGENTS or not any(links.values()):
        return None
    places = _places(members, links)
    arrows = [
        _arrow(places[name], places[to], each)
        for name, targets in links.items()
        for to, each in targets.items()
    ]
    boxes = [_box(member, *places[member.name]) for member in members]
    leads_back = any(places[name][0] >= places[to][0] for name, targets in links.items() for to in targets)
    right, bottom = (max(place[axis] for place in places.values()) for axis in (0, 1))
    height = bottom + HEIGHT + _MARGIN + (_ARC + _MARGIN if leads_back else 0)
    return Drawing(right + WIDTH + _MARGIN, height, boxes, arrows)


def _together(links: Sequence[Link]) -> dict[str, list[Link]]:
    """Return links by the agent that they lead to."""
    together: dict[str, list[Link]] = {}
    for link in links:
        together.setdefault(link.to, []).append(link)
    return together


def _places(
    members: Sequence[Member], links: Mapping[str, Mapping[str, object]]
) -> dict[str, tuple[int, int]]:
    """Return the left and upper edges of the boxes."""
    columns: list[list[str]] = []
    column = _columns(members, links)
    for member in members:
        at = column[member.name]
        columns += [[] for _ in range(at + 1 - len(columns))]
        columns[at].append(member.name)
    rows = max(map(len, columns))
    places: dict[str, tuple[int, int]] = {}
    for at, names in enumerate(columns):
        lead = (rows - len(names)) * (HEIGHT + _BELOW) // 2
        for row, name in enumerate(names):
            places[name] = (_MARGIN + at * (WIDTH + _BESIDE), _MARGIN + lead + row * (HEIGHT + _BELOW))
    return places


def _columns(members: Sequence[Member], links: Mapping[str, Mapping[str, object]]) -> dict[str, int]:
    """Return the column of each agent: one further than that of the agent that is the shortest way to it."""
    brought_in = {to for targets in links.values() for to in targets}
    # Those that nobody brought in begin. In a circle the one that came first does.
    beginning = [member.name for member in members if member.name not in brought_in]
    columns: dict[str, int] = {}
    for name in (*beginning, *(member.name for member in members)):
        waiting = deque([(name, 0)])
        while waiting:
            one, at = waiting.popleft()
            if one not in columns:
                columns[one] = at
                waiting += [(to, at + 1) for to in links[one]]
    return columns


def _box(member: Member, x: int, y: int) -> Box:
    tools = f", {counted(member.tools, 'tool')}" if member.tools else ""
    cost = "" if member.cost is None else dollars(member.cost)
    name = clean(member.name)
    name = name if cells(name) <= _NAME else shorten(name, _NAME - cells(name[-_END:])) + name[-_END:]
    return Box(x, y, name, member, counted(member.turns, "turn") + tools, cost)


def _arrow(source: tuple[int, int], target: tuple[int, int], links: Sequence[Link]) -> Arrow:
    label = ", ".join(
        _WORDS[link.way] + (f"{_TIMES}{link.times}" if link.times > 1 else "") for link in links
    )
    way = _WORDS[links[0].way].partition(" ")[0]
    (x, y), (to_x, to_y) = source, target
    if to_x > x:
        x, y, to_y = x + WIDTH, y + HEIGHT // 2, to_y + HEIGHT // 2
        bend = _BESIDE // 2
        path = f"M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x - 2} {to_y}"
        return Arrow(path, (x + to_x) // 2, (y + to_y) // 2 - 5, label, way)
    # From the lower edge to the lower edge, a little beside the middle, so that two of them do not meet.
    x, y, to_x, to_y = x + WIDTH * 2 // 5, y + HEIGHT, to_x + WIDTH * 3 // 5, to_y + HEIGHT
    low = max(y, to_y) + _ARC
    path = f"M{x} {y}C{x} {low} {to_x} {low} {to_x} {to_y + 2}"
    return Arrow(path, (x + to_x) // 2, (y + to_y + 6 * low) // 8 + 4, label, way)


_TIMES: Final = " \u00d7"
#: The short words for what brought an agent in.
_WORDS: Final = {"called": "called", "handed off to": "handed off", "was followed by": "followed"}
