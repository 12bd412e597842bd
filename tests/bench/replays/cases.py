"""
Forty agents that are recorded and replayed, each with one word that a mutation changes.

The model behind them says what it heard, or asks for the weather of each city in the question where tools are offered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

from .kit import Kit

MODEL = "gpt-4o"
CLAUDE = "claude-test"


@dataclass(frozen=True)
class Case:
    """
    One agent.

    Attributes:
        title: What it does.
        agent: The program; what it returns has to be the same in a replay.
        old: The word that a mutation changes, where it stands last.
        new: The word in its place.
        named: The call that differs first, as a replay of ours tells it.
    """

    title: str
    agent: Callable[[Kit], Any]
    old: str
    new: str
    named: str


CASES: list[Case] = []


def case(title: str, old: str, new: str, named: str) -> Callable[[Callable[[Kit], Any]], Any]:
    """Add an agent to the table."""

    def add(agent: Callable[[Kit], Any]) -> Any:
        CASES.append(Case(title, agent, old, new, named))
        return agent

    return add


@dataclass
class Order:
    id: int
    items: list[str]


class Bill(BaseModel):
    total: float


class ShopError(Exception):
    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


# Tools


@case("a tool with a side effect", "12", "125", "refund(order=8841, amount=125)")
def effect(kit: Kit) -> Any:
    @kit.tool
    def refund(order: int, amount: int) -> str:
        kit.ran.append("refund")
        return f"refunded {amount} for {order}"

    return refund(8841, 12)


@case("a tool that writes a file", "8841", "8842", "save(order=8842)")
def writes(kit: Kit) -> Any:
    @kit.tool
    def save(order: int) -> int:
        kit.ran.append("save")
        return Path("orders.txt").write_text(f"order {order}")

    return save(8841)


@case(
    "tools one after the other", "sorted", "reversed", "look_up(order=1) was recorded before look_up(order=2)"
)
def sequence(kit: Kit) -> Any:
    @kit.tool
    def look_up(order: int) -> str:
        kit.ran.append("look_up")
        return f"order {order}"

    return sorted([look_up(order) for order in sorted([1, 2])])


@case("a tool that is left out", "refund(order)", "str(order)", "refund(order=8841)")
def left_out(kit: Kit) -> Any:
    @kit.tool
    def look_up(order: int) -> str:
        kit.ran.append("look_up")
        return "sent"

    @kit.tool
    def refund(order: int) -> str:
        kit.ran.append("refund")
        return "refunded"

    order = 8841
    return [look_up(order), refund(order)]


@case("a tool of another name", "look_up", "find", "find(order=8841)")
def renamed(kit: Kit) -> Any:
    @kit.tool
    def look_up(order: int) -> str:
        kit.ran.append("look_up")
        return "sent"

    @kit.tool
    def find(order: int) -> str:
        kit.ran.append("find")
        return "found"

    return [find(1), look_up(2), look_up(8841)]


@case("equal calls with other answers", "3", "4", "poll(job='a')")
def polls(kit: Kit) -> Any:
    @kit.tool
    def poll(job: str) -> int:
        kit.ran.append("poll")
        return len(kit.ran)

    return [poll("a") for _ in range(3)]


@case("a tool inside a tool", "gross", "net", "price(item='tea', kind='net')")
def nested(kit: Kit) -> Any:
    @kit.tool
    def look_up(item: str) -> int:
        kit.ran.append("look_up")
        return len(item)

    @kit.tool
    def price(item: str, kind: str) -> Any:
        kit.ran.append("price")
        return look_up(item) * 2

    return price("tea", "gross")


@case("methods of an object", "tea", "milk", "price(item='milk')")
def methods(kit: Kit) -> Any:
    class Shop:
        @kit.tool
        def price(self, item: str) -> int:
            kit.ran.append("price")
            return len(item)

    return Shop().price("tea")


@case("a dataclass as a result", "5", "6", "load(order=6)")
def dataclasses(kit: Kit) -> Any:
    @kit.tool
    def load(order: int) -> Order:
        kit.ran.append("load")
        return Order(order, ["tea"])

    return load(5).items[0]


@case("a list of pydantic models as a result", "Ada", "Bob", "bills(customer='Bob')")
def models(kit: Kit) -> Any:
    @kit.tool
    def bills(customer: str) -> list[Bill]:
        kit.ran.append("bills")
        return [Bill(total=1.5)]

    return [bill.total for bill in bills("Ada")]


@case("an exception with attributes", "50", "60", "charge(amount=60)")
def raises(kit: Kit) -> Any:
    @kit.tool
    def charge(amount: int) -> None:
        kit.ran.append("charge")
        raise ShopError(402, detail="no funds")

    try:
        charge(50)
    except ShopError as error:
        return [error.code, str(error)]


@case("a group of exceptions", "tea", "milk", "order(item='milk')")
def groups(kit: Kit) -> Any:
    @kit.tool
    def order(item: str) -> None:
        kit.ran.append("order")
        raise ExceptionGroup("failed", [ValueError("a"), KeyError("b")])

    seen = []
    try:
        order("tea")
    except* ValueError as found:
        seen += [repr(each) for each in found.exceptions]
    except* KeyError as found:
        seen += [repr(each) for each in found.exceptions]
    return seen


@case("an exception of pydantic", "bad", "worse", "read(text='worse')")
def refused(kit: Kit) -> Any:
    @kit.tool
    def read(text: str) -> None:
        kit.ran.append("read")
        Bill.model_validate({"total": text})

    try:
        read("bad")
    except ValidationError as error:
        return [each["loc"] for each in error.errors()]


@case("a generator", "3", "2", "pages(count=2)")
def generators(kit: Kit) -> Any:
    @kit.tool
    def pages(count: int) -> Iterator[int]:
        for page in range(count):
            kit.ran.append("pages")
            yield page

    return [*pages(3)]


@case("an asynchronous generator", "log", "out", "lines(file='out')")
async def async_generators(kit: Kit) -> Any:
    @kit.tool
    async def lines(file: str) -> AsyncIterator[str]:
        for number in range(3):
            kit.ran.append("lines")
            yield f"{file} {number}"

    return [line async for line in lines("log")]


@case("a tool that asks a server by HTTP", "models", "model", "fetch(path='model')")
def fetches(kit: Kit) -> Any:
    @kit.tool
    def fetch(path: str) -> Any:
        kit.ran.append("fetch")
        headers = {"authorization": f"Bearer {kit.provider.openai_key}"}
        return httpx.get(f"{kit.provider.openai_url}/{path}", headers=headers).json()["object"]

    return fetch("models")


# Concurrency


@case("an asynchronous tool", "Oslo", "Rome", "weather(city='Rome')")
async def asynchronous(kit: Kit) -> Any:
    @kit.tool
    async def weather(city: str) -> str:
        kit.ran.append("weather")
        return f"{city} is cold"

    return await weather("Oslo")


@case("gather", "Lima", "Bonn", "weather(city='Bonn')")
async def gathered(kit: Kit) -> Any:
    @kit.tool
    async def weather(city: str) -> str:
        kit.ran.append("weather")
        await asyncio.sleep(0.03 - len(kit.ran) / 100)
        return f"{city} is cold"

    return await asyncio.gather(*map(weather, ["Oslo", "Rome", "Lima"]))


@case("tasks as they complete", "2", "7", "fetch(page=7)")
async def completed(kit: Kit) -> Any:
    @kit.tool
    async def fetch(page: int) -> int:
        kit.ran.append("fetch")
        await asyncio.sleep(0.03 - page / 100)
        return page

    tasks = [asyncio.create_task(fetch(page)) for page in (0, 1, 2)]
    return [await each for each in asyncio.as_completed(tasks)]


@case("a race with one winner", "slow", "late", "fetch(kind='late')")
async def race(kit: Kit) -> Any:
    @kit.tool
    async def fetch(kind: str) -> str:
        kit.ran.append("fetch")
        await asyncio.sleep(60 if kind in ("slow", "late") else 0.01)
        return kind

    tasks = [asyncio.create_task(fetch(kind)) for kind in ("slow", "fast")]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return [task.result() for task in done]


@case("a pool of threads", "6", "7", "square(value=6)")
def pool(kit: Kit) -> Any:
    @kit.tool
    def square(value: int) -> int:
        kit.ran.append("square")
        return value * value

    with ThreadPoolExecutor(4) as threads:
        return [*threads.map(kit.here(square), range(6))]


@case("threads as they complete", "30", "40", "fetch(page=2, wait=40)")
def pool_completed(kit: Kit) -> Any:
    @kit.tool
    def fetch(page: int, wait: int) -> int:
        kit.ran.append("fetch")
        kit.sleep(wait / 1000)
        return page

    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(kit.here(fetch), page, wait) for page, wait in ((1, 60), (2, 30), (3, 1))]
        return [job.result() for job in as_completed(jobs)]


# Clients of OpenAI


@case("chat", "Hello", "Goodbye", "chat.completions(1 messages): messages[0].content")
def chat(kit: Kit) -> Any:
    answer = kit.openai().chat.completions.create(model=MODEL, messages=user("Hello"))
    return answer.choices[0].message.content


@case("chat, asynchronous", "0.5", "0.7", "chat.completions(1 messages) is not in the recording")
async def chat_async(kit: Kit) -> Any:
    answer = await kit.async_openai().chat.completions.create(
        model=MODEL, messages=user("Hello"), temperature=0.5
    )
    return answer.choices[0].message.content


@case("chat as a stream", "Hello", "Goodbye", "chat.completions(1 messages): messages[0].content")
def chat_stream(kit: Kit) -> Any:
    pieces = kit.openai().chat.completions.create(model=MODEL, messages=user("Hello"), stream=True)
    return "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)


@case(
    "chat as a stream, asynchronous", "Hello", "Goodbye", "chat.completions(1 messages): messages[0].content"
)
async def chat_stream_async(kit: Kit) -> Any:
    pieces = await kit.async_openai().chat.completions.create(
        model=MODEL, messages=user("Hello"), stream=True
    )
    return "".join([piece.choices[0].delta.content or "" async for piece in pieces if piece.choices])


@case(
    "the helper for streams of chat", "Hello", "Goodbye", "chat.completions(1 messages): messages[0].content"
)
def chat_helper(kit: Kit) -> Any:
    with kit.openai().chat.completions.stream(model=MODEL, messages=user("Hello")) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion().choices[0].message.content


@case("chat, parsed", "bill", "invoice", "chat.completions(1 messages): messages[0].content")
def chat_parsed(kit: Kit) -> Any:
    answer = kit.openai().chat.completions.parse(model=MODEL, messages=user("The bill"), response_format=Bill)
    return answer.choices[0].message.parsed.total


@case("chat, the raw response", "Hello", "Goodbye", "chat.completions(1 messages): messages[0].content")
def chat_raw(kit: Kit) -> Any:
    answer = kit.openai().chat.completions.with_raw_response.create(model=MODEL, messages=user("Hello"))
    return [answer.headers["x-request-id"], answer.parse().choices[0].message.content]


@case("chats at the same time", "Lima", "Bonn", "chat.completions(1 messages): messages[0].content")
async def chats(kit: Kit) -> Any:
    client = kit.async_openai()
    answers = await asyncio.gather(
        *(
            client.chat.completions.create(model=MODEL, messages=user(city))
            for city in ("Oslo", "Rome", "Lima")
        )
    )
    return [answer.choices[0].message.content for answer in answers]


@case("a request that is refused", "refuse", "deny", "chat.completions(1 messages): messages[0].content")
def refusals(kit: Kit) -> Any:
    import openai

    try:
        kit.openai().chat.completions.create(model=MODEL, messages=user("Please refuse 429"))
    except openai.RateLimitError as error:
        return [error.status_code, error.response.headers["retry-after"]]


def weather_tool(name: str = "weather") -> Any:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


@case("a loop of chat and tools", "colder", "warmer", "chat.completions(1 messages): messages[0].content")
def loop(kit: Kit) -> Any:
    @kit.tool
    def weather(city: str) -> str:
        kit.ran.append("weather")
        return f"{city}: {len(city)} degrees"

    client, messages = kit.openai(), user("Is Oslo colder or Rome?")
    while True:
        answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[weather_tool()])
        message = answer.choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            result = weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


@case("responses", "brief", "long", "responses(1 messages): system")
def responses(kit: Kit) -> Any:
    return kit.openai().responses.create(model=MODEL, input="Hello", instructions="Be brief.").output_text


@case("responses as a stream", "Hello", "Goodbye", "responses(1 messages): messages[0].content")
async def responses_stream(kit: Kit) -> Any:
    pieces = await kit.async_openai().responses.create(model=MODEL, input="Hello", stream=True)
    return "".join([piece.delta async for piece in pieces if piece.type == "response.output_text.delta"])


# Clients of Anthropic


@case("messages", "Hello", "Goodbye", "messages(1 messages): messages[0].content")
def messages(kit: Kit) -> Any:
    answer = kit.anthropic().messages.create(model=CLAUDE, messages=user("Hello"), max_tokens=50)
    return answer.content[0].text


@case("messages as a stream, asynchronous", "Hello", "Goodbye", "messages(1 messages): messages[0].content")
async def messages_stream(kit: Kit) -> Any:
    pieces = await kit.async_anthropic().messages.create(
        model=CLAUDE, messages=user("Hello"), max_tokens=50, stream=True
    )
    deltas = [piece.delta async for piece in pieces if piece.type == "content_block_delta"]
    return "".join(delta.text for delta in deltas)


@case("the helper for streams of messages", "Hello", "Goodbye", "messages(1 messages): messages[0].content")
async def messages_helper(kit: Kit) -> Any:
    client = kit.async_anthropic()
    async with client.messages.stream(model=CLAUDE, messages=user("Hello"), max_tokens=50) as stream:
        return ["".join([text async for text in stream.text_stream]), await stream.get_final_text()]


# Frameworks


@case("an agent of LangGraph", "brief", "long", "chat.completions(2 messages): messages[0].content")
def langgraph(kit: Kit) -> Any:
    from langchain.agents import create_agent
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    @kit.tool
    def weather(city: str) -> str:
        """Return the weather of a city."""
        kit.ran.append("weather")
        return f"{city}: {len(city)} degrees"

    client = kit.openai()
    model = ChatOpenAI(model=MODEL, client=client.chat.completions, root_client=client, api_key="k")
    agent = create_agent(model, [weather], system_prompt="Be brief.")
    return agent.invoke({"messages": [("user", "Is Oslo or Rome warmer?")]})["messages"][-1].content


@case(
    "an agent of the OpenAI Agents SDK",
    "clerk_weather",
    "sales_weather",
    "responses(1 messages) is not in the recording",
)
async def openai_agents(kit: Kit) -> Any:
    from agents import Agent, OpenAIResponsesModel, Runner, function_tool

    @kit.tool
    def weather(city: str) -> str:
        """Return the weather of a city."""
        kit.ran.append("weather")
        return f"{city}: {len(city)} degrees"

    tool = function_tool(weather, name_override="clerk_weather")
    model = OpenAIResponsesModel(MODEL, openai_client=kit.async_openai())
    agent = Agent(name="clerk", instructions="Be brief.", tools=[tool], model=model)
    return (await Runner.run(agent, "Is Oslo or Rome warmer?")).final_output


@case("an agent of Pydantic AI", "Rome", "Lima", "chat.completions(2 messages): messages[1].content")
async def pydantic_ai(kit: Kit) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    @kit.tool
    def weather(city: str) -> str:
        """Return the weather of a city."""
        kit.ran.append("weather")
        return f"{city}: {len(city)} degrees"

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=kit.async_openai()))
    agent = Agent(model, instructions="Be brief.", tools=[weather])
    return (await agent.run("Is Oslo or Rome warmer?")).output
