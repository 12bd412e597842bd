"""
An agent with 8 threads and 200 asyncio tasks that record at once: ``stress_agent.py ROUNDS``.

Each makes so many rounds of five events, a step around a tool that calls another one, on traces of its own, with ids
made up and chosen, and on traces that all share. Prints the ledger.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading

from whyops_trace import WhyOps, traced_tool

THREADS = 8
TASKS = 200
SHARED = 4

sdk = WhyOps()


@traced_tool
def inner(n: str) -> str:
    return n


@traced_tool
def outer(n: str) -> str:
    return inner(n)


@traced_tool
async def async_inner(n: str) -> str:
    await asyncio.sleep(0)
    return n


@traced_tool
async def async_outer(n: str) -> str:
    await asyncio.sleep(0)
    return await async_inner(n)


def trace_id(who: str, number: int) -> str | None:
    return [None, f"of {who}", f"shared {number % SHARED}", f"shared {number // 4 % SHARED}"][number % 4]


def work(who: str, rounds: int) -> None:
    for number in range(rounds):
        with sdk.trace(trace_id(who, number)), sdk.step("plan"):
            assert outer(f"{who} {number}") == f"{who} {number}"


async def async_work(who: str, rounds: int) -> None:
    for number in range(rounds):
        async with sdk.trace(trace_id(who, number)), sdk.step("plan"):
            assert await async_outer(f"{who} {number}") == f"{who} {number}"


async def async_main(rounds: int) -> None:
    await asyncio.gather(*(async_work(f"task {number}", rounds) for number in range(TASKS)))


def main(rounds: int) -> None:
    threads = [
        threading.Thread(target=work, args=[f"thread {number}", rounds * TASKS // THREADS])
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    asyncio.run(async_main(rounds))
    for thread in threads:
        thread.join()
    ledger = sdk.flush_sync(100)
    print(json.dumps({name: tally._asdict() for name, tally in ledger.items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
