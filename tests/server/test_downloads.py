"""What is taken from the page of a trace: files, and texts by the clipboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from agent_runs import shop, stored
from browser import browser, ready, served, tab
from playwright.sync_api import Browser, Page, expect

from whyops_trace.export import export_json, export_markdown

__all__ = ["browser"]

CLIPBOARD = ["clipboard-read", "clipboard-write"]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The address of a server with one run."""
    stored(tmp_path, shop("run/1 of ä")).close()
    with served(tmp_path) as address:
        yield address


@pytest.fixture
def page(url: str, browser: Browser) -> Iterator[Page]:
    """The page of the run, which may use the clipboard."""
    with tab(browser, url, permissions=CLIPBOARD) as opened:
        yield ready(opened.open("/t/run%2F1%20of%20%C3%A4"))


@pytest.mark.parametrize(
    ("name", "ending"), [("offline", "html"), ("Markdown", "md"), ("JSON", "json")], ids=str
)
def test_a_trace_is_downloaded_from_its_page(name: str, ending: str, page: Page, tmp_path: Path) -> None:
    """Whole, under its name, in the form that is chosen."""
    page.get_by_text("download", exact=True).click()
    with page.expect_download() as coming:
        page.get_by_role("link", name=name).click()

    text = coming.value.path().read_text("utf-8")
    assert coming.value.suggested_filename == f"run_1_of_ä.{ending}"
    with_store = stored(tmp_path)
    if ending == "json":
        assert json.loads(text) == json.loads(export_json(with_store, "run/1 of ä"))
    elif ending == "md":
        assert text == export_markdown(with_store, "run/1 of ä")
    else:
        assert "I refunded the express fee" in text


@pytest.mark.parametrize("ending", ["json", "md", "html"])
def test_there_is_no_file_of_a_trace_that_is_not_there(url: str, ending: str) -> None:
    """The answer says so."""
    answer = httpx.get(f"{url}/t/none/download.{ending}")

    assert (answer.status_code, "There is no such trace" in answer.text) == (404, True)


def test_what_a_card_is_about_is_copied_whole(page: Page) -> None:
    """By the button at the card under the pointer, or by a key for the chosen one."""
    page.locator("[data-turn='7']").hover()
    page.locator("[data-turn='7'] .copy").click()
    expect(page.locator("#said")).to_have_text("Answer copied")
    assert _clipboard(page).startswith("I refunded the express fee of 12.90 EUR")
    page.keyboard.press("n")
    page.keyboard.press("y")
    expect(page.locator("#said")).to_have_text("Result copied")
    assert json.loads(_clipboard(page))["error"]["type"] == "TimeoutError"
    assert page.locator(".copy").count() == 1


def _clipboard(page: Page) -> str:
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def test_the_head_says_for_whom_a_trace_is_and_what_its_program_said_of_it(
    tmp_path: Path, browser: Browser
) -> None:
    """The user, and each member of the metadata."""
    agent = shop()
    agent.events[0]["externalUserId"] = "user-42"
    agent.events[0]["metadata"]["trace"] = {"metadata": {"tenant": "north", "shard": {"id": 7}}}
    home = tmp_path / "about"
    stored(home, agent).close()
    with served(home) as url, tab(browser, url) as opened:
        about = ready(opened.open("/t/shop-run-a")).locator(".about")

        for text in ("user", "user-42", "tenant", "north", "shard", '{"id": 7}'):
            expect(about).to_contain_text(text)


def test_changes_have_a_sign_and_not_a_colour_alone(page: Page) -> None:
    """A plus and a minus stand before what was added and removed."""
    again = page.locator(".card.tool", has_text="changed since")

    for element, sign in (("del", "\u2212"), ("ins", "+")):
        content = again.locator(element).evaluate("(one) => getComputedStyle(one, '::before').content")
        assert sign in content
