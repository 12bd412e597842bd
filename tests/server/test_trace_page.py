"""The page of one trace, in a real browser, as a user goes through it."""

from __future__ import annotations

import contextlib
import functools
import re
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from agent_runs import Agent, long, put, shop, stored
from axe_playwright_python.sync_playwright import Axe
from browser import Tab, browser, ready, served, tab
from hostile import ATTACK, attacked
from playwright.sync_api import Browser, Page, Route, expect

from whyops_trace.server import skeleton, trace_page

__all__ = ["browser"]

RUN = "/t/shop-run-a"
LONG = "/t/long-run-b"
#: A call of a tool as OpenAI has it.
CALL = {"name": "track", "arguments": '{"order": "8852", "by": ["a\\nb"]}'}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a short run and a long one, which no test changes."""
    home = tmp_path_factory.mktemp("trace-page")
    stored(home, shop(), long(turns=120)).close()
    return home


@pytest.fixture
def url(runs: Path) -> Iterator[str]:
    """The address of a server of that home."""
    with served(runs) as address:
        yield address


@pytest.fixture
def shown(url: str, browser: Browser) -> Iterator[Tab]:
    """A tab of that server."""
    with tab(browser, url) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


def chosen(page: Page) -> Any:
    """The card that is marked as chosen."""
    return page.locator(".chosen")


def steps(page: Page) -> list[int]:
    """The steps that have a card in the page."""
    numbers = "cards => cards.map(card => Number(card.dataset.step))"
    found: list[int] = page.eval_on_selector_all("[data-step]", numbers)
    return found


def test_the_head_says_what_was_asked_how_it_ended_and_what_failed_on_the_way(shown: Tab) -> None:
    """Nobody has to click to learn why the first refund was refused and what the agent did next."""
    head = ready(shown.open(RUN)).locator("#head")

    expect(head).to_contain_text("My order 8841 came broken")
    expect(head).to_contain_text("I refunded the express fee")
    expect(head).to_contain_text("2 calls failed, 2 recovered")
    expect(head).to_contain_text("PolicyError: amount 129.0 exceeds express fee")
    expect(head).to_contain_text(re.compile("turn 5 tried again with amount=12.9"))


def test_a_line_that_explains_leads_to_both_of_its_steps(shown: Tab) -> None:
    """Its first half is a link to what failed, its second one to what followed."""
    page = ready(shown.open(RUN))
    links = page.locator(".why", has_text="PolicyError").locator("a")

    links.nth(0).click()
    expect(chosen(page)).to_contain_text("amount 129.0 exceeds")
    links.nth(1).click()
    expect(chosen(page)).to_contain_text("tries #")
    expect(chosen(page)).to_be_in_viewport()


def test_without_scripts_the_whole_run_can_be_read(url: str, browser: Browser) -> None:
    """The transcript of a run of up to five hundred events is in the page itself."""
    with tab(browser, url, java_script_enabled=False) as opened:
        page = opened.open(RUN)

        expect(page.locator(".turn")).to_have_count(7)
        expect(page.locator(".card.tool")).to_have_count(8)
        expect(page.get_by_text("the carrier did not answer in 10 s").first).to_be_visible()
        expect(page.locator("#outline")).to_be_hidden()


def test_a_turn_shows_only_what_is_new_in_it(shown: Tab) -> None:
    """What stood before is folded, with its number; the results of tools are folded too, as they stand above."""
    page = ready(shown.open(RUN))
    turn = page.locator("[data-turn='4']")

    expect(turn).to_contain_text("earlier messages")
    expect(turn.get_by_text("My order 8841 came broken")).to_have_count(0)
    turn.locator("summary", has_text="earlier").click()
    expect(turn.get_by_text("My order 8841 came broken").first).to_be_visible()


def test_a_tool_that_was_tried_again_shows_what_changed(shown: Tab) -> None:
    """The second call names the first one, and each argument before and after."""
    page = ready(shown.open(RUN))
    again = page.locator(".card.tool", has_text="changed since")

    expect(again.locator("del")).to_have_text("129.0")
    expect(again.locator("ins")).to_have_text("12.9")
    again.get_by_role("link", name="tries #").click()
    expect(chosen(page)).to_contain_text("next: tried again in turn 5")


def test_an_argument_leads_to_where_it_came_from(shown: Tab) -> None:
    """From the card of the call to that of the result that had the value."""
    page = ready(shown.open(RUN))
    again = page.locator(".card.tool", has_text="changed since")

    again.locator("summary", has_text="where the arguments came from").click()
    again.get_by_role("link", name="amount is from the result of look_up").click()
    expect(chosen(page)).to_contain_text("look_up")


def test_a_failed_turn_leads_to_the_one_that_tries_it_again(home: Path, browser: Browser) -> None:
    """And back; a failure that nobody tried to make good leads to what was done next."""
    agent = Agent("failing", "Refund my order.")
    agent.breaks("RateLimitError: slow down")
    asked = agent.turn("", ("refund", {"order": 1}))
    agent.tool("refund", {"order": 1}, by=asked, error="PolicyError: never")
    agent.turn("It cannot be refunded.")
    stored(home, agent)
    with served(home) as url, tab(browser, url) as opened:
        page = ready(opened.open("/t/failing"))
        first, second = page.locator("[data-turn='1']"), page.locator("[data-turn='2']")

        first.get_by_role("link", name="tried again in turn 2").click()
        expect(chosen(page)).to_have_attribute("data-turn", "2")
        second.get_by_role("link", name="tries turn 1 again").click()
        expect(chosen(page)).to_have_attribute("data-turn", "1")
        second.locator(".card.tool .next").get_by_role("link", name="turn 3 answered").click()
        expect(chosen(page)).to_have_attribute("data-turn", "3")


def test_keys_that_came_before_the_shape_of_a_long_run_are_made_up_for(shown: Tab) -> None:
    """They are acted on, in order, as soon as the page can."""
    shape: list[Route] = []
    shown.page.route("**/skeleton?*", lambda route: shape.append(route))
    page = shown.page
    with page.expect_request("**/skeleton?*"):
        page.goto(shown.url + LONG, wait_until="domcontentloaded")
    page.wait_for_function("!document.querySelector('#help-open').hidden")
    for key in ("n", "n", "/", *"item"):
        page.keyboard.press(key)
    expect(chosen(page)).to_have_count(0)
    shape[0].continue_()

    expect(page.locator("#said")).to_contain_text("Failure 2 of")
    expect(chosen(page)).to_contain_text("LookupError")
    expect(page.get_by_role("searchbox")).to_have_value("item")
    expect(page.locator("#found")).to_contain_text("found")


def test_one_key_leads_to_the_first_failure_and_the_next_ones(shown: Tab) -> None:
    """n and N go through what failed, and begin again at the end."""
    page = ready(shown.open(RUN))

    page.keyboard.press("n")
    expect(chosen(page)).to_contain_text("TimeoutError")
    expect(page.locator("#said")).to_contain_text("Failure 1 of 2")
    page.keyboard.press("n")
    expect(chosen(page)).to_contain_text("PolicyError")
    page.keyboard.press("n")
    expect(chosen(page)).to_contain_text("TimeoutError")
    page.keyboard.press("N")
    expect(chosen(page)).to_contain_text("PolicyError")
    expect(chosen(page)).to_be_in_viewport()


def test_j_and_k_go_from_turn_to_turn(shown: Tab) -> None:
    """They choose the turn, and stop at the last and the first one."""
    page = ready(shown.open(RUN))

    for number in (1, 2, 3):
        page.keyboard.press("j")
        expect(chosen(page)).to_have_attribute("data-turn", str(number))
    page.keyboard.press("k")
    expect(chosen(page)).to_have_attribute("data-turn", "2")


def test_enter_shows_the_detail_and_escape_closes_it(shown: Tab) -> None:
    """The detail has the error, the arguments, links to what belongs to it, and the records."""
    page = ready(shown.open(RUN))

    page.keyboard.press("n")
    page.keyboard.press("Enter")
    drawer = page.locator("#drawer")
    expect(drawer).to_contain_text("TimeoutError: the carrier did not answer in 10 s")
    expect(drawer).to_contain_text("3 records")
    expect(drawer).to_contain_text("asked for by turn 2")
    expect(drawer).to_contain_text("gen_ai.tool.name")
    drawer.get_by_role("link", name="track #").click()
    expect(drawer).to_contain_text("tries again track #")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()


def test_the_detail_of_a_turn_tells_cached_tokens_from_others(shown: Tab) -> None:
    """Prompt tokens from the cache stand apart, and the cost beside them."""
    page = ready(shown.open(RUN))
    page.locator("[data-turn='4'] [data-open]").first.click()
    drawer = page.locator("#drawer")

    expect(drawer.get_by_role("row", name=re.compile("from the cache"))).to_contain_text("81")
    expect(drawer.get_by_role("row", name=re.compile("^cost"))).to_contain_text("$")


@pytest.mark.parametrize(
    "keys",
    [["n"], ["n", "n", "Enter"], ["j", "j", "t"], ["/", *"refund", "Enter"], ["j", "j", "j", "d"]],
    ids=["failure", "detail", "timeline", "search", "comparison"],
)
def test_the_address_shows_the_same_in_a_fresh_browser(keys: list[str], url: str, browser: Browser) -> None:
    """Whatever was chosen, opened, searched or compared stands in the address."""
    with tab(browser, url) as first:
        page = ready(first.open(RUN))
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_url(re.compile(r"\?.*e=\d+"))
        expect(page.locator("#found")).to_have_text(re.compile("found, step" if "/" in keys else "^$"))
        address = page.url
        seen = _state(page)
    with tab(browser, url) as second:
        page = second.page
        page.goto(address)
        ready(page)
        expect(page.locator("#found")).to_have_text(re.compile("found, step" if "/" in keys else "^$"))

        page.wait_for_function(
            "state => JSON.stringify(state) === JSON.stringify((" + _SEEN + ")())", arg=seen
        )
        assert page.url == address


_SEEN = """() => ({
  chosen: document.querySelector(".chosen")?.dataset.step ?? "",
  row: document.querySelector(".row[aria-selected=true]")?.title ?? "",
  drawer: document.querySelector("#drawer").hidden ? "" : document.querySelector("#drawer h2")?.textContent ?? "",
  timeline: document.querySelector("#timeline").hidden,
  found: document.querySelector("#found").textContent,
  compared: document.querySelector("dialog.compare .diff")?.textContent ?? "",
})"""


def _state(page: Page) -> dict[str, Any]:
    """What can be seen, once it has come."""
    page.wait_for_function(
        "() => (document.querySelector('#drawer').hidden || document.querySelector('#drawer .json'))"
        " && (!document.querySelector('dialog.compare') || document.querySelector('.compare .added'))"
    )
    state: dict[str, Any] = page.evaluate(_SEEN)
    return state


def test_the_outline_is_a_tree_that_the_arrows_walk(shown: Tab) -> None:
    """Each row says its level and whether it is unfolded; what is folded stays so when the page is loaded again."""
    page = ready(shown.open(RUN))
    grid = page.get_by_role("treegrid")
    grid.focus()
    page.keyboard.press("Home")

    first = page.locator("[role=row][aria-selected=true]")
    expect(first).to_have_attribute("aria-level", "1")
    expect(first).to_have_attribute("aria-expanded", "true")
    expect(grid).to_have_attribute("aria-rowcount", "17")
    page.keyboard.press("ArrowLeft")
    expect(first).to_have_attribute("aria-expanded", "false")
    expect(grid).to_have_attribute("aria-rowcount", "10")
    page.keyboard.press("ArrowDown")
    expect(page.locator("[role=row][aria-selected=true]")).to_contain_text("refund")
    page.reload()
    ready(page)
    expect(grid).to_have_attribute("aria-rowcount", "10")
    page.keyboard.press("e")
    expect(grid).to_have_attribute("aria-rowcount", "17")
    page.keyboard.press("e")
    expect(grid).to_have_attribute("aria-rowcount", "3")


def test_typing_in_the_outline_goes_to_the_next_row_of_that_name(shown: Tab) -> None:
    """The first letters of a name are enough."""
    page = ready(shown.open(RUN))
    page.get_by_role("treegrid").focus()

    page.keyboard.type("quo", delay=0)
    expect(page.locator("[role=row][aria-selected=true]")).to_contain_text("quote")


def test_the_outline_of_a_long_run_says_what_calls_were_given(
    url: str, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the rows in sight it is fetched, once, wherever one goes."""
    monkeypatch.setattr(trace_page, "shape", functools.partial(trace_page.shape, previewed=10))
    asked: list[str] = []
    with tab(browser, url) as opened:
        opened.page.on("request", lambda request: asked.append(request.url.partition("/previews")[2]))
        page = ready(opened.open(LONG))
        grid = page.get_by_role("treegrid")

        expect(page.locator("[role=row]", has_text="look_up").first).to_contain_text("order=8001")
        grid.focus()
        page.keyboard.press("End")
        row = page.locator("[role=row]", has_text="order=8120").first
        expect(row).to_be_visible()
        page.keyboard.press("Home")
        expect(page.locator("[role=row]", has_text="order=8001").first).to_be_visible()
        parts = list(filter(None, asked))
        assert len(parts) == len(set(parts)) <= 4


def test_search_counts_what_there_is_and_goes_through_it(shown: Tab) -> None:
    """The count is that of the records; what stands in the page is marked."""
    page = ready(shown.open(RUN))

    page.keyboard.press("/")
    page.keyboard.type("policyerror")
    found = page.locator("#found")
    expect(found).to_have_text(re.compile(r"^\d+ found$"))
    count = page.evaluate("fetch('/t/shop-run-a/find?q=policyerror').then(a => a.json()).then(j => j.count)")
    expect(found).to_contain_text(f"{count} found")
    page.keyboard.press("Enter")
    expect(found).to_contain_text("step 1 of")
    first = page.url
    page.keyboard.press("Enter")
    expect(found).to_contain_text("step 2 of")
    page.keyboard.press("Shift+Enter")
    expect(found).to_contain_text("step 1 of")
    assert page.url == first
    assert page.evaluate("CSS.highlights.get('found').size") > 1
    page.keyboard.press("Escape")
    expect(found).to_be_empty()


def test_the_timeline_finds_what_is_under_the_pointer(shown: Tab) -> None:
    """A bar names itself, and is chosen by a click; the outline is the way to it by keys."""
    page = ready(shown.open(f"{RUN}?view=timeline"))
    box = page.locator("#timeline canvas").bounding_box()
    assert box

    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 22 + 20 + 10)
    expect(page.locator(".tip")).to_contain_text("tool track")
    page.mouse.down()
    page.mouse.up()
    expect(page).to_have_url(re.compile("e=11"))
    page.keyboard.press("ArrowDown")
    expect(page).to_have_url(re.compile("e=14"))
    page.keyboard.press("t")
    expect(page.locator("#transcript")).to_be_visible()
    expect(chosen(page)).to_be_in_viewport()


def test_a_stretch_of_the_map_narrows_the_outline_to_that_time(shown: Tab) -> None:
    """Dragging over the map chooses a time; Escape shows all again."""
    page = ready(shown.open(RUN))
    box = page.locator("#map canvas").bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2

    page.mouse.move(box["x"] + box["width"] * 0.9, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.97, middle, steps=4)
    page.mouse.up()
    expect(page).to_have_url(re.compile("from=.*to="))
    expect(page.locator(".foot")).to_contain_text("of 17 rows")
    page.keyboard.press("Escape")
    expect(page.locator(".foot")).to_contain_text(re.compile("^17 rows"))


def test_two_turns_are_compared_line_by_line(shown: Tab) -> None:
    """d compares a turn with the one before it, or with another one that is chosen."""
    page = ready(shown.open(RUN))
    for key in "jjd":
        page.keyboard.press(key)
    dialog = page.get_by_role("dialog")

    expect(dialog).to_contain_text("Turn 2, compared with")
    expect(dialog.locator(".added").first).to_be_visible()
    dialog.get_by_role("combobox").select_option("Turn 7")
    expect(page).to_have_url(re.compile("diff=7"))
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page).not_to_have_url(re.compile("diff="))


def test_turns_are_compared_by_what_they_say(shown: Tab) -> None:
    """Not by how it was sent: without escapes, brackets and ids."""
    page = ready(shown.open(f"{RUN}?e=14&diff=1"))
    lines = page.locator("dialog.compare .diff")

    expect(lines.locator(".added", has_text="── asked for track").first).to_be_visible()
    expect(lines.locator(".same", has_text="order: 8852").first).to_be_visible()
    expect(lines.locator(".added", has_text="item: teapot")).to_be_visible()
    expect(lines).not_to_contain_text("call_")
    expect(lines).not_to_contain_text('\\"')
    expect(lines).not_to_contain_text(re.compile("1 lines"))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "Well.", "tool_calls": [{"id": "c1", "function": CALL}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Well."},
                {"type": "tool_use", "id": "c1", "name": "track", "input": {"order": "8852", "by": ["a\nb"]}},
            ],
        },
        [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Well."}]},
            {"type": "function_call", "call_id": "c1", **CALL},
        ],
    ],
    ids=["chat", "blocks", "items"],
)
def test_messages_are_compared_in_one_form(message: Any, shown: Tab) -> None:
    """Whatever the provider calls their parts; a text that looks like a number has its quotes."""
    page = ready(shown.open(RUN))
    sent = message if isinstance(message, list) else [message]
    records = [{"eventType": "user_message", "content": {"messages": sent}}]
    told = page.evaluate("async (records) => (await import('whyops/trace-told')).told(records)", records)

    lines = ["── assistant", "Well.", "── asked for track", 'order: "8852"', "by:", "  -", "    a", "    b"]
    assert told == lines


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("query", ["", "?e=11&detail=1", "?view=timeline", "?e=14&diff=1"])
def test_axe_finds_nothing_to_complain_of(scheme: str, query: str, url: str, browser: Browser) -> None:
    """In both themes, with the detail, the timeline and a comparison."""
    with tab(browser, url, color_scheme=scheme, reduced_motion="reduce") as opened:
        page = ready(opened.open(RUN + query))
        _state(page)

        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [400, 1024])
def test_narrow_windows_scroll_only_downwards(width: int, url: str, browser: Browser) -> None:
    """Nothing stands out at the side."""
    with tab(browser, url, viewport={"width": width, "height": 800}) as opened:
        page = ready(opened.open(RUN))

        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_long_run_has_few_elements_and_all_of_its_steps_can_be_reached(shown: Tab) -> None:
    """Its cards are fetched where they are read, and go when they are far away."""
    page = ready(shown.open(LONG))

    assert page.evaluate("document.querySelectorAll('*').length") < 3_000
    assert len(steps(page)) < 400
    page.get_by_role("treegrid").focus()
    page.keyboard.press("End")
    expect(chosen(page)).to_contain_text("All open orders are settled.")
    expect(chosen(page)).to_be_in_viewport()
    page.keyboard.press("Home")
    expect(chosen(page)).to_contain_text("batch 1")
    expect(chosen(page)).to_be_in_viewport()
    assert page.evaluate("document.querySelectorAll('*').length") < 3_000


def test_a_link_into_a_long_run_opens_at_its_step(shown: Tab) -> None:
    """The part of the transcript with the step is in the page from the start."""
    page = ready(shown.open(f"{LONG}?e=2000"))

    expect(chosen(page)).to_be_in_viewport()
    expect(page.locator("[role=row][aria-selected=true]")).to_be_visible()


def test_the_findings_of_a_long_run_come_after_the_rest(shown: Tab) -> None:
    """They take longer to work out than all else, and appear in the head and where they happened."""
    page = ready(shown.open(LONG))

    chip = page.locator("#head .chip", has_text="REPEATED_FAILURE")
    expect(chip).to_be_visible()
    chip.click()
    expect(page.locator(".finding", has_text="REPEATED_FAILURE").first).to_be_in_viewport()


def test_a_running_trace_grows_where_it_is_read_without_moving(home: Path, browser: Browser) -> None:
    """New turns come below; the card that was chosen and the place that is read stay."""
    agent = shop("growing")
    events = agent.events
    store = stored(home, gone=False)
    put(store, agent.process.token, events[:28])
    with served(home) as url, tab(browser, url) as opened:
        page = ready(opened.open("/t/growing"))
        page.keyboard.press("n")
        expect(chosen(page)).to_be_in_viewport()
        expect(page.locator("#live")).to_have_text("running")
        top = page.evaluate("document.querySelector('.chosen').getBoundingClientRect().top")
        put(store, agent.process.token, events[28:])

        expect(page.locator("#below")).to_contain_text("new below")
        expect(chosen(page)).to_contain_text("TimeoutError")
        assert page.evaluate("document.querySelector('.chosen').getBoundingClientRect().top") == top
        page.locator("#below").click()
        expect(page.locator("[data-turn='7']")).to_be_visible()
        expect(page.locator("#head")).to_contain_text("2 calls failed, 2 recovered")
        expect(page.get_by_role("treegrid")).to_have_attribute("aria-rowcount", "17")


def test_a_call_that_goes_on_is_running_until_its_process_is_gone(home: Path, browser: Browser) -> None:
    """Then nothing is invented for it: no end was seen."""
    agent = Agent("open-call", "Where is my parcel?")
    asked = agent.turn("", ("track", {"order": 1}))
    agent.open_tool("track", {"order": 1}, by=asked)
    store = stored(home, agent, gone=False)
    with served(home) as url, tab(browser, url) as opened:
        page = ready(opened.open("/t/open-call"))

        expect(page.locator(".card.tool .state")).to_have_text("running")
        store.process_ended(agent.process.token)
        expect(page.locator(".card.tool .state")).to_have_text("no end seen")


def test_an_open_call_grows_and_nothing_has_ended(home: Path, browser: Browser) -> None:
    """Its bar and its time go on until now, and what was said last is what there is so far."""
    agent = Agent("open-call", "Where is my parcel?")
    asked = agent.turn("I look.", ("track", {"order": 1}))
    agent.open_tool("track", {"order": 1}, by=asked)
    began = datetime.fromisoformat(agent.events[0]["timestamp"])
    stored(home, agent, gone=False)
    with served(home) as url, tab(browser, url) as opened:
        # It runs until it is paused, which is possible ahead of it only.
        opened.page.clock.install(time=began)
        opened.page.clock.pause_at(began + timedelta(seconds=61, milliseconds=1))
        page = ready(opened.open("/t/open-call?view=timeline"))
        row = page.locator("[role=row]", has_text="track")

        expect(page.locator(".ends")).to_contain_text("so far")
        expect(page.locator(".ends")).not_to_contain_text("ended")
        expect(row.locator(".took")).to_have_text("1 m 00 s")
        page.clock.run_for(5_500)
        expect(row.locator(".took")).to_have_text("1 m 05 s")
        _painted(page, "#map canvas", 0.9)
        _painted(page, "#timeline canvas", 0.93)


@pytest.mark.parametrize("gone", [True, False], ids=["killed", "short"])
def test_the_map_of_the_smallest_trace_is_not_empty(gone: bool, home: Path, browser: Browser) -> None:
    """A call that never ended takes all of the time there is, and so does one of a millisecond."""
    agent = Agent("small", "Look.")
    agent.clock = -1
    request = agent.open_tool("look", {})
    if not gone:
        agent.clock = -0.6
        agent.answer(request, "look", took=0.4)
    stored(home, agent)
    with served(home) as url, tab(browser, url) as opened:
        page = ready(opened.open("/t/small?view=timeline"))

        _painted(page, "#map canvas", 0.5)
        _painted(page, "#timeline canvas", 0.53)


def _painted(page: Page, canvas: str, share: float) -> None:
    """Wait until a call is drawn at a place of a canvas: side by side, as lines of a scale are not."""
    page.wait_for_function(_PAINTED, arg=[canvas, share])


_PAINTED = """([selector, share]) => {
  const canvas = document.querySelector(selector);
  const { width, height } = canvas;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (width) context.drawImage(canvas, 0, 0);
  const top = selector.includes("timeline") ? 24 : 2;
  return width > 0 && [0, 4, 8].every((beside) => {
    const { data } = context.getImageData(width * share + beside, top, 1, height - top - 2);
    return data.some((value, i) => i % 4 === 3 && value > 0);
  });
}"""


def test_what_lies_deep_in_a_huge_trace_comes_when_it_is_unfolded_or_looked_for(
    url: str, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its failures are there from the start, and a link to any step opens at it."""
    monkeypatch.setattr(trace_page, "shape", functools.partial(trace_page.shape, limit=10))
    monkeypatch.setattr(skeleton, "LEVELS", 1)
    with tab(browser, url) as opened:
        page = ready(opened.open(LONG))
        grid = page.get_by_role("treegrid")

        rows = int(grid.get_attribute("aria-rowcount") or 0)
        assert 120 < rows < 1_452
        row = page.locator("[role=row]", has_text="batch 1").first
        expect(row).to_have_attribute("aria-expanded", "false")
        row.locator(".twist").click()
        expect(grid).to_have_attribute("aria-rowcount", str(rows + 11))
        ready(opened.open(f"{LONG}?e=700"))
        expect(page.locator("[role=row][aria-selected=true]")).to_have_attribute(
            "title", re.compile("step 700$")
        )
        expect(chosen(page)).to_be_in_viewport()


def test_a_trace_that_is_not_there_is_named(shown: Tab) -> None:
    """With a way back to the list."""
    page = shown.open("/t/none%2Fhere")

    expect(page.get_by_role("heading")).to_have_text("There is no such trace")
    expect(page.locator("main")).to_contain_text("none/here")
    expect(page.get_by_role("link", name="All traces")).to_be_visible()
    shown.problems.clear()


def test_a_store_that_cannot_be_read_is_named(home: Path, browser: Browser) -> None:
    """The page says which file, and what is wrong with it."""
    home.mkdir()
    with contextlib.closing(sqlite3.connect(home / "traces.db")) as connection:
        connection.execute("CREATE TABLE notes (text)")
    with served(home) as url, tab(browser, url) as opened:
        page = opened.open("/t/any")

        expect(page.get_by_role("alert")).to_contain_text("traces.db")
        opened.problems.clear()


def test_an_answer_that_has_not_changed_is_not_sent_again(url: str) -> None:
    """The tag of an answer names the state of the trace."""
    first = httpx.get(f"{url}{RUN}/skeleton")
    again = httpx.get(f"{url}{RUN}/skeleton", headers={"if-none-match": first.headers["etag"]})

    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


@pytest.mark.parametrize(
    "query", ["", "from=3&to=1", "from=-1&to=x", "from=0&to=99999999999999999999", "from=9999&to=10000"]
)
def test_sections_that_are_not_there_are_nothing(query: str, url: str) -> None:
    """Whatever is asked for."""
    answer = httpx.get(f"{url}{RUN}/sections?{query}")

    assert (answer.status_code, "Turn" in answer.text) == (200, False)


def test_text_is_shown_as_text_whatever_it_is(home: Path, browser: Browser) -> None:
    """Markup, scripts, controls and marks of direction in every field of every record are seen, and do nothing."""
    stored(home, attacked())
    with served(home) as url, tab(browser, url) as opened:
        page = ready(opened.open("/t/attacked"))
        page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")

        expect(page.locator("#transcript")).to_contain_text(ATTACK)
        expect(page.locator("#transcript")).to_contain_text(r"\u202e")
        expect(page.locator("#transcript")).to_contain_text(r"\x1b[31m")
        expect(page.locator("#transcript")).to_contain_text(r"\x00")
        for step in range(1, 9):
            page.goto(f"{url}/t/attacked?e={step}&detail=1")
            expect(page.locator("#drawer")).to_contain_text("record")
        assert page.evaluate("window.harmed") is None
        assert (
            page.locator("#transcript img, #transcript script, #drawer img, #transcript b[style]").count()
            == 0
        )


def test_the_detail_takes_the_focus_and_gives_it_back(shown: Tab) -> None:
    """Its links are next for whoever uses keys; Escape leads back to where one was."""
    page = ready(shown.open(RUN))

    page.keyboard.press("n")
    expect(chosen(page)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#drawer")).to_be_focused()
    expect(page.locator("#drawer .json").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(chosen(page)).to_be_focused()


def test_a_replay_and_its_source_link_to_each_other(home: Path, browser: Browser) -> None:
    """Whatever is in their ids; the page of the source names its latest replays, and where all of them are."""
    source = "shop/run 1"
    agents = [Agent(name, "Refund order 8841?") for name in (source, *(f"whatif-{n}" for n in range(6)))]
    for place, agent in enumerate(agents):
        agent.clock = place * 60_000
        agent.turn("It is refunded.")
        if place:
            agent.events[0]["metadata"]["trace"] = {"metadata": {"replayOf": source}}
        agent.end()
    stored(home, *agents).close()
    with served(home) as address, tab(browser, address) as opened:
        page = ready(opened.open("/t/shop%2Frun%201"))
        replays = page.locator(".about div", has_text="replays").get_by_role("link")
        expect(replays).to_have_text(["whatif-5", "whatif-4", "whatif-3", "whatif-2", "whatif-1", "all"])
        replays.first.click()
        expect(page.locator("h1")).to_have_text("whatif-5")
        page.locator(".about").get_by_role("link", name=source).click()
        expect(page.locator("h1")).to_have_text(source)
