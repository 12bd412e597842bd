"""The page of one trace where room is scarce or many things happen at once: phones, deep steps, parallel branches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_runs import Agent, shop, stored
from browser import Tab, browser, ready, record, served, tab
from playwright.sync_api import Browser, Locator, Page, expect
from tales import Agent as Teller

__all__ = ["browser"]

PHONE = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}


@pytest.fixture
def phone(tmp_path: Path, browser: Browser) -> Iterator[Page]:
    """The page of a run on a phone."""
    stored(tmp_path, shop()).close()
    with served(tmp_path) as url, tab(browser, url, **PHONE) as opened:
        yield ready(opened.open("/t/shop-run-a"))


@pytest.fixture
def shown(tmp_path: Path, browser: Browser) -> Iterator[Tab]:
    """A tab of a server with a run in its home."""
    stored(tmp_path, shop()).close()
    with served(tmp_path) as url, tab(browser, url) as opened:
        yield opened


def test_on_a_phone_all_that_is_pressed_is_large_and_at_the_bottom(phone: Page) -> None:
    """A thumb reaches the outline, the views, the next failure and the next turn."""
    buttons = phone.locator("#views button")

    expect(buttons).to_have_count(6)
    for button in buttons.all():
        box = button.bounding_box()
        assert box and box["height"] >= 44 and box["width"] >= 44 and box["y"] > 780
    phone.get_by_role("button", name="failure").tap()
    expect(phone.locator(".chosen")).to_contain_text("TimeoutError")
    phone.locator("[data-go=turn]").tap()
    expect(phone.locator(".chosen")).to_have_attribute("data-turn", "3")


def test_on_a_phone_the_outline_covers_no_button_and_closes_beside_it(phone: Page) -> None:
    """The search and the button that opened it stay free, and a choice closes it as well."""
    button = phone.get_by_role("button", name="outline")
    outline = phone.get_by_role("treegrid")

    button.tap()
    expect(outline).to_be_visible()
    for free in (button, phone.get_by_role("searchbox")):
        assert _is_free(free)
    phone.touchscreen.tap(195, 100)
    expect(outline).to_be_hidden()
    expect(button).to_have_attribute("aria-pressed", "false")
    button.tap()
    row = phone.locator("[role=row]", has_text="track").first
    box = row.bounding_box()
    assert box and box["height"] >= 44
    row.tap()
    expect(outline).to_be_hidden()
    expect(phone.locator(".chosen")).to_contain_text("track")


def test_on_a_phone_the_detail_is_closed_at_the_bottom(phone: Page) -> None:
    """Its button is where the thumb is, however long the detail."""
    phone.locator(".card.tool .raw").first.tap()
    close = phone.get_by_role("button", name="Close the detail")
    expect(phone.locator("#drawer .json").first).to_be_visible()
    box = close.bounding_box()

    assert box and box["height"] >= 44 and box["y"] > 720
    close.tap()
    expect(phone.locator("#drawer")).to_be_hidden()


def _is_free(element: Locator) -> bool:
    """Tell whether nothing lies over an element."""
    free: bool = element.evaluate(
        """(one) => {
          const { left, right, top, bottom } = one.getBoundingClientRect();
          return [[left + 3, top + 3], [right - 3, bottom - 3], [left + 3, bottom - 3]].every(([x, y]) => {
            const found = document.elementFromPoint(x, y);
            return found === one || one.contains(found);
          });
        }"""
    )
    return free


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_the_heading_of_a_deep_step_shows_its_own_name(
    options: dict[str, Any], tmp_path: Path, browser: Browser
) -> None:
    """The names of the steps around it give way."""
    agent = Agent("deep", "How deep?")
    for level in range(30):
        agent.step(f"level {level} of some thirty")
    agent.turn("Very.")
    stored(tmp_path, agent).close()
    with served(tmp_path) as url, tab(browser, url, **options) as opened:
        page = ready(opened.open("/t/deep"))
        headings = page.locator(".step h2")

        expect(headings).to_have_count(30)
        for heading in headings.all():
            own, whole = heading.locator(".own").bounding_box(), heading.bounding_box()
            assert own and whole and own["x"] + own["width"] <= whole["x"] + whole["width"] + 1
        expect(headings.last).to_contain_text("level 28 of some thirty")
        expect(headings.last).not_to_contain_text("level 25")


def test_calls_are_drawn_in_the_lanes_of_their_branch(shown: Tab) -> None:
    """Branches that overlap in time share no lane; those one after the other do."""
    page = ready(shown.open("/t/shop-run-a"))
    branches = [(0, 50), (0, 90), (10, 30), (60, 95)]
    lanes = page.evaluate(
        """async (branches) => {
          const { arrange } = await import("whyops/trace-map");
          const rows = branches.flatMap(([start, stop]) => {
            const branch = { start, stop, parent: null };
            return [branch, ...[0, 1, 0].map((late) => ({ start: start + late, stop, parent: branch }))];
          });
          return [arrange({ rows, end: ({ stop }) => stop }), rows.map(({ lane }) => lane)];
        }""",
        branches,
    )

    assert lanes == [12, [0, 1, 3, 2, 4, 5, 7, 6, 8, 9, 11, 10, 0, 1, 3, 2]]


def test_turns_by_hand_in_steps_are_compared_with_their_prompts(tmp_path: Path, browser: Browser) -> None:
    """What a model was asked, told beforehand, offered and what it answered belongs to its turn."""
    agent = Teller()
    for number in (1, 2):
        step = agent.event("llm_thinking", metadata={"step": "planner"}, content={"thinking": "planner"})
        tools = [{"type": "function", "function": {"name": f"tool{number}"}}]
        message = {"role": "user", "content": f"question {number}"}
        about = {"systemPrompt": f"prompt {number}", "tools": tools}
        agent.request(message, within=step, function="", **about)
        agent.event(
            "llm_response",
            step,
            within=step,
            metadata={"model": "gpt-4o", "provider": "openai"},
            content={"content": f"answer {number}"},
        )
    trace = agent.events[0]["traceId"]
    record(tmp_path, agent.events)
    with served(tmp_path) as url, tab(browser, url) as opened:
        page = ready(opened.open(f"/t/{trace}?e=5&diff=1"))
        lines = page.locator("dialog.compare .diff")

        for what in ("prompt", "tool", "question ", "answer"):
            expect(lines.locator(".removed", has_text=what)).to_have_count(1)
            expect(lines.locator(".added", has_text=what)).to_have_count(1)
