"""Traces for tests of findings, event by event, as the library records them and as other programs do."""

from __future__ import annotations

from typing import Any

from lines import Process

Record = dict[str, Any]
MODEL = {"model": "gpt-4o", "provider": "openai"}


class Story:
    """
    Writes a trace; steps and times count up by themselves.

    Attributes:
        records: What was written.
        gap: Milliseconds from each event to the next.

    Args:
        trace: The trace id.
        foreign: Whether another program recorded it: then its keys are not of this library.
    """

    def __init__(self, trace: str = "checkout-8841", *, foreign: bool = False) -> None:
        self.records: list[Record] = []
        self.gap = 10.0
        self._process = Process(trace=trace)
        self._foreign = foreign
        self._at = 0.0

    @property
    def step(self) -> int:
        """The step of the latest event."""
        return len(self.records)

    def event(self, kind: str, parent: int | None = None, **members: Any) -> int:
        """Write an event and return its step."""
        self._at += self.gap
        step: int = members.pop("step", self.step + 1)
        parent = (self.step or None) if parent is None else parent
        record = self._process.event(kind, step, parent, at=self._at, **members)
        if self._foreign:
            record["idempotencyKey"] = f"key-{self.step}"
        self.records.append(record)
        return step

    def ask(self, *messages: Any, function: str = "ask", **members: Any) -> int:
        """Write the request of a model: texts are messages of the user."""
        said = [{"role": "user", "content": one} if isinstance(one, str) else one for one in messages]
        metadata = (
            {"function": function, **members.pop("metadata", {})} if function else members.pop("metadata", {})
        )
        return self.event("user_message", metadata=metadata, content={"messages": said}, **members)

    def answer(
        self,
        text: str = "Done.",
        *,
        function: str = "ask",
        usage: Any = None,
        calls: Any = None,
        **members: Any,
    ) -> int:
        """Write the answer of a model to the event before, or to *parent*."""
        metadata = {**MODEL, **members.pop("metadata", {})}
        metadata |= {"function": function} if function else {}
        metadata |= {"usage": usage} if usage else {}
        content = {**({"toolCalls": calls} if calls else {"content": text}), **members.pop("content", {})}
        parent = members.pop("parent", self.step)
        within = members.pop("within", parent if function else 0)
        return self.event(
            "llm_response", parent, within=within, metadata=metadata, content=content, **members
        )

    def tool(
        self, name: str = "charge_card", arguments: Any = None, results: Any = None, **about: Any
    ) -> int:
        """Write a call of a tool, whole; *about* is what its metadata say; return the step of its request."""
        self.gap, gap = about.pop("took", self.gap), self.gap
        step = self.request(name, arguments, **about)
        results = {"id": "ch_1"} if results is None else results
        self.respond(name, step, results, **({"outcome": "error"} if set(results) == {"error"} else {}))
        self.gap = gap
        return step

    def request(self, name: str, arguments: Any = None, *, span: str = "", **about: Any) -> int:
        """Write the request of a tool."""
        calls = [{"name": name, "arguments": {"amount": 4999} if arguments is None else arguments}]
        return self.event(
            "tool_call_request",
            metadata={"tool": name, **about},
            content={"toolCalls": calls},
            spanId=span or f"span_{self.step}",
        )

    def respond(self, name: str, request: int, results: Any = None, *, span: str = "", **about: Any) -> int:
        """Write the response of a tool."""
        content = {
            "toolCalls": [{"name": name}],
            "toolResults": {"id": "ch_1"} if results is None else results,
        }
        return self.event(
            "tool_call_response",
            request,
            within=request,
            metadata={"tool": name, **about},
            content=content,
            spanId=span or str(self.records[request - 1]["spanId"]),
        )


def call(name: str = "charge_card", arguments: str = '{"amount": 4999}', call_id: str = "call_1") -> Record:
    """Return a tool call as a model asks for it."""
    return {"id": call_id, "function": {"name": name, "arguments": arguments}}


def usage(prompt: int, completion: int = 10, read: int = 0) -> dict[str, int]:
    """Return token counts."""
    return {"promptTokens": prompt, "completionTokens": completion, "cacheReadTokens": read}
