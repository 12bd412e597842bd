"""The traces of one user, thread or value as one conversation, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from agent_runs import Agent, stored
from axe_playwright_python.sync_playwright import Axe
from browser import Tab, browser, ready, served, tab
from hostile import ATTACK
from playwright.sync_api import Browser, expect

from whyops_trace.server import sessions
from whyops_trace.server.sessions import Change, Setup, changes
from whyops_trace.store import Filter, Session

__all__ = ["browser"]


def visit(
    number: int,
    *,
    user: str = "user 42",
    thread: str = "c/7",
    system: str = "",
    model: str = "",
    error: str = "",
) -> Agent:
    """One of the traces of a user."""
    agent = Agent(f"visit-{number}", f"Question {number}?")
    agent.clock = number * 60_000
    agent.messages[0]["content"] = system or "You are helpful."
    if error:
        agent.breaks(error)
    else:
        agent.turn(f"Answer {number}.")
    about: dict[str, Any] = agent.events[0]["metadata"]
    about["trace"] = {"metadata": {"thread_id": thread, "tenant": 7, "flags": ["a"]}}
    about["tools"] = [{"type": "function", "function": {"name": "search" if number < 3 else "browse"}}]
    agent.events[0]["externalUserId"] = user
    if model:
        agent.events[-1]["metadata"]["model"] = model
    agent.end()
    return agent


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with four traces of one user and one of another."""
    stored(
        tmp_path,
        visit(1),
        visit(2),
        visit(3, system="You are terse.\nNever guess.", model="gpt-5"),
        visit(4, system="You are terse.\nNever guess.", model="gpt-5", error="RateLimitError: slow down"),
        visit(5, user=ATTACK, thread=ATTACK),
    ).close()
    return tmp_path


@pytest.fixture
def shown(home: Path, browser: Browser) -> Iterator[Tab]:
    """A tab of a server of that home."""
    with served(home) as url, tab(browser, url) as opened:
        yield opened


def test_traces_are_grouped_by_user_thread_or_any_value(home: Path) -> None:
    """The latest first, each with the number of its traces and of those that failed."""
    store = stored(home)

    by_user = [(one.value, one.traces, one.failed) for one in store.sessions("user")]
    assert by_user == [(ATTACK, 1, 0), ("user 42", 4, 1)]
    assert [(one.value, one.traces) for one in store.sessions("thread")] == [(ATTACK, 1), ("c/7", 4)]
    assert [type(one) for one in store.sessions("tenant")] == [Session]
    assert store.sessions("tenant")[0][:2] == ("7", 5)
    assert store.sessions("flags") == store.sessions("nothing") == []
    assert store.metadata_keys() == ["tenant", "thread_id"]
    of_thread = store.traces(where=Filter(session=("thread", "c/7"), failed=True))
    assert [trace.trace_id for trace in of_thread] == ["visit-4"]
    assert [trace.trace_id for trace in store.traces(where=Filter(session=("user", "user 42")))] == [
        f"visit-{number}" for number in (4, 3, 2, 1)
    ]


def test_a_conversation_tells_what_was_asked_and_what_changed(shown: Tab) -> None:
    """Its traces follow each other in time, and what differs stands between two of them."""
    page = shown.open("/sessions?by=user")
    page.get_by_role("link", name="user 42").click()
    episodes = page.locator(".episode")

    expect(episodes).to_have_count(4)
    expect(episodes.first).to_contain_text("Question 1?")
    expect(episodes.first).to_contain_text("Answer 1.")
    expect(episodes.last).to_contain_text("RateLimitError: slow down")
    changed = page.locator(".changes")
    expect(changed).to_have_count(1)
    expect(changed).to_contain_text("System prompt: edited")
    expect(changed).to_contain_text("Tools: 1 added, 1 removed")
    expect(changed).to_contain_text("gpt-4o-2024-08-06 → gpt-5")
    changed.locator("summary").first.click()
    expect(changed.locator(".removed").first).to_have_text("-You are helpful.")
    expect(page.locator(".episode:has-text('visit-3')")).to_be_visible()


def test_the_page_of_a_trace_leads_to_its_conversation(shown: Tab) -> None:
    """By its user and by each value of its metadata, and back."""
    page = ready(shown.open("/t/visit-2"))

    page.locator(".about").get_by_role("link", name="c/7").click()
    expect(page).to_have_url(f"{shown.url}/sessions?by=thread_id&of=c/7#t-visit-2")
    expect(page.locator(".episode:target")).to_contain_text("Question 2?")
    page.get_by_role("link", name="visit-3").click()
    expect(ready(page).locator("#head")).to_contain_text("Question 3?")


def test_hostile_users_are_text(shown: Tab) -> None:
    """In lists, headings and links."""
    page = shown.open("/sessions?by=thread")

    expect(page.locator(".traces")).to_contain_text(ATTACK)
    page.locator("a.row").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(ATTACK)
    expect(page.locator(".episode")).to_have_count(1)
    assert page.evaluate("window.harmed") is None


@pytest.mark.parametrize(
    "path", ["", "?by=user", "?by=user&of=user+42", "?by=no&of=no", "?by=x'&of=\"&after=y"]
)
def test_any_address_is_answered(path: str, home: Path) -> None:
    """Also of what is not there."""
    with served(home) as url:
        assert httpx.get(f"{url}/sessions{path}").status_code == 200


def test_a_long_conversation_is_read_in_parts(
    home: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest traces come first, and earlier ones by a link; what changed between the parts is told."""
    monkeypatch.setattr(sessions, "PAGE", 2)
    with served(home) as url, tab(browser, url) as opened:
        page = opened.open("/sessions?by=user&of=user+42")

        expect(page.locator(".episode h2")).to_have_text(["visit-3", "visit-4"])
        expect(page.locator(".changes")).to_contain_text("edited")
        page.get_by_role("link", name="earlier").click()
        expect(page.locator(".episode h2")).to_have_text(["visit-1", "visit-2"])
        page.get_by_role("link", name="latest").click()
        expect(page.locator(".episode h2")).to_have_text(["visit-3", "visit-4"])


def test_setups_are_compared_whole() -> None:
    """What was not there before is added; what is only in another order is the same."""
    before = Setup("", ["a", "b"], ["m"])

    assert changes(before, Setup("", ["b", "a"], ["m"])) == []
    assert changes(before, Setup("Hi", ["b", "c"], ["n"])) == [
        Change("System prompt", "added", ["@@ -0,0 +1 @@", "+Hi"]),
        Change("Tools", "1 added, 1 removed", ["+ c", "- a"]),
        Change("Model", "m → n"),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/sessions?by=user", "/sessions?by=user&of=user+42"])
def test_axe_finds_nothing_to_complain_of_in_conversations(
    scheme: str, path: str, home: Path, browser: Browser
) -> None:
    """In both themes."""
    with served(home) as url, tab(browser, url, color_scheme=scheme) as opened:
        found = Axe().run(opened.open(path))

        assert found.violations_count == 0, found.generate_report()
