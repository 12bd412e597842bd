"""Work in thread pools stays in its trace. Then: whyops-trace show report-1."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from whyops_trace import flush_sync, propagate, propagate_threads, step, trace, traced_tool


@traced_tool
def count_words(text: str) -> int:
    """Return the number of words."""
    return len(text.split())


async def count_in_threads(texts: list[str]) -> list[int]:
    """Count with asyncio.to_thread, which carries the trace by itself."""
    return list(await asyncio.gather(*(asyncio.to_thread(count_words, text) for text in texts)))


def main() -> None:
    """Count words in three ways."""
    texts = ["one", "one two", "one two three"]
    with trace("report-1"), ThreadPoolExecutor(max_workers=2) as pool:
        with step("one function"):
            # propagate() gives a function the place in the trace that is current here and now.
            list(pool.map(propagate(count_words), texts))
        with step("every pool"), propagate_threads():
            # Inside this block each ThreadPoolExecutor carries it; without a block: until undo() is called.
            list(pool.map(count_words, texts))
        with step("asyncio"):
            asyncio.run(count_in_threads(texts))
    print(flush_sync())


if __name__ == "__main__":
    main()
