"""Two traces side by side, and what the failures of many have in common, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from agent_runs import Agent, stored
from axe_playwright_python.sync_playwright import Axe
from browser import Tab, browser, ready, served, tab
from hostile import ATTACK
from playwright.sync_api import Browser, expect

from whyops_trace._clock import wire_time
from whyops_trace.server import comparing

__all__ = ["browser"]


def late(trace: str, amount: float, question: str = "My parcel came late.") -> Agent:
    """A run that pays a fee back, which fails above 12.9."""
    agent = Agent(trace, question)
    asked = agent.turn("Let me see.", ("refund", {"order": 8841, "amount": amount}))
    error = f"ValueError: order 8841: {amount} exceeds the fee" if amount > 12.9 else ""
    agent.tool("refund", {"order": 8841, "amount": amount}, {"refunded": amount}, by=asked, error=error)
    agent.turn("I could not refund it." if error else "It is refunded.")
    agent.end()
    for event in agent.events:  # the page of failures shows those of the last days
        event["timestamp"] = wire_time(datetime.now(UTC))
    return agent


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with two runs that failed, one that did not, and a hostile one."""
    runs = late("late-1", 129.0), late("late-2", 12.9), late("late-3", 49.5), late(ATTACK, 130.0, ATTACK)
    stored(tmp_path, *runs).close()
    return tmp_path


@pytest.fixture
def shown(home: Path, browser: Browser) -> Iterator[Tab]:
    """A tab of a server of that home."""
    with served(home) as url, tab(browser, url) as opened:
        yield opened


def test_a_trace_is_compared_with_another_one_of_its_agent(shown: Tab) -> None:
    """From its page to the first difference, with both sides, and on to where it is."""
    page = ready(shown.open("/t/late-2"))

    page.get_by_role("link", name="compare", exact=True).click()
    page.get_by_role("link", name="late-1").click()
    difference = page.get_by_role("region", name="The first difference")

    expect(difference).to_contain_text("In turn 1, given the same, the model decides otherwise:")
    expect(difference.locator(".sides dd")).to_have_text(
        ["refund(order=8841, amount=129.0)", "refund(order=8841, amount=12.9)"]
    )
    expect(difference.locator(".members tbody tr")).to_have_text(["amount129.012.9"])
    difference.get_by_role("link").last.click()
    expect(ready(page).locator("#head")).to_contain_text("It is refunded.")


def test_the_same_trace_twice_is_the_same(shown: Tab) -> None:
    """And says so."""
    page = shown.open("/diff?a=late-2&b=late-2")

    expect(page.locator("main")).to_contain_text("They are the same: 2 turns and 1 tool call.")


def test_long_calls_are_whole_on_a_phone(tmp_path: Path, browser: Browser) -> None:
    """They are broken where the window ends, as nobody scrolls a paragraph to the side."""
    runs = [late(f"late-{number}", 12.9) for number in (1, 2)]
    asked = runs[1].turn("And the file.", ("write", {"path": "/srv/" + 20 * "reports"}))
    runs[1].tool("write", {"path": "/srv/" + 20 * "reports"}, "ok", by=asked)
    stored(tmp_path, *runs).close()
    with served(tmp_path) as url, tab(browser, url, viewport={"width": 390, "height": 800}) as opened:
        page = opened.open("/diff?a=late-1&b=late-2")
        code = page.locator("main p code").last

        expect(code).to_contain_text("write(path=")
        assert (
            code.evaluate("(code) => Math.max(...[...code.getClientRects()].map((box) => box.right))") <= 390
        )


def test_failures_that_are_alike_are_one_pattern(shown: Tab) -> None:
    """With how many traces have it, and a link to the latest one."""
    page = shown.open("/")

    page.get_by_role("link", name="what fails").click()
    pattern = page.locator(".episode")

    expect(pattern).to_have_count(1)
    expect(pattern).to_contain_text("refund")
    expect(pattern).to_contain_text("3 traces")
    expect(pattern).to_contain_text("exceeds the fee")
    pattern.get_by_role("link").click()
    expect(ready(page).locator("#head")).to_contain_text("1 call failed")


def test_hostile_traces_are_text(shown: Tab) -> None:
    """In comparisons as everywhere."""
    page = shown.open("/diff?b=late-1")

    expect(page.locator("main")).to_contain_text(ATTACK)
    page.get_by_role("link", name=ATTACK[:20]).first.click()
    expect(page.get_by_role("region", name="The first difference")).to_contain_text(ATTACK[:20])
    assert page.evaluate("window.harmed") is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/diff", 200),
        ("/diff?a=late-1", 200),
        ("/diff?a=late-1&b=late-3", 200),
        ("/diff?a=no&b=late-1", 404),
        ("/diff?a=no", 404),
        ("/failures", 200),
    ],
)
def test_any_address_is_answered(path: str, status: int, home: Path) -> None:
    """Also of what is not there."""
    with served(home) as url:
        assert httpx.get(f"{url}{path}").status_code == status


def test_an_empty_home_has_nothing_to_compare(tmp_path: Path) -> None:
    """And nothing that failed."""
    with served(tmp_path) as url:
        assert "There is no other trace" in httpx.get(f"{url}/diff").text
        assert "Nothing failed" in httpx.get(f"{url}/failures").text


def test_traces_that_are_too_long_for_a_page_say_where_to_go(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal compares them."""
    monkeypatch.setattr(comparing, "_COMPARED", 3)
    with served(home) as url:
        assert "whyops-trace diff" in httpx.get(f"{url}/diff?a=late-1&b=late-3").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/diff?a=late-1&b=late-2", "/diff?b=late-1", "/failures"])
def test_axe_finds_nothing_to_complain_of(scheme: str, path: str, home: Path, browser: Browser) -> None:
    """In both themes."""
    with served(home) as url, tab(browser, url, color_scheme=scheme) as opened:
        found = Axe().run(opened.open(path))

        assert found.violations_count == 0, found.generate_report()
