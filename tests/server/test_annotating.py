"""Scores on the pages: shown to everybody, and given by whoever the server lets write."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from agent_runs import shop, stored, team
from axe_playwright_python.sync_playwright import Axe
from browser import browser, ready, served, tab
from hostile import ATTACK, SAID
from playwright.sync_api import Browser, Page, expect

from whyops_trace.server.offline import offline_page
from whyops_trace.store import Store

__all__ = ["browser"]
KEY = "whyops_abcdefgh12345678"
PATH = "/t/team/scores"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with two runs."""
    with contextlib.closing(stored(tmp_path, team(), shop())) as store:
        yield store


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    """The address of a server on whose pages scores may be given."""
    with served(store.path.parent, annotates=True) as url:
        yield url


def lines(store: Store) -> list[tuple[int, str]]:
    return [(score.step, score.line) for score in store.scores("team")]


def token_of(page: str) -> str:
    found = re.search(r'name="token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def send(url: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    """Send the form of the page, with other fields than it has where some are given."""
    form = {"token": token_of(httpx.get(f"{url}/t/team").text), "step": "0", "name": "n", "value": "1"}
    return httpx.post(url + PATH, data={**form, "do": "save", **fields}, headers=headers)


def test_a_viewer_that_only_reads_has_no_forms_and_takes_none(store: Store) -> None:
    """It shows the scores that there are."""
    store.score("team", "helpful", False, comment="Too late.")
    store.score("team", "correct", 0.5, step=2)
    with served(store.path.parent) as url:
        page, answer = httpx.get(f"{url}/t/team").text, httpx.post(url + PATH, data={"name": "n"})

    assert 'method="post"' not in page
    assert "Too late." in page
    assert answer.status_code in (404, 405)
    assert [line for _, line in lines(store)] == ["helpful: down - Too late.", "correct: 0.5"]


def test_scores_are_shown_where_they_belong(store: Store, url: str, browser: Browser) -> None:
    """That of the trace at its top, that of a step on its card, and in the list."""
    store.score("team", "helpful", False, comment="Too late.")
    store.score("team", "tone", "polite", step=2)
    store.score("team", "deep", 0.5, step=3)  # the answer of the turn
    with tab(browser, url) as opened:
        page = ready(opened.open("/t/team"))

        expect(page.locator("#head .judged li")).to_contain_text(["helpful down Too late."])
        expect(page.locator("#head p.judged a")).to_have_text(["tone polite", "deep 0.5"])
        expect(page.locator("#e2 .judged li").first).to_contain_text("tone polite")
        expect(page.locator("#e2 .judged li").nth(1)).to_contain_text("deep 0.5")

        row = opened.open("/?q=score:helpful%3Ddown").locator(".traces tbody tr")
        expect(row).to_have_count(1)
        expect(row.locator(".chip").first).to_have_text("helpful down")
        expect(opened.open("/?q=score:tone%3C1").locator(".empty")).to_contain_text("No trace matches")
        expect(opened.open("/?q=score:tone%3Crude").locator(".note")).to_contain_text("which is no number")


def given(page: Page, place: str, **fields: str) -> Any:
    """Unfold a form and fill it in."""
    page.locator(f"{place} .annotate > summary").first.click()
    form = page.locator(f"{place} .annotate form").first
    for name, text in fields.items():
        form.locator(f"[name={name}]").fill(text)
    return form


@pytest.mark.parametrize("scripts", [True, False])
def test_a_person_gives_and_removes_scores(store: Store, url: str, browser: Browser, scripts: bool) -> None:
    """A thumb, a number and a note, on the trace and on a step; with scripts and without."""
    with tab(browser, url, java_script_enabled=scripts) as opened:
        page = opened.open("/t/team")
        given(page, "#head", comment="Good,\nbut late \U0001f600").locator("[value=up]").click()
        page.wait_for_url("**/t/team#head")
        given(page, "#e2", name="correct", value="0.5").locator("[value=save]").click()
        page.wait_for_url("**/t/team#e2")
        given(page, "#head", name="note", comment="password=hunter2hunter2").locator("[value=save]").click()
        page.wait_for_url("**/t/team#head")
        before = lines(store)
        page.get_by_role("button", name="Remove helpful").click()
        page.wait_for_url("**/t/team#head")

    assert before == [
        (0, "helpful: up - Good, but late \U0001f600"), (0, "note - password=[redacted]"), (2, "correct: 0.5"),
    ]  # fmt: skip
    assert lines(store) == before[1:]
    assert {score.source for score in store.scores("team")} == {"page"}


def test_the_keyboard_is_enough(store: Store, url: str, browser: Browser) -> None:
    """And keys of the page do nothing while somebody types."""
    with tab(browser, url) as opened:
        page = ready(opened.open("/t/team"))
        page.locator("#head .annotate > summary").focus()
        page.keyboard.press("Enter")
        for text in ("nrt", "0.25", "jk ?"):
            page.keyboard.press("Tab")
            page.keyboard.type(text)
        expect(page.locator("#help")).to_be_hidden()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**/t/team#head")

    assert lines(store) == [(0, "nrt: 0.25 - jk ?")]


def test_a_form_that_is_filled_in_stays_while_the_trace_changes(
    store: Store, url: str, browser: Browser
) -> None:
    """The page would put a new summary in its place."""
    with tab(browser, url) as opened:
        page = ready(opened.open("/t/team"))
        form = given(page, "#head", comment="half a thought")
        with page.expect_response("**/head"):
            store.score("team", "other", 1)

        expect(form.locator("[name=comment]")).to_have_value("half a thought")


def test_a_score_shows_at_once_on_pages_that_are_open(store: Store, url: str, browser: Browser) -> None:
    """In the list, at the top of the trace and on the card of its step; and so does that it was removed."""
    with tab(browser, url) as opened, tab(browser, url) as other:
        listed, page = opened.open("/"), ready(other.open("/t/team"))
        store.score("team", "correct", 0.25, step=2)
        store.score("team", "tone", "polite")

        expect(listed.locator("a.row[href='/t/team']").locator("xpath=ancestor::tr")).to_contain_text(
            "polite"
        )
        expect(page.locator("#head div.judged")).to_contain_text("polite")
        expect(page.locator("#e2 div.judged").first).to_contain_text("0.25")
        store.remove_score("team", "correct", 2)

        expect(page.locator("#e2 div.judged").first).not_to_contain_text("0.25")


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"token": ""}, 403, "older than this server"),
        ({"token": "ü"}, 403, "older than this server"),
        ({"step": "77"}, 400, "There is no step 77 in this trace"),
        ({"step": "x"}, 400, "&#39;x&#39; is no step"),
        ({"step": "9" * 30}, 400, "is no step"),
        ({"name": ""}, 400, "name is &#39;&#39;"),
        ({"name": "n" * 256}, 400, "name has 256 characters"),
        ({"value": ""}, 400, "neither a value nor a comment"),
        ({"value": "nan"}, 400, "finite number"),
        ({"comment": "x" * 10_001}, 400, "comment has 10001 characters"),
        ({"comment": "x" * 200_000}, 400, "a form that is too large"),
    ],
)
def test_what_is_no_score_says_so(
    store: Store, url: str, fields: dict[str, str], status: int, words: str
) -> None:
    """And nothing is stored."""
    answer = send(url, None, **fields)

    assert (answer.status_code, words in answer.text) == (status, True)
    assert lines(store) == []


def test_other_bodies_and_traces_are_refused(store: Store, url: str) -> None:
    """JSON that a page could send without being asked, and traces that are not there."""
    form = {"token": token_of(httpx.get(f"{url}/t/team").text), "step": "0", "name": "n", "value": "1"}
    answers = [
        httpx.post(url + PATH, json=form),
        httpx.post(url + PATH, data={**form, **{str(n): "" for n in range(30)}}),
        httpx.post(
            url + PATH, content=b"\xff", headers={"content-type": "application/x-www-form-urlencoded"}
        ),
        httpx.post(f"{url}/t/none/scores", data=form),
        httpx.get(url + PATH),
    ]

    assert [answer.status_code for answer in answers] == [400, 400, 400, 404, 404]
    assert lines(store) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Host": "evil.example"},
    ],
    ids=str,
)
def test_a_page_of_another_server_gives_no_score(store: Store, url: str, headers: dict[str, str]) -> None:
    """Even if it knew the word of the forms."""
    answer = send(url, headers)

    assert answer.status_code in (403, 421)
    assert lines(store) == []


def test_a_form_of_another_server_does_not_know_the_word(store: Store, url: str) -> None:
    """It is another one for each process."""
    with served(store.path.parent, annotates=True) as other:
        stolen = token_of(httpx.get(f"{other}/t/team").text)

    assert send(url, token=stolen).status_code == 403
    assert send(url).status_code == 303
    assert lines(store) == [(0, "n: 1")]


def test_a_form_needs_the_key_of_the_server(store: Store) -> None:
    """The cookie of a browser that has shown it will do."""
    with served(store.path.parent, key=KEY, annotates=True) as url, httpx.Client(base_url=url) as client:
        stranger = client.post(PATH, data={"name": "n"})
        client.get(f"/t/team?key={KEY}")
        form = {"token": token_of(client.get("/t/team").text), "step": "0", "name": "n", "value": "1"}
        known = client.post(PATH, data=form)

    assert (stranger.status_code, known.status_code) == (401, 303)
    assert lines(store) == [(0, "n: 1")]


def test_the_form_of_the_key_works_in_a_browser(store: Store, browser: Browser) -> None:
    """Which says of a form where it comes from."""
    with served(store.path.parent, key=KEY) as url:
        page = browser.new_page()
        page.goto(f"{url}/t/team")
        page.get_by_role("textbox", name="Key").fill(KEY)
        page.get_by_role("button", name="Log in").click()

        expect(page.locator("h1")).to_have_text("team")
        page.close()


def test_a_hostile_score_is_shown_as_text(store: Store, url: str, browser: Browser) -> None:
    """Its name, label and comment do nothing, on the page, in the list and in the file."""
    store.score("team", ATTACK[:255], ATTACK[:255], comment=SAID)
    store.score("team", ATTACK[:255], ATTACK[:255], comment=SAID, step=2)
    with tab(browser, url) as opened:
        page = ready(opened.open("/t/team"))
        for place in ("#head .judged li", "#e2 .judged li"):
            expect(page.locator(f"{place} .text").first).to_contain_text(ATTACK[:40])
            expect(page.locator(f"{place} :is(script, img, iframe, svg)")).to_have_count(0)
        expect(opened.open("/").locator(".chip.score")).to_have_count(2)
    with tab(browser, "file://") as opened:
        file = store.path.with_name("trace.html")
        file.write_text(offline_page(store, "team"), "utf-8")
        opened.page.goto(file.as_uri())

        expect(ready(opened.page).locator("#head .judged .text").first).to_contain_text(ATTACK[:40])


def test_a_file_shows_scores_and_has_no_forms(store: Store) -> None:
    """There is no server to give them to."""
    store.score("team", "helpful", True, comment="Well done.", step=2)
    store.score("team", "correct", 0.5)
    file = offline_page(store, "team")

    assert "Well done." in file
    assert "<b>correct</b> 0.5" in file
    assert "/scores" not in file


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_of_in_scores(
    store: Store, url: str, browser: Browser, scheme: str, size: tuple[int, int]
) -> None:
    """With the forms unfolded; on a phone nothing is wider than the screen, and a thumb hits what it wants."""
    store.score("team", "helpful", False, comment="Too late. " * 40)
    store.score("team", "a name without an end" * 9, "label" * 40, step=2)
    viewport = {"width": size[0], "height": size[1]}
    with tab(browser, url, color_scheme=scheme, viewport=viewport, reduced_motion="reduce") as opened:
        page = ready(opened.open("/t/team"))
        given(page, "#head")
        given(page, "#e2")

        assert Axe().run(page).violations_count == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        if size[0] < 500:
            boxes = [button.bounding_box() for button in page.locator(".annotate[open] button").all()]
            assert all(box and min(box["height"], box["width"]) >= 44 for box in boxes)
