"""An asynchronous agent: tools that run at the same time, a step, a streamed answer. Then: whyops-trace show trip-1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from whyops_trace import flush, step, trace, traced_llm, traced_tool


@traced_tool
async def find_trains(origin: str, target: str) -> list[str]:
    """Stand in for a call of a timetable."""
    await asyncio.sleep(0.01)
    return [f"{origin} 08:02 - {target} 09:00", f"{origin} 08:32 - {target} 09:28"]


@traced_tool
async def read_weather(city: str) -> dict[str, object]:
    """Stand in for a call of a weather service."""
    await asyncio.sleep(0.01)
    return {"city": city, "rain": city == "Bern"}


@traced_llm(model="example-1", provider="example")
async def answer(messages: list[dict[str, str]]) -> AsyncIterator[str]:
    """Stand in for a model that streams its answer."""
    for word in ("Take", " the", " 08:32,", " with", " an", " umbrella."):
        await asyncio.sleep(0)
        yield word


async def main() -> None:
    """Answer one question."""
    question = "When do I leave Zurich for Bern?"
    async with trace("trip-1"):
        async with step("look things up", input=question):
            # The three share the step as their parent, and run at the same time.
            trains, here, there = await asyncio.gather(
                find_trains("Zurich", "Bern"), read_weather("Zurich"), read_weather("Bern")
            )
        found = f"{question} Trains: {trains}. Weather: {here}, {there}."
        async for word in answer([{"role": "user", "content": found}]):
            print(word, end="")
        print()
    print(await flush())


if __name__ == "__main__":
    asyncio.run(main())
