"""The Claude Agent SDK: the clerk of its command has tools of this process, and the courier as an agent of its own."""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import Any

from claude_agent_sdk import (
    AgentDefinition,
    AssistantMessage,
    ClaudeAgentOptions,
    ResultMessage,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
    create_sdk_mcp_server,
    query,
    tool,
)
from provider import Provider
from replies import Reply, ToolCall
from runs import shop
from runs.told import Asked, Ran, Told, Turn
from wire import Request

#: How the command calls the tools of a server.
SERVER = "mcp__shop__"


def tools() -> list[Any]:
    """Return the tools of the shop as the SDK wants them."""

    def made(function: Any, schema: dict[str, type]) -> Any:
        async def call(arguments: dict[str, Any]) -> dict[str, Any]:
            try:
                return {"content": [{"type": "text", "text": str(function(**arguments))}]}
            except ValueError as error:
                return {"content": [{"type": "text", "text": str(error)}], "is_error": True}

        return tool(function.__name__, function.__doc__, schema)(call)

    return [
        made(shop.find, {"parcel": int}), made(shop.weigh, {"parcel": int}),
        made(shop.refund, {"parcel": int, "reason": str}), made(shop.hours, {"day": str}),
    ]  # fmt: skip


def run(provider: Provider) -> Told:
    clerks, couriers = script()

    def answer(request: Request) -> Reply | None:
        """Answer each agent in turn; the command asks for other things besides, such as a title."""
        if request.path != "/v1/messages" or not request.json.get("tools"):
            return None
        replies = couriers if shop.COURIER in str(request.json["system"]) else clerks
        return replies.pop(0) if replies else None

    provider.script = answer
    told = Told({"claude-code": "", "courier": "claude-code"})
    asked: dict[str, Asked] = {}
    agents = {None: "claude-code"}
    turns: set[str | None] = set()

    async def main() -> None:
        options = ClaudeAgentOptions(
            model="claude-test",
            system_prompt=shop.CLERK,
            mcp_servers={"shop": create_sdk_mcp_server("shop", tools=tools())},
            agents={"courier": AgentDefinition("Knows the roads.", shop.COURIER, [f"{SERVER}hours"])},
            allowed_tools=[*(f"{SERVER}{name}" for name in ("find", "weigh", "refund", "hours")), "Agent"],
            setting_sources=[],
            cwd=tempfile.mkdtemp(),
        )
        async for message in query(prompt=shop.QUESTION, options=options):
            if isinstance(message, AssistantMessage):
                agent = agents.get(message.parent_tool_use_id, "courier")
                calls = [Asked(b.id, b.name, b.input) for b in message.content if isinstance(b, ToolUseBlock)]
                asked.update({call.id: call for call in calls})
                text = "".join(block.text for block in message.content if isinstance(block, TextBlock))
                if message.message_id in turns:  # each part of a turn is a message of its own
                    told.turns[-1].asked.extend(calls)
                else:
                    told.turns.append(Turn(agent, text, calls))
                turns.add(message.message_id)
            elif isinstance(message, UserMessage) and isinstance(message.content, list):
                for block in message.content:
                    if isinstance(block, ToolResultBlock):
                        call = asked[block.tool_use_id]
                        agent = agents.get(message.parent_tool_use_id, "courier")
                        content: Any = block.content
                        text = content if isinstance(content, str) else content[0]["text"]
                        told.ran.append(
                            Ran(agent, call.id, call.name, call.arguments, text, bool(block.is_error))
                        )
            elif isinstance(message, ResultMessage):
                told.totals.extend(
                    (
                        used["inputTokens"] + used["cacheReadInputTokens"] + used["cacheCreationInputTokens"],
                        used["outputTokens"],
                    )
                    for used in (message.model_usage or {}).values()
                )

    asyncio.run(main())
    told.turns.append(Turn("courier", shop.TIMES))  # the SDK has it in the result of the call alone
    return told


def script() -> tuple[list[Reply], list[Reply]]:
    """Return what the model says as clerk and as courier, with the names that the command gives to tools."""
    ask = {"description": "Ask", "prompt": shop.ASK, "subagent_type": "courier", "run_in_background": False}
    replies = [
        Reply(
            reply.text,
            tuple(
                ToolCall(call.name if call.name == "Agent" else SERVER + call.name, call.arguments, call.id)
                for call in reply.tool_calls
            ),
            usage=reply.usage,
        )
        for reply in shop.script("Agent", ask)
    ]
    return [*replies[:3], replies[5]], replies[3:5]


def prepare() -> None:
    os.environ.setdefault("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    os.environ |= {
        "CLAUDE_CODE_ENABLE_TELEMETRY": "1", "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA": "1",
        "OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_LOG_USER_PROMPTS": "1", "OTEL_LOG_TOOL_DETAILS": "1", "OTEL_LOG_TOOL_CONTENT": "1",
        "OTEL_LOG_RAW_API_BODIES": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CLAUDE_CONFIG_DIR": tempfile.mkdtemp(),
        "ANTHROPIC_AUTH_TOKEN": "", "IS_SANDBOX": "1",
    }  # fmt: skip


if __name__ == "__main__":
    shop.play(run, [], packages=("claude-agent-sdk",), prepare=prepare)
