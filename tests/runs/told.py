"""What the objects of a framework tell of a run: its turns, its tool calls and its agents."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Asked:
    """
    A call that a turn asks for.

    Attributes:
        id: The id that the model gave it, "" if the framework does not keep it.
        name: The tool.
        arguments: Its arguments.
    """

    id: str
    name: str
    arguments: Any


@dataclass(frozen=True)
class Turn:
    """
    A turn of a model.

    Attributes:
        agent: The agent whose turn it is.
        text: What it says.
        asked: What it asks for.
        input: Its tokens of input, those from a cache included; None if the framework does not count them.
        output: Its tokens of output; None if the framework does not count them.
    """

    agent: str
    text: str = ""
    asked: list[Asked] = field(default_factory=list)
    input: int | None = None
    output: int | None = None


@dataclass(frozen=True)
class Ran:
    """
    A tool call that ran.

    Attributes:
        agent: The agent that made it.
        id: The id of the call, "" if the framework does not keep it.
        name: The tool.
        arguments: Its arguments.
        result: What the model is told of it, or the value that it returned.
        failed: It failed.
    """

    agent: str
    id: str
    name: str
    arguments: Any
    result: Any = None
    failed: bool = False


@dataclass(frozen=True)
class Told:
    """
    A run.

    Attributes:
        agents: Its agents, each with the one that it worked for, "" for none.
        turns: Its turns in order.
        ran: Its tool calls in order.
        totals: Tokens of input and of output of all turns of a model, where turns do not tell their own.
    """

    agents: dict[str, str]
    turns: list[Turn] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    totals: list[tuple[int, int]] = field(default_factory=list)

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        """Return it from decoded JSON."""
        turns = [Turn(**{**each, "asked": [Asked(**one) for one in each["asked"]]}) for each in told["turns"]]
        return cls(told["agents"], turns, [Ran(**each) for each in told["ran"]], told["totals"])
