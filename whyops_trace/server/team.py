"""
The agents of a trace: which call is whose, what each did, and who called or handed over to whom.

An agent is the run of one that a framework or ``step(kind="agent")`` tells of. A program without those may have a step
for each turn of an agent: such steps are those of agents if their names take turns, or each has a prompt of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from whyops_trace.server.skeleton import walk
from whyops_trace.story import Story
from whyops_trace.tree import Node

#: Largest number of names that steps of agents have. More are the parts of a task.
_MOST: Final = 30
#: The names of steps that tell of an agent's run and of a handoff.
_KIND: Final = re.compile(r"(agent|handoff) (.+)", re.DOTALL)

Way = Literal["called", "handed off to", "was followed by"]


class Link(NamedTuple):
    """The way in which one agent brought in another one, and how often."""

    way: Way
    to: str
    times: int


@dataclass(slots=True)
class Member:
    """
    One agent in a trace.

    Attributes:
        name: Its name.
        step: The first step of it.
        turns: Number of its turns.
        tools: Number of its tool calls.
        errors: Number of its calls that failed, or said so.
        tokens: Tokens of its turns.
        cost: Known cost of its turns in US dollars, None if none is known.
        links: The agents that it brought in.
    """

    name: str
    step: int
    turns: int = 0
    tools: int = 0
    errors: int = 0
    tokens: int = 0
    cost: float | None = None
    links: list[Link] = field(default_factory=list)


class Team:
    """
    The agents of a trace that has several, in the order in which they came in.

    Args:
        story: The trace.

    Attributes:
        members: The agents; none if the trace is that of a single one.
    """

    def __init__(self, story: Story) -> None:
        tree = story.tree
        self._whose: dict[int, str] = {}
        nodes = [row.node for row in walk(tree.nodes)]
        names = _named_by_kind(nodes) or _named_by_turns(story)
        ways: Counter[tuple[str, Way, str]] = Counter()
        members: dict[str, Member] = {}
        before = ""
        for node in nodes:
            around = self._whose[id(node.parent)] if node.parent else tree.agent_name or "program"
            name = self._whose[id(node)] = names.get(id(node), around)
            target = _told(node, "handoff")
            if target:
                ways[around, "handed off to", target] += 1
            elif name != around:
                ways[around, "called", name] += 1
            member = members.setdefault(name, Member(name, node.step))
            if node.kind == "llm" and node.answer:
                if before not in ("", name):
                    ways[before, "was followed by", name] += 1
                before = name
            _add(member, node)
        busy = {name: member for name, member in members.items() if member.turns or member.tools}
        self.members: list[Member] = list(busy.values()) if names and len(busy) > 1 else []
        calls = any(way != "was followed by" for source, way, to in ways if source in busy and to in busy)
        for (source, way, to), count in ways.items():
            # An order of turns says something only where nobody calls anybody.
            if source in busy and to in busy and calls == (way != "was followed by"):
                busy[source].links.append(Link(way, to, count))

    def name(self, node: Node) -> str:
        """Return the name of the agent whose call a node is, "" if the trace has only one."""
        return self._whose.get(id(node), "") if self.members else ""


def _add(member: Member, node: Node) -> None:
    member.turns += node.kind == "llm"
    member.tools += node.kind == "tool"
    member.errors += node.kind != "step" and (node.status == "error" or bool(node.said_failed))
    member.tokens += node.tokens.total if node.tokens else 0
    if node.cost is not None:
        member.cost = (member.cost or 0.0) + node.cost


def _told(node: Node, kind: str) -> str:
    """Return the name of the agent that a step is the run of, or the handoff to; "" for any other node."""
    told = _KIND.fullmatch(node.name) if node.kind == "step" else None
    return told[2] if told and told[1] == kind else ""


def _named_by_kind(nodes: Iterable[Node]) -> dict[int, str]:
    return {id(node): name for node in nodes if (name := _told(node, "agent"))}


def _named_by_turns(story: Story) -> dict[int, str]:
    """Return the names of the steps that hold turns, if they are those of agents."""
    turns = [section.turn for section in story.sections if section.turn]
    steps = [(turn.node.parent, turn.system) for turn in turns]
    names = [step.name for step, _ in steps if step and step.kind == "step"]
    changes = sum(one != other for one, other in pairwise(names))
    prompts = {(step.name, system) for step, system in steps if step and system}
    named = {name for name, _ in prompts}
    have_prompts = len(names) == len(turns) and len({system for _, system in prompts}) == len(prompts)
    several = 1 < len(set(names)) <= _MOST
    if not several or not (changes >= len(set(names)) or (have_prompts and named == set(names))):
        return {}
    return {id(step): step.name for step, _ in steps if step and step.kind == "step"}
