"""Runs of agents as they are recorded, for tests of what shows them: turns that repeat their history, and tools."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lines import Process, encoded

from whyops_trace._home import STORE_FILE
from whyops_trace.store import Store

SYSTEM = "You handle the orders of a shop. Look things up; never guess."
MODEL = {"model": "gpt-4o-2024-08-06", "provider": "openai"}


class Agent:
    """
    An agent whose run is recorded call by call.

    Args:
        trace: The trace id.
        question: What its user asks.
    """

    def __init__(self, trace: str, question: str) -> None:
        self.process = Process(trace=trace)
        self.events: list[dict[str, Any]] = []
        self.clock = 0.0
        self.within = 0
        self._entered: dict[int, float] = {}
        self._step = 0
        self.messages: list[dict[str, Any]] = []
        self.begin(question)

    def begin(self, question: str) -> None:
        """Begin a conversation."""
        self._sent = 0
        self.messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]

    def step(self, name: str, kind: str = "") -> int:
        """Enter a step, in which the rest runs until it is left; *kind* is ``agent`` or ``handoff``."""
        about = {"step": name, **({"kind": kind} if kind else {})}
        step = self.add("llm_thinking", metadata=about, content={"type": "thinking", "thinking": name})
        self.within = step
        self._entered[step] = self.clock
        return step

    def leave(self, step: int, name: str, outer: int = 0) -> None:
        """Leave a step again."""
        self.within = outer
        metadata = {"step": name, "latencyMs": self.clock - self._entered[step]}
        self.events.append(
            self.process.event("step_end", step, metadata=metadata, within=outer, at=self.clock)
        )

    def turn(
        self, answer: str = "", *calls: tuple[str, Any], took: float = 900, thinks: str = "", reason: str = ""
    ) -> int:
        """Ask the model, which says something or wants tools called; returns the step of its answer."""
        last = self.messages[-1]
        if last["role"] == "tool":
            asked, content = "tool_result", {"toolName": last["name"], "output": last["content"]}
        else:
            asked, content = "user_message", {}
        content["messages"] = [dict(message) for message in self.messages]
        request = self.add(asked, metadata={"function": "ask"}, content=content)
        if thinks:
            said = {"type": "thinking", "thinking": thinks}
            self.add("llm_thinking", request, within=request, metadata={"function": "ask"}, content=said)
        self.clock += took
        wanted = [
            {"id": f"call_{request}_{number}", "function": {"name": name, "arguments": json.dumps(given)}}
            for number, (name, given) in enumerate(calls)
        ]
        sent = sum(len(str(message["content"])) for message in self.messages) // 4
        usage = {"promptTokens": sent - self._sent, "completionTokens": 40, "cacheReadTokens": self._sent}
        self._sent = sent
        reason = reason or ("tool_calls" if calls else "stop")
        spoken: dict[str, Any] = {"content": answer or None, "finishReason": reason}
        metadata = {"function": "ask", **MODEL, "latencyMs": took, "usage": usage}
        if wanted:
            spoken["toolCalls"] = wanted
        step = self.add("llm_response", request, within=request, metadata=metadata, content=spoken)
        self.messages.append({"role": "assistant", "content": answer or None, "tool_calls": wanted})
        return step

    def breaks(self, error: str) -> int:
        """Ask the model, which fails; returns the step of the request."""
        kind, message = error.split(": ", 1)
        about, content = {"function": "ask"}, {"messages": [dict(one) for one in self.messages]}
        request = self.add("user_message", metadata=about, content=content)
        failed = {"type": kind, "message": message}
        self.add("error", request, within=request, metadata={**about, **MODEL}, content=failed)
        return request

    def tool(
        self, name: str, given: Any, result: Any = None, *, by: int = 0, error: str = "", took: float = 80
    ) -> int:
        """Call a tool; returns the step of its request."""
        request = self.open_tool(name, given, by=by)
        self.clock += took
        self.answer(request, name, result, error=error, took=took)
        return request

    def answer(
        self, request: int, name: str, result: Any = None, *, error: str = "", took: float = 80
    ) -> None:
        """End a call of a tool."""
        if error:
            kind, message = error.split(": ", 1)
            failed = {"type": kind, "message": message}
            stack = f'File "shop.py", line 12, in {name}'
            self.add(
                "error", request, within=request, metadata={"tool": name}, content={**failed, "stack": stack}
            )
            result = {"error": failed}
        else:
            result = {"result": result}
        content = {"toolCalls": [{"name": name}], "toolResults": result}
        about = {"tool": name, "latencyMs": took, **({"outcome": "error"} if error else {})}
        self.add("tool_call_response", request, within=request, metadata=about, content=content)
        self.messages.append({"role": "tool", "name": name, "content": json.dumps(result)})

    def open_tool(self, name: str, given: Any, *, by: int = 0) -> int:
        """Call a tool that does not end."""
        about = {"tool": name, **({"requestedBy": by} if by else {})}
        content = {"toolCalls": [{"name": name, "arguments": given}]}
        return self.add("tool_call_request", metadata=about, content=content)

    def end(self) -> None:
        """Leave the block of the trace."""
        event = self.process.event("trace_end", self._step, metadata={"outcome": "ok"}, at=self.clock)
        self.events.append(event)

    def add(self, kind: str, parent: int | None = None, **members: Any) -> int:
        """Record an event; returns its step."""
        self._step += 1
        self.clock += 1
        members.setdefault("within", self.within)
        self.events.append(self.process.event(kind, self._step, parent, at=self.clock, **members))
        return self._step


def shop(trace: str = "shop-run-a") -> Agent:
    """A run of some forty events: a time-out and a rate limit that were retried, a refund that was refused."""
    agent = Agent(trace, "My order 8841 came broken, and order 8852 is late. What can you do?")
    planning = agent.step("plan")
    asked = agent.turn(
        "", ("look_up", {"order": 8841}), ("look_up", {"order": 8852}), thinks="First the orders."
    )
    first, second = (agent.open_tool("look_up", {"order": order}, by=asked) for order in (8841, 8852))
    agent.clock += 80
    agent.answer(first, "look_up", {"item": "teapot", "paid": 49.99, "fee": 12.9})
    agent.answer(second, "look_up", {"item": "six cups", "paid": 36.0}, took=82)
    asked = agent.turn("", ("track", {"order": 8852}))
    agent.tool(
        "track",
        {"order": 8852},
        by=asked,
        error="TimeoutError: the carrier did not answer in 10 s",
        took=10_000,
    )
    asked = agent.turn("Once more.", ("track", {"order": 8852}))
    agent.tool("track", {"order": 8852}, {"status": "in transit", "seen": "2026-03-05"}, by=asked)
    agent.leave(planning, "plan")
    acting = agent.step("refund")
    asked = agent.turn("", ("refund", {"order": 8841, "amount": 129.0}))
    agent.tool(
        "refund",
        {"order": 8841, "amount": 129.0},
        by=asked,
        error="PolicyError: amount 129.0 exceeds express fee",
    )
    asked = agent.turn("Refund the fee.", ("refund", {"order": 8841, "amount": 12.9}))
    agent.tool("refund", {"order": 8841, "amount": 12.9}, {"refunded": 12.9}, by=asked)
    asked = agent.turn("", ("quote", {"to": "Bonn"}), ("quote", {"to": "Köln"}))
    first, second = (agent.open_tool("quote", {"to": town}, by=asked) for town in ("Bonn", "Köln"))
    agent.clock += 280
    agent.answer(second, "quote", {"price": 5.2}, took=280)
    agent.answer(first, "quote", {"price": 4.9}, took=283)
    agent.leave(acting, "refund")
    agent.turn("I refunded the express fee of 12.90 EUR; your cups are in transit. " + "All the best. " * 20)
    agent.end()
    return agent


def long(trace: str = "long-run-b", turns: int = 435, tools: int = 10) -> Agent:
    """A run of many turns, each with many tools; a fiftieth of them fail, and histories begin anew now and then."""
    agent = Agent(trace, "Go through all open orders and settle each of them.")
    for number in range(1, turns + 1):
        if number % 29 == 0:
            agent.begin(f"Go on with batch {number // 29}: settle each open order in it.")
        step = agent.step(f"batch {number}")
        order = 8000 + number
        given = [
            ("look_up", {"order": order, "line": line, "fields": ["paid", "item"]}) for line in range(tools)
        ]
        asked = agent.turn(
            f"Looking at order {order}." if number % 3 else "", *given, thinks="What is paid is settled."
        )
        # Three at a time run side by side.
        for line in range(0, tools, 3):
            some = {agent.open_tool(*given[one], by=asked): one for one in range(line, min(line + 3, tools))}
            for request, one in some.items():
                agent.clock += 40
                failed = (number * tools + one) % 50 == 0
                found = {
                    "paid": one * 4.9,
                    "item": f"item {one} of order {order}",
                    "notes": "as ordered; " * 6,
                }
                agent.answer(
                    request, "look_up", found, error="LookupError: no such line" if failed else "", took=40
                )
        agent.leave(step, f"batch {number}")
    agent.turn("All open orders are settled.")
    agent.end()
    return agent


def team(trace: str = "team") -> Agent:
    """A run of three agents: one looks at the question, asks another one, and hands over to a third that fails once."""
    agent = Agent(trace, "Refund my broken teapot, please.")
    triage = agent.step("triage", "agent")
    asked = agent.turn("", ("look_up", {"order": 8841}))
    agent.tool("look_up", {"order": 8841}, {"item": "teapot"}, by=asked)
    for part in ("policy", "price"):
        clerk = agent.step("clerk", "agent")
        agent.turn(f"The {part} is known.")
        agent.leave(clerk, "clerk", triage)
    hands_over = agent.step("refunds", "handoff")
    agent.leave(hands_over, "refunds", triage)
    agent.leave(triage, "triage")
    refunds = agent.step("refunds", "agent")
    asked = agent.turn("", ("refund", {"amount": 129.0}))
    agent.tool("refund", {"amount": 129.0}, by=asked, error="PolicyError: more than the fee")
    asked = agent.turn("", ("refund", {"amount": 12.9}))
    agent.tool("refund", {"amount": 12.9}, {"refunded": 12.9}, by=asked)
    agent.turn("I refunded 12.90 EUR.")
    agent.leave(refunds, "refunds")
    agent.end()
    return agent


def stored(home: Path, *agents: Agent, gone: bool = True) -> Store:
    """The store of a home with some runs in it, whose processes are gone unless told otherwise."""
    home.mkdir(parents=True, exist_ok=True)
    store = Store(home / STORE_FILE)
    for agent in agents:
        put(store, agent.process.token, agent.events)
        if gone:
            store.process_ended(agent.process.token)
    return store


def put(store: Store, token: str, events: Iterable[dict[str, Any]]) -> None:
    """Store some records that one process made."""
    store.ingest((token, [encoded(event) for event in events]))
