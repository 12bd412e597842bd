"""Exports: a trace as JSON, as Markdown of a given size, and as a page; and the command that writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lines import Process, encoded
from programs import run, run_code
from tales import USER, Agent, called, result

from whyops_trace.cli import main
from whyops_trace.exceptions import TraceNotFoundError
from whyops_trace.export import export_json, export_markdown
from whyops_trace.store import Store

TOKEN = "9f2c41aa01be"
REFUND = """\
# Trace checkout-8841

- agent: shop
- outcome: answered: 1 call failed, recovered
- began: 2026-11-21T22:30:00.010Z
- took: 110 ms
- turns of models: 3
- tool calls: 2

Asked: Refund order 8841.

Ended with: I refunded &lt;12.90>.

## What explains it

- turn 1: refund(amount=129.0) was refused: PolicyError: amount exceeds express fee -> turn 2 tried again with \
amount=12.9 (was 129.0): ok

## Transcript

### Turn 1: ask gpt-4o (step 1; 10 ms)

user: Refund order 8841.
- refund(amount=129.0) (step 3; 10 ms); tried again in step 8
  FAILED: PolicyError: amount exceeds express fee
```
File agent.py
```

### Turn 2: ask gpt-4o (step 6; 10 ms)

tool refund: refused
- refund(amount=12.9) (step 8; 10 ms); tries step 3 again
  result: {"id": 7}

### Turn 3: ask gpt-4o (step 10; 10 ms)

assistant: I refunded &lt;12.90>.
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store in the home of the test."""
    return Store(tmp_path / "home" / "traces.db")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command in a folder of its own, without a terminal."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    options = ["--home", str(tmp_path / "home")]
    return lambda *arguments: CliRunner().invoke(main, ["export", *map(str, arguments), *options])


def keep(store: Store, agent: Agent) -> None:
    """Put what an agent recorded into a store."""
    store.ingest((TOKEN, [encoded(event) for event in agent.events]))


def refund(trace: str = "checkout-8841") -> Agent:
    """Return an agent whose refund is refused, and which tries again with another amount."""
    agent, messages = Agent(Process(trace=trace)), [USER]
    first, second = called("refund", 1, amount=129.0), called("refund", 2, amount=12.9)
    answer = agent.turn(messages, None, first)
    refused = ("PolicyError", "amount exceeds express fee")
    agent.tool("refund", {"amount": 129.0}, asked_by=answer, error=refused)
    messages.append(result(first, "refused"))
    answer = agent.turn(messages, None, second)
    agent.tool("refund", {"amount": 12.9}, {"id": 7}, asked_by=answer)
    messages.append(result(second, '{"id":7}'))
    agent.turn(messages, "I refunded <12.90>.")
    agent.end()
    return agent


def talkative(turns: int, size: int) -> Agent:
    """Return an agent with so many turns, each with a tool result of that size; the one in the middle fails."""
    agent, messages = Agent(), [USER]
    for number in range(turns):
        call = called("read", number, n=number)
        answer = agent.turn(messages, None, call)
        failed = ("OSError", "the disk is full " * 20) if number == turns // 2 else None
        agent.tool("read", {"n": number}, f"{number} " * (size // 3), asked_by=answer, error=failed)
        messages.append(result(call, f"{number} " * (size // 3)))
    agent.turn(messages, "Done.")
    return agent


def test_markdown_tells_the_story(store: Store) -> None:
    """What was asked, how it ended, what explains it, the transcript; a result stands with its call only."""
    keep(store, refund())

    assert export_markdown(store, "checkout-8841") == REFUND


def test_markdown_has_the_findings(store: Store) -> None:
    """With what to do."""
    agent = Agent()
    agent.tool("pay", {"card": "key sk-" + "Zx8" * 16})
    keep(store, agent)
    text = export_markdown(store, "checkout-8841")

    assert re.search(r"^## Findings\n\n- \w+: .+ \(step 1\b.*", text, re.MULTILINE)


def test_markdown_fits_into_the_tokens_it_is_given(store: Store) -> None:
    """At four characters a token, as full as can be."""
    keep(store, talkative(20, 6_000))
    lengths = {
        tokens: len(export_markdown(store, "checkout-8841", max_tokens=tokens)) for tokens in (1_500, 5_000)
    }

    assert all(0.8 * 4 * tokens < length <= 4 * tokens for tokens, length in lengths.items())


def test_long_texts_are_shortened_evenly_and_failures_stay_whole(store: Store) -> None:
    """Each says how much is missing."""
    keep(store, talkative(20, 6_000))
    text = export_markdown(store, "checkout-8841", max_tokens=5_000)
    kept = [len(block) for block in re.findall(r"```\n(.*)\n```", text)]

    assert text.count("### Turn") == 21
    assert len(kept) == 21  # 19 results and the failed one, which the model got as well; where it was raised
    assert max(kept) - min(length for length in kept if length > 100) < 10
    assert text.count("characters…]") >= 19
    assert "FAILED: OSError: " + "the disk is full " * 20 in text


def test_what_does_not_fit_is_left_out_in_the_middle_and_failures_last(store: Store) -> None:
    """The beginning, the end and what failed stay; the gaps are counted."""
    keep(store, talkative(200, 90))
    text = export_markdown(store, "checkout-8841", max_tokens=2_000)

    assert len(text) <= 8_000
    assert "### Turn 1: " in text
    assert "assistant: Done." in text
    assert "the disk is full" in text
    assert re.search(r"\[…\d+ parts left out…\]", text)


def test_the_head_takes_half_of_the_size_at_most(store: Store) -> None:
    """However much there is to explain, and however much was asked."""
    agent = Agent()
    agent.turn([{"role": "user", "content": "why " * 9_000}], "so " * 9_000)
    for number in range(30):
        agent.tool(f"tool {number}", {"n": "x" * 200}, error=("OSError", f"{number} " * 90))
    keep(store, agent)
    text = export_markdown(store, "checkout-8841", max_tokens=1_000)

    assert len(text) <= 4_000
    assert text.index("## Transcript") <= 2_000


def test_markdown_tells_everything_that_may_be_in_a_trace(store: Store) -> None:
    """Steps, paths, branches, changed prompts, calls that were not made, loops, retries, other events."""
    agent = Agent()
    step = agent.step("plan")
    offer = [{"name": "look"}]
    agent.breaks([USER], "slow down", within=step)
    usage = {"promptTokens": 10, "completionTokens": 2, "cacheReadTokens": 30}
    looks = called("look", 1), called("lost", 2)
    first = agent.request(USER, within=step, systemPrompt="Be kind.", tools=offer)
    agent.event(
        "llm_thinking", first, within=first, metadata={"function": "ask"}, content={"thinking": "Ah."}
    )
    agent.answer(first, "Hm.", *looks, usage=usage)
    for _ in range(2):
        agent.tool("look", {}, None, within=step)
    agent.turn([{"role": "user", "content": ["b", {"type": "image"}]}], "B.", within=step)
    again = [USER, {"role": "assistant", "content": "Hm.", "tool_calls": list(looks)}]
    agent.turn(
        [*again, result(looks[0], "null")],
        "It is cut",
        within=step,
        systemPrompt="Be brief.",
        finish="length",
    )
    agent.turn([{"role": "assistant", "content": "", "tool_calls": [called("old")]}], "Old.")
    agent.begin_tool("slow", [1])  # type: ignore[arg-type]
    loose = agent.step("loose", within=step)
    agent.event("embedding_request", within=loose, content={"input": ["tea"]})
    agent.event("error", within=loose, content={"type": "OSError", "message": "no"})
    agent.tool("look", {}, within=loose)
    keep(store, agent)
    text = export_markdown(store, "checkout-8841")

    for told in (
        "- tokens: 42 (75 % of the prompts cached)",
        "### Step plan (step 1; running",
        "### Turn 1: ask gpt-4o in plan (step 2; 10 ms)",
        "FAILED: RateLimitError: slow down",
        "Tries turn 1 again.",
        "40 tokens in, 75 % cached, 2 out",
        "system: Be kind.\ntools on offer: look\n",
        "thinking: Ah.",
        "- asked for, and not called here: lost()",
        "; the same call as before, 2 in a row",
        "result: null",
        "user [1 image]: b",
        "Goes on from turn 2.",
        "Changed in the prompt: the system prompt was edited\n```\n@@ -1 +1 @@\n-Be kind.\n+Be brief.\n```",
        "finish reason: length",
        "- asked for old()",
        "- slow([1]) (step ",
        "### Calls in plan > loose",
        "- embedding (step ",
        '; running) ["tea"]',
        "- error (step ",
        ") FAILED: OSError: no\n",
    ):
        assert told in text, told


def test_long_lists_at_the_top_are_counted(store: Store) -> None:
    """What explains the trace, and the findings."""
    agent = Agent()
    for number in range(8):
        for kind in range(3):
            agent.tool(f"tool {number}", {}, error=("OSError", "no") if kind == 0 else None)
            agent.turn([{"role": "user", "content": f"{number} {kind}"}], "Once", finish="length")
            agent.turn([{"role": "user", "content": f"{number} {kind} b"}], None, called("lost"))
            agent.begin_tool("open", {})
    agent.end()
    keep(store, agent)
    store.process_ended(TOKEN)
    text = export_markdown(store, "checkout-8841")

    assert re.search(r"^- and \d+ more$", text, re.MULTILINE)


def test_a_trace_of_nothing_but_its_end_is_told(store: Store) -> None:
    """There is no transcript."""
    agent = Agent()
    agent.end()
    keep(store, agent)

    assert export_markdown(store, "checkout-8841").endswith("## Transcript\n")


def test_one_failure_without_end_is_shortened(store: Store) -> None:
    """Its first and last words are there."""
    agent = Agent()
    agent.tool("read", {}, error=("OSError", "x" * 50_000 + " at the end"))
    keep(store, agent)
    text = export_markdown(store, "checkout-8841", max_tokens=1_500)

    assert "FAILED: OSError: xxx" in text
    assert "at the end\n" in text


def test_markdown_of_a_hostile_trace_is_harmless(store: Store) -> None:
    """No markup, no end of a block, nothing that moves a cursor."""
    attack = "<img src=x onerror=alert(1)> ![x](http://evil) \x1b[2J\n```\n# heading\n\u202e"
    agent = Agent(Process(trace="t"))
    call = called(attack, 1, **{attack: attack})
    agent.turn([{"role": attack, "content": attack}], attack, call, systemPrompt=attack, finish=attack)
    agent.tool(attack, {attack: attack}, attack, error=(attack, attack))
    agent.event("error", content={"type": attack, "message": attack})
    keep(store, agent)
    text = export_markdown(store, "t")
    outside = re.sub(r"^(`{3,})\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)

    assert "<img" in text
    assert "<img" not in outside
    assert "](" not in outside
    assert re.findall("^# .*", outside, re.MULTILINE) == ["# Trace t"]
    assert all(line.isprintable() for line in text.splitlines())


def test_json_has_the_summary_the_findings_and_every_event(store: Store) -> None:
    """In ASCII, with the name and version of its form."""
    agent = refund()
    agent.event("step_end", metadata={"step": "ä\x9b"})
    keep(store, agent)
    text = export_json(store, "checkout-8841")
    exported = json.loads(text)

    assert (exported["format"], exported["version"]) == ("whyops-trace", 1)
    assert list(exported) == ["format", "version", "writtenBy", "summary", "findings", "provenance", "events"]
    assert exported["summary"]["traceId"] == "checkout-8841"
    assert exported["events"] == store.events("checkout-8841")
    assert text.isascii()


def test_an_export_of_a_trace_that_is_not_there_fails(store: Store) -> None:
    """With the error of the store."""
    keep(store, refund())
    for write in (export_json, export_markdown):
        with pytest.raises(TraceNotFoundError):
            write(store, "other")


def test_the_command_prints_markdown(cli: Callable[..., Result], store: Store) -> None:
    """If nothing else is said."""
    keep(store, refund())
    done = cli("latest")

    assert (done.stdout, done.stderr, done.exit_code) == (REFUND, "", 0)


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("trace.md", "# Trace"),
        ("trace.JSON", '{"format": "whyops-trace"'),
        ("trace.html", "<!doctype html>"),
        ("trace.markdown", "# Trace"),
    ],
)
def test_the_ending_of_a_file_says_the_format(
    cli: Callable[..., Result], store: Store, name: str, begins: str
) -> None:
    """And the command says what it wrote."""
    keep(store, refund())
    done = cli("checkout", "-o", name)
    written = Path(name).read_bytes()

    assert (done.exit_code, done.stdout) == (0, "")
    assert written.decode().lower().startswith(begins.lower())
    assert re.fullmatch(rf"Wrote {re.escape(name)} \([\d.]+ (bytes|kB|MB)\)\.\n", done.stderr)


def test_html_goes_to_a_file_of_the_traces_name(cli: Callable[..., Result], store: Store) -> None:
    """Which has no signs that a file system would not take."""
    keep(store, refund("../shop: 8841"))
    done = cli("latest", "--format", "html")

    assert done.exit_code == 0
    assert [path.name for path in Path().iterdir()] == ["shop_8841.html"]


@pytest.mark.parametrize("form", ["html", "json", "markdown"])
def test_a_dash_is_standard_output(cli: Callable[..., Result], store: Store, form: str) -> None:
    """For any format."""
    keep(store, refund())
    done = cli("latest", "--format", form, "-o", "-")

    assert done.exit_code == 0
    assert "checkout-8841" in done.stdout
    assert list(Path().iterdir()) == []


def test_json_has_an_option_as_in_other_commands(cli: Callable[..., Result], store: Store) -> None:
    """Which is the format of that name."""
    keep(store, refund())
    done = cli("latest", "--json")

    assert done.exit_code == 0
    assert done.stdout == cli("latest", "--format", "json").stdout
    assert json.loads(done.stdout)["format"] == "whyops-trace"


def test_the_size_of_markdown_can_be_given(cli: Callable[..., Result], store: Store) -> None:
    """In tokens."""
    keep(store, talkative(20, 6_000))

    assert len(cli("latest", "--max-tokens", 1_500).stdout) <= 6_000


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["other"], 1, "other"),
        (["latest", "-o", "trace.pdf"], 2, "The ending of 'trace.pdf' says no format"),
        (["latest", "-o", "missing/trace.md"], 1, "No such file or directory"),
        (["latest", "--max-tokens", "5"], 2, "--max-tokens"),
    ],
)
def test_a_mistake_is_one_line(
    cli: Callable[..., Result], store: Store, arguments: list[str], code: int, told: str
) -> None:
    """With the exit code of its kind."""
    keep(store, refund())
    done = cli(*arguments)

    assert (done.exit_code, done.stdout) == (code, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_html_without_its_extra_says_which(store: Store, tmp_path: Path) -> None:
    """And the other formats do without it."""
    keep(store, refund())
    program = """
        import sys
        sys.modules["jinja2"] = None
        from whyops_trace.cli import main
        main(["export", "latest", {}])
    """
    home, page = tmp_path / "home", tmp_path / "trace.html"
    done = run_code(program.format(f"'-o', {str(page)!r}"), home)

    assert (done.returncode, done.stdout, page.exists()) == (1, "", False)
    assert "pip install '.[ui]'" in done.stderr
    assert run_code(program.format(""), home).returncode == 0


def test_the_command_runs_as_a_program(store: Store, tmp_path: Path) -> None:
    """Its output is UTF-8, whatever the locale."""
    agent = refund()
    agent.events[0]["content"]["messages"][0] = {"role": "user", "content": "Tee für 12 €"}
    keep(store, agent)
    environment: dict[str, Any] = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("-m", "whyops_trace", "export", "latest", home=tmp_path / "home", **environment)

    assert done.returncode == 0
    assert "Tee für 12 €" in done.stdout
