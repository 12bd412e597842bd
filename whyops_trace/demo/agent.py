"""
A traced support agent: it asks a model, runs the tools that the model calls, and sends their results to the model.

Any agent is traced like this. The functions that call the model carry ``@traced_llm``, the tools (in
:mod:`whyops_trace.demo.shop`) carry ``@traced_tool``, the workflow runs inside ``with client.trace(...)``, and its
parts inside ``with step(...)``. Nothing else in this file knows about tracing.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import httpx

from whyops_trace import AgentMetadata, WhyOps, step, traced_llm
from whyops_trace.demo.shop import Shop

Message = dict[str, Any]

MODEL = "scripted-1"
INSTRUCTIONS = "You handle the tickets of a shop. Look things up in its database and its files; never guess."

#: The agent as a WhyOps server shows it.
METADATA: AgentMetadata = {
    "systemPrompt": INSTRUCTIONS,
    "tools": [],
    "description": "The demo of whyops-trace: a support agent with a scripted model.",
}


class Model:
    """A chat model, called over HTTP in the format of OpenAI's chat completions."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    @traced_llm(model=MODEL, provider="demo")
    def ask(self, messages: list[Message], tools: list[Message]) -> Message:
        """Return the model's answer. The recorder reads text, tool calls and tokens from its shape."""
        request = {"model": MODEL, "messages": messages, "tools": tools}
        response = self._http.post("/chat/completions", json=request)
        response.raise_for_status()
        answer: Message = response.json()
        return answer


def whole_answer(chunks: list[Message]) -> Message:
    """Join the chunks of a streamed answer, so that it is recorded like an answer in one piece."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return {
        **chunks[-1],
        "choices": [
            {
                "message": {"content": "".join(choice["delta"].get("content", "") for choice in choices)},
                "finish_reason": choices[-1]["finish_reason"],
            }
        ],
    }


class AsyncModel:
    """The same model for asynchronous code, which can also stream its answer."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    @traced_llm(model=MODEL, provider="demo")
    async def ask(self, messages: list[Message], tools: list[Message]) -> Message:
        """Return the model's answer."""
        request = {"model": MODEL, "messages": messages, "tools": tools}
        response = await self._http.post("/chat/completions", json=request)
        response.raise_for_status()
        answer: Message = response.json()
        return answer

    @traced_llm(model=MODEL, provider="demo", accumulate=whole_answer)
    async def stream(self, messages: list[Message]) -> AsyncIterator[Message]:
        """Yield the chunks of the model's answer as they come. The last one has the token counts."""
        request = {
            "model": MODEL,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with self._http.stream("POST", "/chat/completions", json=request) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                data = line.removeprefix("data: ")
                if data and data != "[DONE]":
                    yield json.loads(data)


def run_tool(shop: Shop, call: Message) -> Message:
    """Run a tool that the model called, and return its result as a message to the model."""
    arguments = json.loads(call["function"]["arguments"])
    try:
        result = shop.tools[call["function"]["name"]](**arguments)
    except (sqlite3.Error, OSError, ValueError) as error:
        result = {"error": str(error)}  # the model reads the error, and can try something else
    return {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)}


async def run_async_tool(shop: Shop, call: Message) -> Message:
    """Run an asynchronous tool that the model called, and return its result as a message to the model."""
    arguments = json.loads(call["function"]["arguments"])
    result = await shop.async_tools[call["function"]["name"]](**arguments)
    return {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)}


def investigate(model: Model, shop: Shop, messages: list[Message]) -> str:
    """Call the model and run its tools, adding to the conversation, until it gives a conclusion."""
    while True:
        message = model.ask(messages, shop.declare(shop.tools))["choices"][0]["message"]
        messages.append(message)
        if not message.get("tool_calls"):
            return str(message["content"])
        messages += [run_tool(shop, call) for call in message["tool_calls"]]


async def reply(model: AsyncModel, shop: Shop, messages: list[Message]) -> str:
    """Look for the customer's other parcels, all at the same time, and stream the letter to her."""
    messages.append({"role": "user", "content": "Find her other parcels, then write to her."})
    answer = await model.ask(messages, shop.declare(shop.async_tools))
    message = answer["choices"][0]["message"]
    messages.append(message)
    async with step("find the parcels"):
        messages += await asyncio.gather(*(run_async_tool(shop, call) for call in message["tool_calls"]))
    chunks = [chunk async for chunk in model.stream(messages)]
    return str(whole_answer(chunks)["choices"][0]["message"]["content"])


async def write_back(url: str, shop: Shop, messages: list[Message]) -> str:
    """Answer the customer: the asynchronous half of the workflow."""
    # The endpoint is on this machine, so a proxy named in the environment must not be asked for it.
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http, step("answer the customer") as part:
        letter = await reply(AsyncModel(http), shop, messages)
        part.set_output(letter)
        return letter


def handle_ticket(client: WhyOps, trace_id: str, url: str, shop: Shop, ticket: str) -> str:
    """
    Handle a customer's ticket, in a trace of its own.

    Args:
        client: The client that records the trace.
        trace_id: The id of the trace.
        url: The address of the model, such as ``http://127.0.0.1:8080/v1``.
        shop: The tools.
        ticket: The customer's message.

    Returns:
        The letter to the customer.
    """
    messages: list[Message] = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": ticket},
    ]
    with client.trace(trace_id, tags=["demo"]):
        with httpx.Client(base_url=url, trust_env=False) as http, step("investigate", input=ticket) as part:
            part.set_output(investigate(Model(http), shop, messages))
        return asyncio.run(write_back(url, shop, messages))
