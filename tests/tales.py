"""An agent whose records are made by hand, for tests of what reads whole traces."""

from __future__ import annotations

import json
from typing import Any

from lines import Process, tool_request, tool_response

from whyops_trace.story import Story, tell

USER = {"role": "user", "content": "Refund order 8841."}


def called(name: str, number: int = 0, **arguments: Any) -> dict[str, Any]:
    """Return a tool call as OpenAI's answers have it; *number* makes its id another one."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call_{name}_{number}", "type": "function", "function": function}


def said(content: str | None = None, *calls: dict[str, Any]) -> dict[str, Any]:
    """Return the message of an assistant."""
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {})}


def result(call: dict[str, Any], content: Any) -> dict[str, Any]:
    """Return the message with the result of a call."""
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


class Agent:
    """
    An agent that records what it does; each call takes 10 ms.

    Attributes:
        events: Its records.
    """

    def __init__(self, process: Process | None = None) -> None:
        self.process = process or Process(run="9f2c41aa01be-1")
        self.events: list[dict[str, Any]] = []
        self._step = 0
        self._at = 0.0

    def story(self) -> Story:
        """Return what the records tell."""
        return tell(self.events)

    def event(self, kind: str, parent: int | None = None, **members: Any) -> int:
        """Record any event; return its step."""
        self._step += 1
        self._at += members.pop("took", 10)
        self.events.append(self.process.event(kind, self._step, parent, at=self._at, **members))
        return self._step

    def request(self, *messages: Any, within: int = 0, function: str = "ask", **metadata: Any) -> int:
        """Record what a model is asked; return the step."""
        named = {"function": function} if function else {}
        content = {"messages": list(messages)}
        return self.event("user_message", within=within, metadata={**named, **metadata}, content=content)

    def answer(
        self, request: int, content: str | None = None, *calls: dict[str, Any], **metadata: Any
    ) -> int:
        """Record what a model answers to a request; return the step."""
        finish = metadata.pop("finish", "tool_calls" if calls else "stop")
        body: dict[str, Any] = {"toolCalls": list(calls)} if calls else {}
        body = {**body, "finishReason": finish, **({} if content is None else {"content": content})}
        asked = next((event for event in reversed(self.events) if event["stepId"] == request), None)
        function = asked["metadata"].get("function") if asked else "ask"
        named = {"function": function} if function else {}
        about = {**named, "model": "gpt-4o", "provider": "openai", "latencyMs": 10, **metadata}
        return self.event("llm_response", request, within=request, metadata=about, content=body)

    def turn(
        self, messages: list[Any], content: str | None = None, *calls: dict[str, Any], **about: Any
    ) -> int:
        """Record a turn; return the step of its answer. Its answer joins the messages."""
        request = {
            key: about.pop(key) for key in ("within", "function", "tools", "systemPrompt") if key in about
        }
        step = self.answer(self.request(*messages, **request), content, *calls, **about)
        messages.append(said(content, *calls))
        return step

    def breaks(self, messages: list[Any], error: str, **request: Any) -> int:
        """Record a turn that fails; return the step of its request."""
        step = self.request(*messages, **request)
        about = {"function": request.get("function", "ask"), "model": "gpt-4o", "provider": "openai"}
        content = {"type": "RateLimitError", "message": error}
        self.event("error", step, within=step, metadata=about, content=content)
        return step

    def tool(
        self,
        name: str,
        arguments: dict[str, Any],
        results: Any = "done",
        *,
        error: tuple[str, str] | None = None,
        asked_by: int = 0,
        within: int = 0,
        took: float = 10,
    ) -> int:
        """Record a tool call; return the step of its request."""
        step = self._begin(name, arguments, within, asked_by)
        if error is not None:
            content = {"type": error[0], "message": error[1], "stack": "File agent.py"}
            self.event("error", step, within=step, metadata={"tool": name}, content=content)
        self._step += 1
        self._at += took
        about = {"latencyMs": took, **({"outcome": "error"} if error else {})}
        failed = {"error": {"type": error[0], "message": error[1]}} if error else {"result": results}
        response = tool_response(
            self.process, self._step, step, tool=name, results=failed, about=about, at=self._at
        )
        self.events.append(response)
        return step

    def begin_tool(self, name: str, arguments: dict[str, Any], within: int = 0) -> int:
        """Record a tool call that does not end; return its step."""
        return self._begin(name, arguments, within, 0)

    def _begin(self, name: str, arguments: dict[str, Any], within: int, asked_by: int) -> int:
        self._step += 1
        self._at += 10
        request = tool_request(
            self.process, self._step, tool=name, arguments=arguments, within=within, at=self._at
        )
        if asked_by:
            request["metadata"]["requestedBy"] = asked_by
        self.events.append(request)
        return self._step

    def step(self, name: str, within: int = 0) -> int:
        """Record the beginning of a step; return its number."""
        return self.event("llm_thinking", within=within, metadata={"step": name})

    def end(self, **metadata: Any) -> None:
        """Record the end of the trace."""
        content = metadata.pop("content", {})
        self._at += 10
        ending = self.process.event("trace_end", 1, metadata=metadata, content=content, at=self._at, end=True)
        self.events.append(ending)
