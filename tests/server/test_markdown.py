"""Texts of models that are Markdown, laid out in a real browser, and what hostile ones can do: nothing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_runs import Agent, stored
from axe_playwright_python.sync_playwright import Axe
from browser import Tab, browser, ready, served, tab
from hostile import ATTACK
from playwright.sync_api import Browser, Page, expect

from whyops_trace._home import STORE_FILE
from whyops_trace.server.offline import offline_page
from whyops_trace.store import Store

__all__ = ["browser"]

REPORT = """# Report

Both orders of **Ada** are *late*, see [the policy](https://shop.example/policy).

- one
- two

```python
# a comment
def refund(amount: int = 12) -> str:
    return "done"
```
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run whose model writes Markdown."""
    home = tmp_path_factory.mktemp("markdown")
    agent = Agent("report", "What is **late**?")
    agent.turn(REPORT, thinks="I *look*.")
    agent.end()
    stored(home, agent).close()
    return home


@pytest.fixture
def shown(home: Path, browser: Browser) -> Iterator[Tab]:
    """A tab of a server of that home."""
    with served(home) as url, tab(browser, url) as opened:
        yield opened


@pytest.fixture(scope="module")
def laid_out(home: Path, browser: Browser) -> Iterator[Page]:
    """A page with the function that lays a text out, from a file: it needs no server."""
    file = home / "report.html"
    with contextlib.closing(Store(home / STORE_FILE)) as store:
        file.write_text(offline_page(store, "report"), "utf-8")
    with tab(browser, "file://") as opened:
        yield ready(opened.open(str(file)))


def html(page: Page, text: str) -> str:
    """The markup of a text that is laid out."""
    script = """async (text) => {
      const { rendered } = await import("whyops/trace-markdown");
      const place = document.createElement("div");
      place.append(rendered(text));
      return place.innerHTML;
    }"""
    markup: str = page.evaluate(script, text)
    return markup


def link(to: str, label: str) -> str:
    """The markup of a link."""
    return f'<a data-to="{to}" href="{to}" rel="noreferrer noopener" target="_blank">{label}</a>'


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
        ("## Title ##", '<p class="title t2">Title</p>'),
        ("*em* **strong** ~~old~~", "<p><em>em</em> <strong>strong</strong> <del>old</del></p>"),
        ("***both***", "<p><strong><em>both</em></strong></p>"),
        ("**bold *and it***", "<p><strong>bold <em>and it</em></strong></p>"),
        ("*it **and bold***", "<p><em>it <strong>and bold</strong></em></p>"),
        ("snake_case_name, 2 * 3 * 4, **open", "<p>snake_case_name, 2 * 3 * 4, **open</p>"),
        ("`a *b*` and ``c ` d`` and `open", "<p><code>a *b*</code> and <code>c ` d</code> and `open</p>"),
        ("\\*no\\* \\[x](y)", "<p>*no* [x](y)</p>"),
        ("- one\n- two\n  - three", '<ul><li>one</li><li>two<ul><li>three</li></ul></li></ul>'),
        ("2. two\n\n3. three\ngoes on", '<ol start="2"><li>two</li><li>three\ngoes on</li></ol>'),
        ("1. one\n   - a\n2. two", '<ol start="1"><li>one<ul><li>a</li></ul></li><li>two</li></ol>'),
        ("- one\n\n  more\n\nafter", "<ul><li>one<p>more</p></li></ul><p>after</p>"),
        ("> said\n> > deep", "<blockquote><p>said</p><blockquote><p>deep</p></blockquote></blockquote>"),
        ("before\n***\nafter", "<p>before</p><hr><p>after</p>"),
        (
            "```py\na = 1 < 2\n\n# b\n```\nx",
            '<div class="code"><pre><code>a = 1 &lt; 2\n\n# b</code></pre></div><p>x</p>',
        ),
        ("~~~\n```\n~~~~", '<div class="code"><pre><code>```</code></pre></div>'),
        ("```\nno end", '<div class="code"><pre><code>no end</code></pre></div>'),
        (
            "a | b\n:-|-\n1 | `x` | 3\n\nend",
            '<table tabindex="0"><tr><th scope="col">a</th><th scope="col">b</th></tr>'
            "<tr><td>1</td><td><code>x</code></td></tr></table><p>end</p>",
        ),
        ("a | b, no table", "<p>a | b, no table</p>"),
        ("[label](https://a.example/x_(y))", f"<p>{link('https://a.example/x_(y)', 'label')}</p>"),
        ("![cat](https://a.example/c.png)", f"<p>{link('https://a.example/c.png', 'cat')}</p>"),
        ("[*a*](https://a.example 'no')", "<p>[<em>a</em>](https://a.example 'no')</p>"),
        ("x [not a link] y", "<p>x [not a link] y</p>"),
        (
            "see https://a.example/b_c_d.",
            '<p>see <a href="https://a.example/b_c_d" rel="noreferrer noopener" target="_blank">'
            "https://a.example/b_c_d</a>.</p>",
        ),
        ("[x](javascript:alert(1))", '<p><span data-to="javascript:alert(1)">x</span></p>'),
        ("[x](JAVASCRIPT:alert(1))", '<p><span data-to="JAVASCRIPT:alert(1)">x</span></p>'),
        ("[x](data:text/html,<b>)", "<p>[x](data:text/html,&lt;b&gt;)</p>"),
        ("[x](//a.example)", '<p><span data-to="//a.example">x</span></p>'),
        ("<b onclick=alert(1)>b</b> &lt;", "<p>&lt;b onclick=alert(1)&gt;b&lt;/b&gt; &amp;lt;</p>"),
        ("\u202eturned", "<p>\\u202eturned</p>"),
    ],
)  # fmt: skip
def test_a_text_is_laid_out(text: str, markup: str, laid_out: Page) -> None:
    """By the rules of Markdown; a line break stays one, and what means nothing stays as it is."""
    assert html(laid_out, text) == markup


@pytest.mark.parametrize(
    "piece",
    ["[", "*", "**a ", "*a **b ", "`", "`` ` ", ">", "> > ", "- ", "- - ", "1. ", "|", "a|b\n-|-\n", "_a", "](",
     "[a](", "![", "[a](b ", "(", "~~x", "```\n", "``` `", "# ", "\\", "https://", "<", "  ", "- a\n ",
     "[a](((", "***a", "\n", "\n\n> ", "-\t"],
)  # fmt: skip
def test_no_text_makes_laying_out_slow_or_deep(piece: str, laid_out: Page) -> None:
    """200 KB of any mark become a page of few levels."""
    script = """async (text) => {
      const { rendered, unclosed } = await import("whyops/trace-markdown");
      unclosed(text);
      const found = rendered(text);
      let deepest = 0;
      for (const one of found.querySelectorAll("*")) {
        let depth = 0;
        for (let up = one; up && depth < 99; up = up.parentNode) depth++;
        deepest = Math.max(deepest, depth);
        if (deepest > 40) break;
      }
      return deepest;
    }"""
    text = (piece * (200_000 // len(piece) + 1))[:200_000]

    assert laid_out.evaluate(script, text) < 40


@pytest.mark.parametrize("language", ["python", "js", "sql", "json", "rust", "unheard-of"])
@pytest.mark.parametrize("piece", ["/*", "'", '"\\', "`", "#", "//", "--", "1", "if ", "if", "0x"])
def test_no_code_makes_colouring_slow(piece: str, language: str, laid_out: Page) -> None:
    """Nor is a character of it lost."""
    text = (piece * 200_000)[:200_000]

    markup = html(laid_out, f"~~~~{language}\n{text}\n~~~~")
    assert len(re.sub("<[^>]*>", "", markup)) == 200_000


def test_an_answer_is_laid_out_and_its_text_is_one_key_away(shown: Tab) -> None:
    """Raw or laid out is remembered."""
    page = ready(shown.open("/t/report"))
    answer = page.locator(".answer")

    expect(answer.locator(".title")).to_have_text("Report")
    expect(answer.locator("li")).to_have_count(2)
    expect(page.locator(".message.user strong")).to_have_text("late")
    page.keyboard.press("r")
    expect(answer).to_contain_text("Both orders of **Ada** are *late*, see [the policy]")
    expect(page.get_by_role("button", name="raw")).to_have_attribute("aria-pressed", "true")
    page.reload()
    ready(page)
    expect(answer).to_contain_text("**Ada**")
    page.get_by_role("button", name="raw").click()
    expect(answer.locator("strong")).to_have_text("Ada")


def test_code_has_colours_and_is_copied(home: Path, browser: Browser) -> None:
    """Words, strings, numbers and comments; a comparison of texts is not misled by them."""
    with (
        served(home) as url,
        tab(browser, url, permissions=["clipboard-read", "clipboard-write"]) as opened,
    ):
        page = ready(opened.open("/t/report"))
        kinds = (
            "['comment', 'string', 'number', 'word'].map((kind) => CSS.highlights.get(`code-${kind}`).size)"
        )
        assert page.evaluate(kinds) == [1, 1, 1, 2]
        page.locator(".code").hover()
        page.locator(".code .copy").click()
        expect(page.locator("#said")).to_have_text("Code copied")
        assert page.evaluate("navigator.clipboard.readText()").startswith("# a comment\ndef refund")
        page.keyboard.press("r")
        page.keyboard.press("r")
        assert page.evaluate(kinds) == [1, 1, 1, 2]


def test_code_that_is_folded_in_two_is_code_in_both_parts(tmp_path: Path, browser: Browser) -> None:
    """The part to unfold begins where the first one ends, in the middle of a block."""
    agent = Agent("code", "Write.")
    agent.turn(
        "```python\n" + "".join(f"line_{number} = *{number}*\n" for number in range(300)) + "```\n*end*"
    )
    stored(tmp_path, agent).close()
    with served(tmp_path) as url, tab(browser, url) as opened:
        page = ready(opened.open("/t/code"))
        page.locator(".answer summary").click()

        expect(page.locator(".answer .code")).to_have_count(2)
        expect(page.locator(".answer em")).to_have_text("end")


def test_hostile_markdown_does_nothing(tmp_path: Path, browser: Browser) -> None:
    """Markup, scripts and addresses in it are text; following a link tells nobody where it was."""
    hostile = (
        f"# {ATTACK}\n\n**{ATTACK}**\n\n- {ATTACK}\n\n> {ATTACK}\n\n| a |\n|-|\n| {ATTACK} |\n\n"
        "[run](javascript:window.harmed=1) ![img](http://127.0.0.1:9/x.png) "
        "[![in](http://127.0.0.1:9/y)](http://127.0.0.1:9/z) "
        "[page](http://127.0.0.1:9/page) <img src=http://127.0.0.1:9/q onerror=window.harmed=1> "
        "[x]: http://127.0.0.1:9/ref\n\n```html\n" + ATTACK + "\n```\n"
    )  # fmt: skip
    agent = Agent("hostile", hostile)
    agent.turn(hostile, thinks=hostile)
    stored(tmp_path, agent).close()
    with served(tmp_path) as url, tab(browser, url) as opened:
        page = ready(opened.open("/t/hostile"))
        page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        answer = page.locator(".answer")

        expect(answer).to_contain_text("<script>window.harmed=1;alert(1)</script>")
        for one in answer.locator("a").all():
            assert (one.get_attribute("href") or "").startswith("http://127.0.0.1:9/")
            assert one.get_attribute("rel") == "noreferrer noopener"
        assert page.locator("#transcript :is(img, script, iframe, style, [onclick], [style])").count() == 0
        assert page.evaluate("window.harmed") is None


def test_what_is_too_wide_or_high_is_scrolled_by_keys(tmp_path: Path, browser: Browser) -> None:
    """A wide table and a long difference, on a phone as well; the page itself is not wider than the screen."""
    agent = Agent("wide", "Compare.")
    agent.turn("|" + "name of a column|" * 12 + "\n" + "|-" * 12 + "|\n" + "|value" * 12 + "|")
    agent.messages[0]["content"] = "\n".join(f"rule {number}" for number in range(33))
    agent.turn("Once more.")
    stored(tmp_path, agent).close()
    with served(tmp_path) as url, tab(browser, url, viewport={"width": 390, "height": 844}) as opened:
        page = ready(opened.open("/t/wide"))
        table = page.locator(".answer table")

        expect(page.locator(".changed .diff")).to_be_visible()
        assert table.evaluate("(one) => one.scrollWidth > one.clientWidth")
        table.focus()
        expect(table).to_be_focused()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_of_in_markdown(scheme: str, home: Path, browser: Browser) -> None:
    """In both themes."""
    with served(home) as url, tab(browser, url, color_scheme=scheme) as opened:
        found = Axe().run(ready(opened.open("/t/report")))

        assert found.violations_count == 0, found.generate_report()
