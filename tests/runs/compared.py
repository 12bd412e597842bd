"""What is in the store of a run, beside what the framework's objects tell of it."""

from __future__ import annotations

import ast
import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeAlias

from runs.told import Ran, Told, Turn

from whyops_trace.store import Store
from whyops_trace.tree import Node, build

Record = dict[str, Any]
#: A call as the viewer shows it, with its request and its response.
Call: TypeAlias = tuple[Node, Record, Record]
#: Records with the number of another one.
_ENDS = ("step_end", "trace_end")


class Stored:
    """
    The calls of traces as the viewer shows them, with their whole records.

    Args:
        traces: The records of each trace.

    Attributes:
        calls: All calls.
        agents: The name of each node that is an agent, by its :func:`id`.
        requests: The request of each node, by its :func:`id`.
    """

    def __init__(self, traces: Iterable[list[Record]]) -> None:
        self.calls: list[Call] = []
        self.agents: dict[int, str] = {}
        self.requests: dict[int, Record] = {}
        for records in traces:
            self._add(records)

    @classmethod
    def of_home(cls, home: Path) -> Self:
        """Return what is in the store of a home."""
        with contextlib.closing(Store(home / "traces.db")) as store:
            return cls([store.events(summary.trace_id) for summary in store.traces()])

    def _add(self, records: list[Record]) -> None:
        by_step = {record["stepId"]: record for record in records if record["eventType"] not in _ENDS}
        for node in _walk(build(records).nodes):
            asked, answered = by_step.get(node.step, {}), by_step.get(node.response, {})
            self.calls.append((node, asked, answered))
            self.requests[id(node)] = asked
            if node.kind == "step" and node.name.startswith("agent "):
                self.agents[id(node)] = node.name.removeprefix("agent ")

    def of(self, kind: str) -> list[Call]:
        """Return the calls of a kind in order of their begin."""
        found = [call for call in self.calls if call[0].kind == kind]
        return sorted(found, key=lambda call: call[0].started)

    def agents_of(self, node: Node | None) -> list[str]:
        """Return the agents that a call is in, the innermost first."""
        names = []
        while node is not None:
            if id(node) in self.agents:
                names.append(self.agents[id(node)])
            node = node.parent
        return names


def _walk(nodes: list[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        yield from _walk(node.children)


class Score:
    """How much of what was told arrived, by what it is."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()
        self.arrived: Counter[str] = Counter()
        self.missed: list[str] = []

    def add(self, what: str, told: Any, arrived: Any) -> None:
        """Count a value that was told, and whether it is the one that arrived."""
        self.told[what] += 1
        if _plain(told) == _plain(arrived):
            self.arrived[what] += 1
        else:
            self.missed.append(f"{what}: {told!r} is stored as {arrived!r}")

    def share(self, what: str) -> float:
        """Return the share that arrived, 1 if nothing was told."""
        return self.arrived[what] / self.told[what] if self.told[what] else 1.0

    def __str__(self) -> str:
        counts = [f"{what} {self.arrived[what]}/{self.told[what]}" for what in self.told]
        return "\n".join([", ".join(counts), *self.missed])


def compare(told: Told, stored: Stored) -> Score:
    """Return how much of a run is in the store, each turn and each tool call once."""
    score = Score()
    turns, tools = stored.of("llm"), stored.of("tool")
    score.add("turns", len(told.turns), len(turns))
    agents = sum(_is_call(node) for node, _, _ in stored.of("step"))
    score.add("tools", len(told.ran), len(tools) + agents)
    _compare_tokens(score, told, turns)
    for agent in told.agents:
        score.add("agents", agent, agent if agent in stored.agents.values() else None)
    rest = list(turns)
    for turn in told.turns:
        fitting = [each for each in rest if _is_turn(turn, each[2])]
        match = next((each for each in fitting if _asks_for(turn, each[2])), next(iter(fitting), None))
        if match is None:
            score.add("answers", turn, None)
            continue
        score.add("answers", True, True)
        rest.remove(match)
        _compare_turn(score, told, turn, match, stored)
    left = list(tools)
    for ran in told.ran:
        fitting = [each for each in left if _bare(each[0].name) == _bare(ran.name)]
        found = next((each for each in fitting if _call_id(each[1]) == ran.id), next(iter(fitting), None))
        runner = next((node for node, _, _ in stored.of("step") if _runs(node, ran, stored)), None)
        if found is None and runner is not None:
            score.add("ids", ran.id, _call_id(stored.requests[id(runner)]))
            score.add("askers", True, runner.asked_by is not None)
            continue
        if found is None:
            for what in ("arguments", "results", "parents"):
                score.add(what, ran, None)
            continue
        left.remove(found)
        _compare_call(score, told, ran, found, stored)
    return score


def _compare_tokens(score: Score, told: Told, turns: list[Call]) -> None:
    counts = told.totals or [(turn.input or 0, turn.output or 0) for turn in told.turns]
    stored = [_usage(answer) for _, _, answer in turns]
    score.add("tokens", _sums(counts), _sums(stored))


def _sums(counts: list[tuple[int, int]]) -> list[int]:
    return [sum(read for read, _ in counts), sum(written for _, written in counts)]


def _usage(answer: Record) -> tuple[int, int]:
    usage = answer.get("metadata", {}).get("usage", {})
    names = ("promptTokens", "cacheReadTokens", "cacheCreationTokens")
    return sum(usage.get(name, 0) for name in names), usage.get("completionTokens", 0)


def _is_turn(turn: Turn, answer: Record) -> bool:
    content = answer.get("content") or {}
    if turn.asked:
        names = [call["function"]["name"] for call in content.get("toolCalls") or () if "function" in call]
        names += [call["name"] for call in content.get("toolCalls") or () if "name" in call]
        return names == [each.name for each in turn.asked]
    return isinstance(content.get("content"), str) and content["content"].strip() == turn.text.strip()


def _asks_for(turn: Turn, answer: Record) -> bool:
    calls = (answer.get("content") or {}).get("toolCalls") or []
    return [each.id for each in turn.asked] == [call.get("id") for call in calls]


def _compare_turn(score: Score, told: Told, turn: Turn, match: Call, stored: Stored) -> None:
    node, _, answer = match
    if turn.input is not None:
        score.add("tokens", [turn.input, turn.output], _usage(answer))
    calls = (answer.get("content") or {}).get("toolCalls") or []
    for asked, call in zip(turn.asked, calls, strict=True):
        function = call.get("function", call)
        score.add("asked", asked.arguments, function.get("arguments"))
        if asked.id:
            score.add("ids", asked.id, call.get("id"))
    score.add("parents", _line(told, turn.agent), stored.agents_of(node))


def _compare_call(score: Score, told: Told, ran: Ran, found: Call, stored: Stored) -> None:
    node, request, answer = found
    score.add("arguments", ran.arguments, (request["content"]["toolCalls"] or [{}])[0].get("arguments"))
    if ran.id:
        score.add("ids", ran.id, _call_id(request))
    about, results = answer.get("metadata", {}), (answer.get("content") or {}).get("toolResults")
    if not ran.failed:
        score.add("results", ran.result, _unwrapped(results))
    says_so = isinstance(results, dict) and results.get("isError") is True
    score.add("errors", ran.failed, says_so or about.get("outcome") == "error")
    if any(ran.name == asked.name for turn in told.turns for asked in turn.asked):
        asker = node.asked_by
        score.add("askers", True, asker is not None and ran.name in asker.calls)
    score.add("parents", _line(told, ran.agent), stored.agents_of(node))


def _is_call(agent: Node) -> bool:
    """Return True if an agent was asked for as a tool, and there is no tool call around it."""
    around = agent.parent
    while around is not None and around.kind == "step" and not around.name.startswith("agent "):
        around = around.parent
    return agent.asked_by is not None and (around is None or around.kind != "tool")


def _runs(node: Node, ran: Ran, stored: Stored) -> bool:
    """Return True if an agent is the call."""
    return _is_call(node) and stored.agents.get(id(node)) == ran.name


def _line(told: Told, agent: str) -> list[str]:
    """Return an agent, the one that it works for, and so on."""
    names = []
    while agent:
        names.append(agent)
        agent = told.agents[agent]
    return names


def _bare(name: str) -> str:
    """Return the name of a tool as models are told of it."""
    return name.casefold().replace(" ", "_")


def _call_id(request: Record) -> str:
    return str(request.get("metadata", {}).get("callId", ""))


def _unwrapped(results: Any) -> Any:
    """Return a result that is no object out of the member that holds it."""
    return results["result"] if isinstance(results, dict) and results.keys() == {"result"} else results


def _plain(value: Any) -> Any:
    """Return a value of which texts that are JSON, or are written as Python does, are decoded, and tuples are lists."""
    if isinstance(value, str):
        for read in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError):
                return _plain(read(value))
        return value.strip()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
