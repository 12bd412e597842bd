"""A trace as one file, opened in a real browser without any server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_runs import Agent, long, shop, stored
from axe_playwright_python.sync_playwright import Axe
from browser import Tab, browser, tab
from hostile import ATTACK, attacked
from playwright.sync_api import Browser, Page, expect

from whyops_trace.exceptions import TraceNotFoundError
from whyops_trace.server.offline import offline_page

__all__ = ["browser"]

Write = Callable[[Agent], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the file of a run; returns its address."""

    def written(agent: Agent) -> str:
        file = tmp_path / "trace.html"
        file.write_text(offline_page(stored(tmp_path / "home", agent), agent.process.trace), "utf-8")
        return file.as_uri()

    return written


@pytest.fixture
def opened(browser: Browser) -> Iterator[Tab]:
    """A tab in which nothing may be asked of anybody, not even of this machine."""
    with tab(browser, "file://") as one:
        yield one


def ready(page: Page, address: str) -> Page:
    """Open a file, and wait until the page has put itself together."""
    page.goto(address)
    page.wait_for_selector("#trace[data-ready]", state="attached")
    return page


def test_the_file_is_the_page_with_its_detail_and_its_search(write: Write, opened: Tab) -> None:
    """Everything works that asks a server elsewhere, and the address keeps what is shown."""
    page = ready(opened.page, write(shop()))

    expect(page.locator("#head")).to_contain_text("2 calls failed, 2 recovered")
    expect(page.locator(".turn")).to_have_count(7)
    page.keyboard.press("n")
    page.keyboard.press("Enter")
    expect(page.locator("#drawer")).to_contain_text("3 records")
    expect(page.locator("#drawer")).to_contain_text("the carrier did not answer")
    page.keyboard.press("/")
    page.keyboard.type("PolicyError")
    expect(page.locator("#found")).to_contain_text(re.compile(r"^\d+ found"))
    page.keyboard.press("Enter")
    expect(page.locator("#found")).to_contain_text("step 1 of")
    address = page.url
    ready(page, address)
    expect(page.locator("#drawer")).to_be_visible()


def test_a_file_of_a_long_run_unfolds_as_it_is_read(write: Write, opened: Tab) -> None:
    """Its transcript is in the file, packed, and comes where it is looked at."""
    page = ready(opened.page, write(long(turns=120)))

    assert page.evaluate("document.querySelectorAll('*').length") < 3_000
    page.get_by_role("treegrid").focus()
    page.keyboard.press("End")
    expect(page.locator(".chosen")).to_contain_text("All open orders are settled.")
    expect(page.locator(".chosen")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#drawer")).to_contain_text("records")


def test_the_outline_of_a_long_file_says_what_calls_were_given(write: Write, opened: Tab) -> None:
    """A file need not be small, and has nobody to ask."""
    page = ready(opened.page, write(long(turns=140)))

    expect(page.locator("[role=row]", has_text="look_up").first).to_contain_text("order=8001")


def test_two_turns_in_a_file_are_compared(write: Write, opened: Tab) -> None:
    """The texts come from the file."""
    page = ready(opened.page, write(shop()))
    for key in "jjd":
        page.keyboard.press(key)

    expect(page.locator("dialog.compare .added").first).to_be_visible()


def test_a_hostile_trace_is_text_in_a_file_too(write: Write, opened: Tab) -> None:
    """A file has no server that sends a policy; it carries its own, and escapes all the same."""
    page = ready(opened.page, write(attacked()))

    expect(page.locator("#transcript")).to_contain_text(ATTACK)
    page.keyboard.press("n")
    page.keyboard.press("Enter")
    expect(page.locator("#drawer")).to_contain_text(ATTACK)
    assert page.evaluate("window.harmed") is None


def test_the_policy_of_a_file_lets_no_other_script_run(write: Write, browser: Browser) -> None:
    """One that got into the markup does nothing, from a data address neither; nothing can be fetched."""
    address = write(shop())
    with tab(browser, "file://") as one:
        page = ready(one.page, address)
        page.evaluate(
            """() => {
              const root = document.createElement("div");
              document.body.append(root);
              root.innerHTML = "<img src='data:,' onerror='window.harmed = 1'>";
              document.write;
            }"""
        )
        refused = page.evaluate(
            "fetch('http://127.0.0.1:9/').then(() => 'fetched', (problem) => problem.name)"
        )

        assert refused == "TypeError"
        assert page.evaluate("window.harmed") is None
        assert one.problems
        one.problems.clear()


def test_a_script_in_the_markup_of_a_file_does_not_run(
    write: Write, tmp_path: Path, browser: Browser
) -> None:
    """Not one with its text in it, and not one at a data address."""
    write(shop())
    file = tmp_path / "trace.html"
    scripts = "<script>window.harmed=1</script><script src='data:text/javascript,window.harmed=1'></script>"
    file.write_text(file.read_text("utf-8").replace("</main>", f"{scripts}</main>"), "utf-8")
    with tab(browser, "file://") as one:
        page = ready(one.page, file.as_uri())

        assert page.evaluate("window.harmed") is None
        assert len(one.problems) == 2
        one.problems.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_of_in_a_file(scheme: str, write: Write, browser: Browser) -> None:
    """The file is as usable as the page."""
    with tab(browser, "file://", color_scheme=scheme) as one:
        page = ready(one.page, write(shop()))

        # The tool is put into the page, which the policy of the page would not let in.
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_the_same_trace_makes_the_same_file(tmp_path: Path) -> None:
    """So that a file in version control changes only with the trace."""
    store = stored(tmp_path / "home", shop())

    assert offline_page(store, "shop-run-a") == offline_page(store, "shop-run-a")


def test_a_trace_that_is_not_there_makes_no_file(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(TraceNotFoundError, match="none"):
        offline_page(stored(tmp_path / "home"), "none")
