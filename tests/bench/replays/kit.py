"""What an agent of the table is made with, in the way that a tool for replays asks for; and these tools."""

from __future__ import annotations

import contextvars
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from provider import Provider
from replies import Failure, Reply, ToolCall
from wire import Request

Run = Callable[[], Any]


def script(request: Request) -> Reply | Failure | None:
    """Say what a question asks for, or ask for the weather of each city in it where tools are offered."""
    if request.method == "GET":
        return None
    body = request.json
    messages = body.get("messages") or body.get("input")
    messages = messages if isinstance(messages, list) else [{"role": "user", "content": messages}]
    results = sum(
        each.get("role") == "tool" or each.get("type") == "function_call_output" for each in messages
    )
    question = next(str(each["content"]) for each in messages if each.get("role") == "user")
    cities = re.findall("Oslo|Rome|Lima", question)
    if "refuse" in question:
        return Failure(429, "slow down", headers={"retry-after": "7"})
    if body.get("response_format"):
        return Reply('{"total": 1.5}')
    if body.get("tools") and results < len(cities):
        tool = body["tools"][0]
        name = tool.get("name") or tool["function"]["name"]
        return Reply(tool_calls=(ToolCall(name, {"city": cities[results]}, f"call_{results}"),))
    return Reply(f"I heard {question} and {results} results")


class Kit:
    """
    A tool for replays.

    Attributes:
        provider: The models behind the clients.
        ran: The bodies of tools that ran.

    Args:
        provider: See above.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.ran: list[str] = []

    def tool(self, function: Any) -> Any:
        """Return a tool of the agent as it is recorded."""
        return function

    def client(self, client: Any) -> Any:
        """Return a client of a provider as it is recorded."""
        return client

    def here(self, function: Any) -> Any:
        """Return a function for another thread, where it is part of the same run."""
        context = contextvars.copy_context()
        return lambda *args: context.copy().run(function, *args)

    def record(self, run: Run) -> Any:
        """Run an agent and record it. Return what it returned."""
        raise NotImplementedError

    def replay(self, run: Run) -> Any:
        """Replay it. Return what it returned; raise if the replay notices a difference."""
        raise NotImplementedError

    sleep = staticmethod(time.sleep)

    def openai(self) -> Any:
        """Return a client of OpenAI."""
        import openai

        return self.client(openai.OpenAI(**self._options("openai")))

    def async_openai(self) -> Any:
        """Return an asynchronous client of OpenAI."""
        import openai

        return self.client(openai.AsyncOpenAI(**self._options("openai")))

    def anthropic(self) -> Any:
        """Return a client of Anthropic."""
        import anthropic

        return self.client(anthropic.Anthropic(**self._options("anthropic")))

    def async_anthropic(self) -> Any:
        """Return an asynchronous client of Anthropic."""
        import anthropic

        return self.client(anthropic.AsyncAnthropic(**self._options("anthropic")))

    def _options(self, provider: str) -> dict[str, Any]:
        url, key = (getattr(self.provider, f"{provider}_{name}") for name in ("url", "key"))
        return {"base_url": url, "api_key": key, "max_retries": 0}


class WhyopsTrace(Kit):
    """This library: what ``--whyops=record`` writes, and a strict replay of it."""

    _file: ClassVar[Path] = Path("run.whyops")

    def tool(self, function: Any) -> Any:
        from whyops_trace import traced_tool

        return traced_tool(function)

    def client(self, client: Any) -> Any:
        from whyops_trace import WhyOps

        sdk = WhyOps(agent_name="agent")
        return sdk.openai(client) if "openai" in type(client).__module__ else sdk.anthropic(client)

    def here(self, function: Any) -> Any:
        from whyops_trace import propagate

        return propagate(function)

    def record(self, run: Run) -> Any:
        from whyops_trace import trace
        from whyops_trace._replay.runs import LiveRun

        with LiveRun(self._file, writes=True), trace("t"):
            return run()

    def replay(self, run: Run) -> Any:
        from whyops_trace import trace
        from whyops_trace.replay import replay

        with replay(self._file, store=False), trace("t"):
            return run()


class Vcrpy(Kit):
    """vcrpy, which pytest-recording stands on: bodies are compared, and a request that is not there is refused."""

    def _run(self, run: Run, mode: str) -> Any:
        import vcr

        matched = ["method", "scheme", "host", "port", "path", "query", "body"]
        with vcr.VCR(record_mode=mode, match_on=matched).use_cassette("run.yaml"):
            return run()

    def record(self, run: Run) -> Any:
        return self._run(run, "once")

    def replay(self, run: Run) -> Any:
        return self._run(run, "none")


class Agentfork(Kit):
    """agentfork-cli: what ``agentfork save-test`` writes, and the check that its test calls."""

    def tool(self, function: Any) -> Any:
        import agentfork

        return agentfork.tool(function)

    def client(self, client: Any) -> Any:
        import agentfork

        return (
            agentfork.wrap_openai(client)
            if "openai" in type(client).__module__
            else agentfork.wrap_anthropic(client)
        )

    def record(self, run: Run) -> Any:
        import agentfork
        from agentfork import recorder, store

        result = agentfork.trace(run, name="agent")()
        [found] = store.find_runs(recorder.last_run_id)
        self._fixture = {"run": dict(found), "steps": [dict(step) for step in store.get_steps(found["id"])]}
        return result

    def replay(self, run: Run) -> Any:
        import agentfork
        from agentfork import replay

        replay.load_entry = lambda _: agentfork.trace(
            run, name="agent"
        )  # the program itself, or a mutation of it
        return replay.check(self._fixture)


class AgentTimetravel(Kit):
    """agent-timetravel: its decorator and interceptor, a session that captures, and a frozen one."""

    def tool(self, function: Any) -> Any:
        import agent_timetravel

        return agent_timetravel.tool()(function)

    def _run(self, run: Run, trace: str, mode: str) -> Any:
        from agent_timetravel.enums import ReplayMode
        from agent_timetravel.openai_intercept import patch
        from agent_timetravel.replay import replay

        with patch(), replay(self._store, trace, mode=ReplayMode(mode)):
            return run()

    def record(self, run: Run) -> Any:
        from agent_timetravel.models import Trace
        from agent_timetravel.storage import TraceStore

        self._store = TraceStore("run.db")
        self._trace = uuid.uuid4().hex
        self._store.upsert_trace(Trace(trace_id=self._trace))
        return self._run(run, self._trace, "full")

    def replay(self, run: Run) -> Any:
        return self._run(run, self._trace, "frozen")


#: Names and versions are those of PyPI.
KITS: dict[str, type[Kit]] = {
    "whyops-trace": WhyopsTrace,
    "vcrpy": Vcrpy,
    "agentfork-cli": Agentfork,
    "agent-timetravel": AgentTimetravel,
}
