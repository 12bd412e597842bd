"""The list of traces, in a real browser, as a user goes through it."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import Tab, browser, record, served, tab, tool_call
from lines import Process, encoded
from playwright.sync_api import Browser, Page, expect
from programs import run, run_code
from tales import Agent

from whyops_trace.server.pages import bars, spark
from whyops_trace.store import Store

__all__ = ["browser"]

#: Would run, or change the page around it, if anything of it were taken for markup.
ATTACK = (
    """"><img src=x onerror=alert(1)><script>alert(2)</script><b style='position:fixed'>{{7*7}}</b></title>"""
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


@pytest.fixture
def shown(home: Path, browser: Browser) -> Iterator[Tab]:
    """A tab of a server that shows the home."""
    with served(home) as url, tab(browser, url) as opened:
        yield opened


def conversation(trace: str, asked: str, answer: str | None, **members: Any) -> list[dict[str, Any]]:
    """Return a trace of one turn that ended."""
    process, at = Process(trace=trace), members.pop("at", 0)
    usage = {"promptTokens": 4_000, "completionTokens": 2_000, "cacheReadTokens": 36_000}
    about = {"usage": usage, "model": "gpt-4o", "provider": "openai"}
    question = {"messages": [{"role": "user", "content": asked}]}
    events = [process.event("user_message", 1, content=question, at=at, **members)]
    if answer is not None:
        content = {"content": answer}
        events.append(
            process.event("llm_response", 2, 1, metadata=about, content=content, at=at + 1200, **members)
        )
    events.append(
        process.event("trace_end", 1, 1, metadata={"latencyMs": 1300}, at=at + 1200, end=True, **members)
    )
    return events


def loop(trace: str, times: int = 4) -> list[dict[str, Any]]:
    """Return a trace that calls a tool with the same arguments again and again."""
    process = Process(trace=trace)
    call = {"toolCalls": [{"name": "poll", "arguments": {"id": 1}}]}
    return [
        process.event("tool_call_request", step, metadata={"tool": "poll"}, content=call, at=step)
        for step in range(1, times + 1)
    ]


def failure(trace: str, message: str = "no such order", **members: Any) -> list[dict[str, Any]]:
    """Return a trace that failed."""
    events = conversation(trace, "Where is it?", None, **members)[:-1]
    process = Process(trace=trace, token="0123456789ab")
    return [*events, process.event("error", 2, 1, content={"type": "ToolError", "message": message}, at=50)]


def row(page: Page, trace: str) -> str:
    """Return what the row of a trace says, a cell after the other."""
    link = page.locator(f'a.row[href="/t/{quote(trace, safe="")}"]')
    cells = page.locator("tr", has=link).locator("td").all_inner_texts()
    return " | ".join([" ".join(cell.split()) or "-" for cell in cells])


def names(page: Page) -> list[str]:
    """Return the traces in the list."""
    return page.locator("a.row").all_inner_texts()


def test_a_row_says_what_was_asked_and_how_it_ended(home: Path, shown: Tab) -> None:
    """With turns, tools, errors, tokens and what of them was cached, cost and time."""
    record(
        home,
        conversation("refund", "My order is late", "Refunded the fee", at=86_400_000),
        failure("failed"),
        conversation("silent", "Anybody there?", None),
        loop("poll"),
        [tool_call("open")[0]],
    )
    page = shown.open()
    when = r"(\d\d-\d\d )?\d\d:\d\d(:\d\d)?"

    assert re.fullmatch(when + r" \| refund \| shop \| My order is late → Refunded the fee"
                        r" \| 1 \| - \| - \| 42k \| 90 % \| \$0\.0\d+ \| 1\.3 s \| -", row(page, "refund"))  # fmt: skip
    assert "Where is it? → ✗ ToolError: no such order | 1 | - | 1 |" in row(page, "failed")
    assert "Anybody there? → no answer" in row(page, "silent")
    assert "no end seen" in row(page, "open")
    assert "looping \N{MULTIPLICATION SIGN}4" in row(page, "poll")
    assert names(page)[0] == "refund"


@pytest.mark.parametrize(
    ("turns", "path"),
    [
        ([], ""),
        ([500], ""),
        ([0, 0], ""),
        ([1, 100], "M0 14v-1h3v1zM4 14v-14h3v14z"),
        ([10, 20, 5], "M0 14v-7h3v7zM4 14v-14h3v14zM8 14v-4h3v4z"),
    ],
)
def test_turns_are_a_small_picture(turns: list[int], path: str) -> None:
    """As high as their tokens; a single one says nothing."""
    assert spark(turns) == path


def test_a_small_number_among_large_ones_has_a_bar() -> None:
    """And a 0 has none."""
    assert bars([1, 0, 1_000]) == "M0 14v-1h3v1zM8 14v-14h3v14z"
    assert bars([]) == bars([0]) == ""


def test_many_turns_share_the_bars(home: Path, shown: Tab) -> None:
    """The largest of each few stands for them, in the order of time."""
    process = Process(trace="climbs")
    record(
        home,
        [
            process.event(
                "llm_response",
                n,
                metadata={"usage": {"promptTokens": 10 * n}},
                content={"content": "a"},
                at=n,
            )
            for n in range(1, 41)
        ],
    )
    path = shown.open().locator("td.spark path").get_attribute("d") or ""
    heights = [int(height) for height in re.findall(r"v-(\d+)", path)]

    assert heights == sorted(heights)
    assert (len(heights), heights[0], heights[-1]) == (14, 1, 14)


def test_the_numbers_of_failures_are_whole(home: Path, shown: Tab) -> None:
    """Of those that raised and of those that only said so, side by side, at the width of a laptop."""
    agent = Agent()
    for number in range(30):
        agent.tool("find", {"id": number}, "Error: no such order")
        agent.tool("read", {"id": number}, error=("OSError", "no"))
    record(home, agent.events)
    page = shown.open()
    page.set_viewport_size({"width": 1280, "height": 800})
    cell = page.locator("td.errors")

    expect(cell).to_have_text("30 +30 said")
    assert cell.evaluate("cell => cell.scrollWidth <= cell.clientWidth")


def test_traces_that_deserve_a_look_are_one_click_away(home: Path, shown: Tab) -> None:
    """Each with how many there are; another click shows all again."""
    record(
        home, conversation("ok", "a", "b"), failure("failed"), conversation("silent", "a", None), loop("poll")
    )
    page = shown.open()
    found = {}
    for name in ("failed", "looping", "no answer"):
        page.get_by_role("link", name=f"{name} 1").click()
        expect(page.locator(".total")).to_have_text("1 of 4 traces")
        found[name] = names(page)
        page.locator("#saved a[aria-current]").click()
        expect(page.locator(".total")).to_have_text("4 traces")

    assert found == {"failed": ["failed"], "looping": ["poll"], "no answer": ["silent"]}


def test_search_finds_while_one_types(home: Path, shown: Tab) -> None:
    """The address has what is searched for, in a fresh profile as well."""
    record(
        home,
        conversation("a", "My teapot is broken", "Sorry"),
        conversation("b", "Where are my cups?", "There"),
    )
    page = shown.open()
    page.keyboard.press("/")
    page.keyboard.type("teap")
    expect(page.locator(".total")).to_have_text("1 of 2 traces")
    first, url = names(page), page.url
    page.locator("#q").fill("no such words")
    expect(page.get_by_role("heading", name="No trace matches no such words")).to_be_visible()
    page.goto(url)

    assert (first, names(page), page.locator("#q").input_value()) == (["a"], ["a"], "teap")
    assert url.endswith("/?q=teap")


def test_a_trace_that_was_searched_for_opens_where_it_was_found(home: Path, shown: Tab) -> None:
    """The search goes on in its page; not if it was its name that was found."""
    record(home, conversation("checkout-8841", "My teapot is broken", "Sorry"))
    page = shown.open("/?q=checkout teapot agent:shop")
    found = page.locator("a.row").get_attribute("href")
    page = shown.open("/?q=checkout")

    assert (found, page.locator("a.row").get_attribute("href")) == (
        "/t/checkout-8841?q=teapot",
        "/t/checkout-8841",
    )


def test_a_search_goes_on_while_the_index_is_filled(home: Path, browser: Browser) -> None:
    """It says so, and shows what it has; the rest comes by itself."""
    said = {"messages": [{"role": "user", "content": "My teapot is broken. " * 20}]}
    events = [
        encoded(Process(trace=f"t{n}", token=f"{n:012x}").event("user_message", 1, content=said))
        for n in range(30_000)
    ]
    with contextlib.closing(Store(home / "traces.db")) as store:
        store.ingest(("0123456789ab", events))
    with served(home) as url, tab(browser, url) as opened:
        page = opened.open("/?q=teapot")
        expect(page.locator(".note")).to_contain_text("The search index is being filled")
        expect(page.locator(".total")).to_have_text("30,000 of 30,000 traces", timeout=60_000)
        expect(page.locator(".note")).to_have_count(0)


def test_what_is_not_understood_is_said(home: Path, shown: Tab) -> None:
    """Above the list."""
    record(home, tool_call("t"))
    page = shown.open("/?q=error:perhaps")

    expect(page.locator(".note")).to_have_text(
        "error:perhaps is not understood: it is error:yes or error:no."
    )


def test_the_keyboard_is_enough(home: Path, shown: Tab) -> None:
    """Down, down, up, open; back again the same row is chosen."""
    record(home, *(tool_call(f"t{n}", at=-n) for n in range(5)))
    page = shown.open()
    for key in "jjjk":
        page.keyboard.press(key)
    chosen = page.evaluate("document.activeElement.textContent")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    opened = page.url
    page.go_back()
    page.wait_for_function("document.activeElement.textContent === 't1'")

    assert (chosen, opened) == ("t1", f"{shown.url}/t/t1")
    assert page.url == f"{shown.url}/#/t/t1"


def test_the_keys_are_told(home: Path, shown: Tab) -> None:
    """By one of them; while the dialog is open the others rest."""
    record(home, tool_call("t"))
    page = shown.open()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("j")
    in_dialog = page.evaluate("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()

    assert in_dialog


def test_new_traces_do_not_move_what_is_read(home: Path, shown: Tab) -> None:
    """They are counted, and shown when one wants to see them."""
    record(home, *(tool_call(f"old{n:02}", at=-n) for n in range(60)))
    page = shown.open()
    expect(page.locator("#live")).to_have_text("live")
    page.locator("a.row", has_text="old40").focus()
    before = page.evaluate("[scrollY, document.activeElement.getBoundingClientRect().top]")
    record(home, tool_call("new1", at=1000), tool_call("new2", at=2000))
    expect(page.locator("#fresh")).to_have_text("2 new")
    after = page.evaluate("[scrollY, document.activeElement.getBoundingClientRect().top]")
    unmoved = names(page)[0]
    page.keyboard.press(".")
    expect(page.locator("a.row").first).to_have_text("new2")
    expect(page.locator("#fresh")).to_be_hidden()

    assert (before, unmoved) == (after, "old00")
    assert page.evaluate("scrollY") == 0


def test_a_running_trace_changes_where_it_stands(home: Path, shown: Tab) -> None:
    """Also if it has the focus."""
    turn = conversation("growing", "My order is late", "Refunded the fee", at=-5_000)
    process = Process(trace="growing", token="9f2c41aa01be")
    record(home, tool_call("latest", at=10_000))
    record(home, turn[:1])
    page = shown.open()
    expect(page.locator("#live")).to_have_text("live")
    page.keyboard.press("j")
    page.keyboard.press("j")
    record(home, turn[1:])
    expect(page.locator("tr", has_text="growing")).to_contain_text("Refunded the fee")

    assert process.trace == page.evaluate("document.activeElement.textContent")
    assert names(page) == ["latest", "growing"]


def test_the_first_trace_shows_up_by_itself(home: Path, shown: Tab) -> None:
    """Where there were none, the page says how to record one; and what it says works."""
    page = shown.open()
    expect(page.get_by_role("heading", name=re.compile("no traces in .* yet"))).to_be_visible()
    code = page.locator(".empty pre").inner_text()
    address = f'analyse_base_url="{shown.url}/api"'
    says_where = address in page.locator(".empty").inner_text()
    done = run_code(code, home)
    expect(page.locator("a.row")).to_have_text(["hello"])

    assert (done.returncode, done.stderr, says_where) == (0, "", True)


def test_there_are_pages(home: Path, shown: Tab) -> None:
    """Of a hundred, each as quick as the first."""
    record(home, *(tool_call(f"t{n:03}", at=-n) for n in range(250)))
    page = shown.open("/?q=agent:shop")
    seen = [names(page)]
    for _ in range(2):
        page.locator("#older").click()
        page.wait_for_function(
            "first => document.querySelector('a.row').textContent !== first", arg=seen[-1][0]
        )
        seen.append(names(page))
    is_last = page.locator("#older").count() == 0
    page.get_by_role("link", name="newest").click()
    page.wait_for_function("document.querySelector('a.row').textContent === 't000'")

    assert [len(part) for part in seen] == [100, 100, 50]
    assert [name for part in seen for name in part] == [f"t{n:03}" for n in range(250)]
    assert is_last


def test_a_page_after_a_trace_that_is_deleted(home: Path) -> None:
    """The first one is shown, and says so."""
    record(home, tool_call("t"))
    with served(home) as url:
        answer = httpx.get(f"{url}/?after=gone")

    assert (answer.status_code, "is deleted; these are the latest ones" in answer.text) == (200, True)


def test_a_store_that_cannot_be_read_is_said(home: Path) -> None:
    """What is wrong with it, and what to do; and of an index that cannot be, above the list."""
    record(home, tool_call("t"))
    for name in ("search.db", "traces.db"):
        with contextlib.closing(sqlite3.connect(home / name)) as connection:
            if name == "search.db":
                connection.execute("CREATE TABLE notes (text)")
                with served(home) as url:
                    searched = httpx.get(f"{url}/?q=charge")
            else:
                connection.execute("PRAGMA user_version = 99")
                with served(home) as url:
                    newer = httpx.get(url)

    assert (searched.status_code, "Words cannot be searched for: " in searched.text) == (200, True)
    assert (newer.status_code, "is a store of format 99" in newer.text) == (503, True)


def test_a_directory_in_the_place_of_the_index_is_set_aside(home: Path) -> None:
    """Words are found as ever."""
    record(home, tool_call("t"))
    (home / "search.db").mkdir()
    with served(home) as url:
        searched = httpx.get(f"{url}/?q=charge")

    assert (searched.status_code, "Words cannot be searched for: " in searched.text) == (200, False)
    assert (home / "search.db.bad").is_dir()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 400])
def test_there_are_no_barriers(home: Path, browser: Browser, theme: Any, width: int) -> None:
    """Axe finds none, in either theme, on a desk and on a phone, with traces and without."""
    with (
        served(home) as url,
        tab(browser, url, color_scheme=theme, viewport={"width": width, "height": 900}) as opened,
    ):
        empty = Axe().run(opened.open())
        record(
            home,
            conversation("a", "My order is late", "Done"),
            failure("failed"),
            loop("poll"),
            [tool_call("o")[0]],
        )
        page = opened.open("/?q=agent:shop")
        page.keyboard.press("j")
        full = Axe().run(page)
        page.keyboard.press("?")
        dialog = Axe().run(page)

    assert [found.violations_count for found in (empty, full, dialog)] == [0, 0, 0], full.generate_report()


def test_the_colours_are_remembered(home: Path, browser: Browser) -> None:
    """As the system has them, light, or dark; before anything is painted."""
    with served(home) as url, tab(browser, url, color_scheme="dark") as opened:
        page = opened.open()
        colour = "getComputedStyle(document.body).backgroundColor"
        system = page.evaluate(colour)
        page.locator("#theme").click()
        light = page.evaluate(colour)
        opened.open("/?q=x")
        again = page.evaluate(colour)
        page.locator("#theme").click()
        dark = page.evaluate(colour)

    assert (light, again, dark) == ("rgb(255, 255, 255)", light, system)
    assert system != light


def test_it_works_without_scripts(home: Path, browser: Browser) -> None:
    """Search, filters and pages are links and a form."""
    record(home, conversation("a", "My teapot is broken", "Sorry"), failure("failed"))
    with served(home) as url, tab(browser, url, java_script_enabled=False) as opened:
        page = opened.open()
        page.locator("#q").fill("teapot")
        page.locator("#q").press("Enter")
        page.wait_for_url("**/?q=teapot")
        found = names(page)
        opened.open()
        page.get_by_role("link", name="failed 1").click()

        assert (found, names(page)) == (["a"], ["failed"])


def hostile(trace: str) -> list[dict[str, Any]]:
    """Return a trace that has an attack in every field."""
    about = {"tags": [ATTACK], "metadata": {ATTACK: ATTACK}}
    events = conversation(trace, ATTACK, ATTACK, agentName=ATTACK, externalUserId=ATTACK)
    events[0]["metadata"] |= {"trace": about, "model": ATTACK, "tool": ATTACK, "systemPrompt": ATTACK}
    events[1]["metadata"] |= {"model": ATTACK, "provider": ATTACK}
    return events


def test_what_a_trace_holds_is_text(home: Path, shown: Tab) -> None:
    """No script of it runs, nothing is asked of anybody, and everything is seen as it was written."""
    record(home, hostile(ATTACK), failure("failed", message=ATTACK), hostile("\x1b[31m\u202eevil\x00"))
    page = shown.open("/?q=" + quote(ATTACK))
    searched = page.locator("#q").input_value()
    page = shown.open()
    text = page.locator("table.traces").inner_text()
    made = page.locator("main img, main script, main b, [onerror], [style]").count()

    assert searched == ATTACK
    assert text.count("<img src=x onerror=alert(1)>") >= 5
    assert "\\u202eevil" in text
    assert (made, page.title()) == (0, "traces · whyops-trace")
    assert page.locator("a.row").first.get_attribute("href") is not None


def test_hostile_traces_are_searched_and_opened(home: Path, shown: Tab) -> None:
    """By what is in them, and by their names."""
    record(home, hostile(ATTACK))
    page = shown.open("/?q=onerror")
    with page.expect_response(
        lambda answer: "/t/" in answer.url and answer.request.is_navigation_request()
    ) as opened:
        page.locator("a.row").click()

    assert opened.value.status == 200


def test_the_demo_is_in_the_list(home: Path, shown: Tab) -> None:
    """What a user sees first."""
    run("-m", "whyops_trace", "demo", home=home)
    page = shown.open()

    expect(page.locator("tr.ended")).to_contain_text("The teapot of order 8841 came with a broken lid.")
