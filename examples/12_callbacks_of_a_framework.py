"""A framework that runs tools in threads and tells a handler of each; the handler records what it is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from whyops_trace import OpenCall, Trace, WhyOps


class Handler:
    """Records what the framework tells of one run."""

    def __init__(self, trace: Trace, question: str) -> None:
        self.trace = trace
        self.agent = trace.start_step("Clerk", kind="agent", input=question)
        self.tools: dict[str, OpenCall] = {}

    def on_tool_start(self, call_id: str, tool: str, arguments: dict[str, int]) -> None:
        """Begin a call, in the thread that makes it."""
        self.tools[call_id] = self.trace.start_tool_call(tool, arguments, call_id=call_id, parent=self.agent)

    def on_tool_end(self, call_id: str, result: str | None, error: Exception | None) -> None:
        """End it."""
        self.tools.pop(call_id).end(result, error)

    def on_agent_end(self, answer: str) -> None:
        """End the run."""
        self.agent.end(answer)


TOOLS = {"stock": {7: "3 are left"}, "price": {8: "12 EUR"}}


def framework(question: str, handler: Handler) -> str:
    """Stand for a framework: ask both tools about item 7 at once."""

    def call(tool: str) -> str:
        handler.on_tool_start(f"call_{tool}", tool, {"item": 7})
        try:
            result = TOOLS[tool][7]
        except KeyError as error:
            handler.on_tool_end(f"call_{tool}", None, error)
            return "unknown"
        handler.on_tool_end(f"call_{tool}", result, None)
        return result

    with ThreadPoolExecutor() as threads:
        answer = ", ".join(
            f"{tool}: {result}" for tool, result in zip(TOOLS, threads.map(call, TOOLS), strict=True)
        )
    handler.on_agent_end(answer)
    return answer


if __name__ == "__main__":
    sdk = WhyOps(agent_name="shop")
    print(framework("Is item 7 there?", Handler(sdk.trace(), "Is item 7 there?")))
    sdk.close_sync()
