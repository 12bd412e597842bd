"""
Measure the viewer as its users feel it: a real server process, and a browser that has seen none of it before.

``python tests/bench/viewer.py`` makes a run of 41 spans, one of more than 10,000 events, and 2,002 traces, measures
each figure five times, and prints the medians beside the goals.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, CDPSession, Page, Request, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
from agent_runs import Agent, long, shop, stored

RUNS = 5
TRACES = 2_000
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--js-flags=--expose-gc", "--enable-precise-memory-info",
]  # fmt: skip

#: Notes each task of the page's thread that takes 50 ms or more, from before the first script on.
WATCH = """
window.tasks = [];
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) window.tasks.push(task.duration);
}).observe({ type: "longtask", buffered: true });
"""
#: Scrolls by a step in each of 300 frames; returns their times, sorted.
SCROLL = """async ([selector, step]) => {
  const place = selector ? document.querySelector(selector) : window;
  const times = [];
  let last = performance.now();
  await new Promise((done) => {
    const frame = (now) => {
      times.push(now - last);
      last = now;
      place.scrollBy(0, step);
      if (times.length < 300) requestAnimationFrame(frame);
      else done();
    };
    requestAnimationFrame(frame);
  });
  return times.sort((one, other) => one - other);
}"""
#: Presses a key; returns the milliseconds until the next frame is painted.
PRESS = """async (key) => {
  const began = performance.now();
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - began;
}"""


class Goal(NamedTuple):
    """A figure, what it should be at most, and how it is written."""

    name: str
    most: float
    unit: str


GOALS = {
    "start": Goal("command to first page", 1.0, "s"),
    "list": Goal("list of 2,002 usable", 0.6, "s"),
    "list_bytes": Goal("bytes of the list", 150, "KB"),
    "open_a": Goal("open A: transcript and why-strip readable", 0.6, "s"),
    "first_b": Goal("open B for the first time: first rows", 1.0, "s"),
    "open_b": Goal("open B: first rows, all reachable", 1.0, "s"),
    "task_open": Goal("longest task while opening B", 100, "ms"),
    "task_scroll": Goal("longest task while scrolling B", 50, "ms"),
    "scroll": Goal("scroll frame on B, 95th percentile", 25, "ms"),
    "outline": Goal("scroll frame of its outline, 95th percentile", 25, "ms"),
    "select": Goal("select to next frame", 50, "ms"),
    "fold": Goal("fold to next frame", 50, "ms"),
    "payload": Goal("payload shown", 150, "ms"),
    "elements": Goal("elements on B, after scrolling", 3_000, ""),
    "heap": Goal("JS heap on B", 30, "MB"),
    "bytes_b": Goal("bytes of B in all", 300, "KB"),
    "link": Goal("link to a step of B in a fresh profile", 1.0, "s"),
    "find": Goal("search in B", 200, "ms"),
    "search": Goal("search over all traces", 200, "ms"),
    "live": Goal("live event visible after commit", 500, "ms"),
    "memory": Goal("memory of the server after all that", 120, "MB"),
    "script": Goal("JavaScript of the page, compressed", 40, "KB"),
}


class Visit:
    """A tab of a fresh profile, that counts what it is sent."""

    def __init__(self, browser: Browser) -> None:
        self.context = browser.new_context(viewport={"width": 1440, "height": 900})
        self.page: Page = self.context.new_page()
        self.page.add_init_script(WATCH)
        self.bytes = 0.0
        session: CDPSession = self.context.new_cdp_session(self.page)
        session.send("Network.enable")
        session.on("Network.loadingFinished", self._finished)

    def _finished(self, event: dict[str, Any]) -> None:
        self.bytes += event["encodedDataLength"] / 1_000

    def open(self, url: str, *selectors: str) -> float:
        """Go to a page; return the seconds until all of the selectors are visible."""
        began = time.perf_counter()
        self.page.goto(url, wait_until="commit")
        for selector in selectors:
            self.page.wait_for_selector(selector)
        return time.perf_counter() - began

    def longest_task(self) -> float:
        """Return the longest task since the last time this was asked, 0 if none took 50 ms."""
        longest: float = self.page.evaluate("Math.max(0, ...window.tasks.splice(0))")
        return longest


@contextlib.contextmanager
def visiting(browser: Browser) -> Iterator[Visit]:
    """Open a fresh profile, and forget it at the end."""
    visit = Visit(browser)
    yield visit
    visit.context.close()


@contextlib.contextmanager
def serving(home: Path) -> Iterator[tuple[str, float, int]]:
    """Start ``whyops-trace serve``; yield its address, the seconds to the first page, and its process id."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "whyops_trace", "serve", "--port", "0", "--home", str(home)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        assert process.stdout
        for line in process.stdout:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                break
        else:
            raise SystemExit("whyops-trace serve ended before it named its address.")
        subprocess.run(["curl", "-sf", "-o", os.devnull, found[0]], check=True)
        yield found[0], time.perf_counter() - began, process.pid
    finally:
        process.terminate()
        process.wait(30)


def small(number: int) -> Agent:
    """One of many traces: a question, a tool, an answer."""
    agent = Agent(f"order-{number}", f"Where is my order {8000 + number}?")
    asked = agent.turn("", ("track", {"order": 8000 + number}))
    agent.tool("track", {"order": 8000 + number}, {"status": "in transit"}, by=asked)
    agent.turn(f"Order {8000 + number} is on its way.")
    agent.end()
    return agent


def memory(pid: int) -> float:
    """Return the memory of a process in megabytes, what it shares with others in part."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1]) / 1024  # type: ignore[index]


def percentile(times: list[float]) -> float:
    """Return what 95 of 100 stay under, of sorted times."""
    return times[len(times) * 95 // 100]


def measure_list(browser: Browser, url: str) -> dict[str, float]:
    """Measure the list of traces."""
    with visiting(browser) as visit:
        figures = {"list": visit.open(url, "main a[href^='/t/']")}
        visit.page.wait_for_load_state("load")
        figures["list_bytes"] = visit.bytes
        began = time.perf_counter()
        answer = visit.page.request.get(f"{url}/?q=transit")
        figures["search"] = (time.perf_counter() - began) * 1_000
        assert answer.ok
    return figures


def measure_a(browser: Browser, url: str) -> dict[str, float]:
    """Measure the page of the short run."""
    with visiting(browser) as visit:
        scripts: list[Request] = []
        visit.page.on(
            "requestfinished", lambda sent: scripts.append(sent) if sent.resource_type == "script" else None
        )
        seconds = visit.open(f"{url}/t/shop-run-a", ".why", ".card.turn")
        visit.page.wait_for_selector("[data-ready]", state="attached")
        sizes = [sent.sizes()["responseBodySize"] for sent in scripts]
        return {"open_a": seconds, "script": sum(sizes) / 1_000}


def measure_b(browser: Browser, url: str) -> dict[str, float]:
    """Measure the page of the long run."""
    with visiting(browser) as visit:
        page = visit.page
        figures = {"open_b": visit.open(f"{url}/t/long-run-b", ".card.turn", ".row .name")}
        page.wait_for_selector("[data-ready]", state="attached")
        page.wait_for_load_state("networkidle")
        figures["task_open"] = visit.longest_task()
        figures["scroll"] = percentile(page.evaluate(SCROLL, ["", 120]))
        figures["outline"] = percentile(page.evaluate(SCROLL, [".rows", 240]))
        figures["task_scroll"] = visit.longest_task()
        page.evaluate("scrollTo(0, 0)")
        figures["select"] = page.evaluate(PRESS, "j")
        page.wait_for_load_state("networkidle")
        figures["fold"] = page.evaluate(PRESS, "e")
        page.evaluate(PRESS, "e")
        began = time.perf_counter()
        page.evaluate(PRESS, "Enter")
        page.wait_for_selector("#drawer .json")
        figures["payload"] = (time.perf_counter() - began) * 1_000
        began = time.perf_counter()
        page.evaluate("fetch('/t/long-run-b/find?q=no such line').then((answer) => answer.json())")
        figures["find"] = (time.perf_counter() - began) * 1_000
        figures["elements"] = page.evaluate("document.querySelectorAll('*').length")
        figures["heap"] = page.evaluate("(gc(), performance.memory.usedJSHeapSize / 1e6)")
        figures["bytes_b"] = visit.bytes
    with visiting(browser) as visit:
        figures["link"] = visit.open(f"{url}/t/long-run-b?e=6000&detail=1", ".chosen", "#drawer .json")
    return figures


def measure_live(browser: Browser, url: str, grow: Callable[[int], None], run: int) -> dict[str, float]:
    """Measure how long it takes until a turn is in a page that another process recorded."""
    with visiting(browser) as visit:
        visit.open(f"{url}/t/growing", ".card.turn")
        visit.page.wait_for_selector("[data-ready]", state="attached")
        visit.page.wait_for_load_state("load")
        grow(run)
        began = time.perf_counter()
        visit.page.wait_for_selector(f"text=turn number {run} is here", state="attached")
        return {"live": (time.perf_counter() - began) * 1_000}


def main() -> None:
    """Measure everything, and print it as a table."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder) / "home"
        store = stored(home, *(small(number) for number in range(TRACES)), shop(), long())
        growing = Agent("growing", "Go on.")
        growing.turn("turn number 0 is here")
        stored(home, growing, gone=False).close()

        def grow(run: int) -> None:
            known = len(growing.events)
            growing.turn(f"turn number {run} is here")
            with contextlib.closing(stored(home, gone=False)) as other:
                other.ingest(
                    (growing.process.token, [json.dumps(one).encode() for one in growing.events[known:]])
                )

        store.close()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        figures: list[dict[str, float]] = []
        for run in range(1, RUNS + 1):
            with serving(home) as (url, started, pid):
                measured = {"start": started} | measure_list(browser, url)
                with visiting(browser) as visit:
                    measured["first_b"] = visit.open(f"{url}/t/long-run-b", ".card.turn", ".row .name")
                    # Its findings are still looked for, which is not to be in what is measured next.
                    visit.page.wait_for_load_state("networkidle")
                measured |= measure_a(browser, url) | measure_b(browser, url)
                measured |= measure_live(browser, url, grow, run)
                figures.append(measured | {"memory": memory(pid)})
        browser.close()
    print(f"load average {os.getloadavg()[0]:.1f}; medians of {RUNS} runs\n")
    print(f"| {'figure':48} | {'ours':>10} | {'goal':>10} | runs\n|---|---|---|---")
    for key, goal in GOALS.items():
        runs = [measured[key] for measured in figures]
        ours = statistics.median(runs)
        mark = "" if ours <= goal.most else "  over"
        spread = f"{min(runs):.4g} to {max(runs):.4g}"
        print(
            f"| {goal.name:48} | {ours:>6.4g} {goal.unit:3} | {goal.most:>6.4g} {goal.unit:3} | {spread}{mark}"
        )


if __name__ == "__main__":
    main()
