"""``whyops-trace compare``: two sets of runs, wherever they are, and thresholds that a change must keep."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from programs import ROOT, environment

from whyops_trace import WhyOps, traced_llm, traced_tool
from whyops_trace._intervals import draw_means, interval_of
from whyops_trace.cli import main
from whyops_trace.commands.run_figures import RunFigures
from whyops_trace.commands.set_comparison import Threshold, compare_sets


@traced_tool
def look_up(order: int) -> dict[str, str]:
    if order == 13:
        raise KeyError("no such order")
    return {"status": "sent"}


@traced_llm(model="gpt-4o", provider="openai")
def think(messages: list[Any], prompt: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": 10, "total_tokens": prompt + 10}
    usage_details = {"prompt_tokens_details": {"cached_tokens": prompt // 2}}
    said = {"role": "assistant", "content": "It is sent."}
    return {"model": "gpt-4o", "choices": [{"index": 0, "message": said}], "usage": usage | usage_details}


def record(tag: str, *prompts: int, orders: tuple[int, ...] = (), **about: Any) -> None:
    """Record runs of an agent: one for each length of a prompt, and one that fails for each order."""
    sdk = WhyOps(agent_name="shop", tracing="local")
    for place, prompt in enumerate(prompts):
        with sdk.trace(f"{tag}-{place}", tags=[tag], metadata={"case": f"case {place}", **about}):
            look_up(1)
            think([{"role": "user", "content": "Where is it?"}], prompt)
    for order in orders:
        with pytest.raises(KeyError), sdk.trace(f"{tag}-failed", tags=[tag]):
            look_up(order)
    sdk.flush_sync()


def whyops(*words: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def told(*words: str | Path) -> dict[str, Any]:
    result = whyops("compare", *words, "--json")
    assert result.exit_code in (0, 1), result.output
    return dict(json.loads(result.stdout))


def figure(comparison: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in comparison["figures"] if each["name"] == name)


def test_sets_of_stored_runs_are_compared_in_pairs() -> None:
    """Runs of one case are a pair, so that what differs from case to case is no noise."""
    record("main", 100, 1_000, 10_000)
    record("change", 120, 1_200, 12_000)
    comparison = told("tag:main", "tag:change")
    tokens = figure(comparison, "tokens")

    assert (comparison["runs"], comparison["pairs"]) == ([3, 3], 3)
    assert tokens["means"] == [3_710, 4_450]
    assert tokens["medians"] == [1_010, 1_210]
    assert tokens["change"] == pytest.approx(740 / 3_710)
    assert tokens["verdict"] == "more"
    assert figure(comparison, "tools")["verdict"] == "same"
    assert figure(comparison, "cached")["means"] == [0.5, 0.5]


def test_sets_without_partners_are_compared_as_they_are() -> None:
    record("main", 100, 110, 120, 130)
    record("change", 300, 310, 320)
    comparison = told("tag:main", "tag:change")

    assert (comparison["runs"], comparison["pairs"]) == ([4, 3], 0)
    assert figure(comparison, "tokens")["verdict"] == "more"


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("tag:main", 3), ("agent:shop", 6), ("main-*", 3), ("main-1", 1), ("case:case 1", 2), ("latest", 1),
        ("replayOf:refund-1", 3),
    ],
)  # fmt: skip
def test_runs_are_named_as_traces_are_elsewhere(words: str, count: int) -> None:
    record("main", 100, 200, 300)
    record("change", 100, 200, 300, replayOf="refund-1")

    assert told(words, "tag:main")["runs"] == [count, 3]


def test_recordings_and_exports_in_folders_are_compared_by_their_names(tmp_path: Path) -> None:
    """What a form does not tell is said to be unknown; all else is as of the traces."""
    record("main", 100, 1_000, 10_000)
    record("change", 120, 1_200, 12_000)
    for side in ("main", "change"):
        for form in ("fixtures", "exports"):
            (tmp_path / form / side).mkdir(parents=True)
        for place in range(3):
            name = f"case{place}"
            whyops("export", f"{side}-{place}", "--fixture", tmp_path / "fixtures" / side / f"{name}.whyops")
            whyops("export", f"{side}-{place}", "-o", tmp_path / "exports" / side / f"{name}.json")
    stored = told("tag:main", "tag:change")
    for form, missing in (("fixtures", ["findings", "seconds"]), ("exports", [])):
        comparison = told(tmp_path / form / "main", tmp_path / form / "change")

        assert (comparison["pairs"], comparison["missing"]) == (3, missing)
        assert [each for each in stored["figures"] if each["name"] not in missing] == comparison["figures"]


def test_a_large_value_beside_a_recording_is_no_run(tmp_path: Path) -> None:
    """Though it is a file of JSON in the folder."""

    @traced_tool
    def load() -> Any:
        return [{"row": number, "status": "sent"} for number in range(1_000)]

    sdk = WhyOps(agent_name="shop", tracing="local")
    with sdk.trace("large"):
        load()
    sdk.flush_sync()
    whyops("export", "large", "--fixture", tmp_path / "runs" / "large.whyops")

    assert [*tmp_path.glob("runs/large-texts/*.json")]
    assert told(tmp_path / "runs", tmp_path / "runs")["runs"] == [1, 1]


@pytest.mark.parametrize("paired", [False, True])
def test_the_interval_of_a_large_set_is_as_narrow_as_its_runs_allow(paired: bool) -> None:
    """Though fewer are drawn than there are: it is that of the normal distribution, to a tenth."""
    draw = random.Random(7)
    first, second = ([draw.gauss(mean, 2) for _ in range(4_000)] for mean in (10, 11))
    [means] = draw_means([first], [second], paired=paired)
    low, high = interval_of(1, (now - before for before, now in means), 4_000) or (0, 0)

    assert (high - low) / 2 == pytest.approx(1.96 * (2**2 / 4_000 * 2) ** 0.5, rel=0.1)


@pytest.mark.parametrize("cost", ["NaN", "1e999", "9" * 400])
def test_an_export_whose_figures_are_no_numbers_is_refused(tmp_path: Path, cost: str) -> None:
    record("main", 100)
    path = tmp_path / "main.json"
    whyops("export", "main-0", "-o", path)
    path.write_text(re.sub(r'"(cost|toolCalls)": *[\d.]+', rf'"\1": {cost}', path.read_text()))
    result = whyops("compare", path, path)

    assert result.exit_code == 1
    assert "main.json is no trace that `whyops-trace export --json` wrote" in result.stderr


def test_a_threshold_fails_only_with_confidence() -> None:
    """What chance may have made is told, and does not fail."""
    record("main", 100, 1_000, 10_000)
    record("change", 120, 1_200, 12_000)
    record("noisy", 90, 1_900, 9_000)
    clear = whyops(
        "compare", "tag:main", "tag:change", "--fail-if", "tokens > +10%", "--fail-if", "turns > +10%"
    )
    noise = whyops("compare", "tag:main", "tag:noisy", "--fail-if", "tokens < -1%")
    few = whyops("compare", "main-1", "change-1", "--fail-if", "tokens > +10%")

    assert clear.exit_code == 1
    assert "tokens > +10%: yes, so this fails" in clear.stdout
    assert "turns > +10%: no" in clear.stdout
    assert (noise.exit_code, few.exit_code) == (0, 0)
    assert "tokens < -1%: not decided by these runs" in noise.stdout
    assert "too few runs" in few.stdout
    assert "tokens > +10%: not decided by these runs" in few.stdout


def test_failed_runs_are_counted() -> None:
    """Their share is compared by the intervals of both shares, however few they are."""
    record("main", 100, 200, 300)
    record("change", 100, 200, orders=(13,))
    comparison = told("tag:main", "tag:change")
    failed = figure(comparison, "failed")

    assert failed["means"] == [0, pytest.approx(1 / 3)]
    assert failed["interval"] == pytest.approx([-0.2905, 0.7923], abs=1e-3)
    assert failed["verdict"] == ""
    assert figure(comparison, "failures")["means"] == [0, pytest.approx(1 / 3)]


def test_markdown_is_a_table_in_which_names_are_no_markdown() -> None:
    record("a|b", 100, 1_000, 10_000)
    record("change", 120, 1_200, 12_000)
    lines = whyops(
        "compare", "tag:a|b", "tag:change", "--markdown", "--fail-if", "tokens > +10%"
    ).stdout.split("\n")
    table = [line for line in lines if line.startswith("|")]

    assert lines[0] == "- A  tag:a\\|b: 3 runs"
    assert {line.count("|") for line in table} == {9}
    assert "| **more** |" in next(line for line in table if line.startswith("| tokens"))
    assert "- tokens \\> +10%: yes, so this fails" in lines


def run(name: str, value: float) -> RunFigures:
    return RunFigures(name, None, value, None, 1, 1, 0, 0, 1.0, 0)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("tokens > +10%", "failed"),
        ("tokens > +20%", "passed"),
        ("tokens > +10", "failed"),
        ("tokens > 110", "failed"),
        ("tokens < 200", "failed"),
        ("tokens < -5%", "passed"),
        ("cost > +1%", "open"),
        ("failures > +1%", "passed"),
    ],
)
def test_a_threshold_is_of_the_change_the_difference_or_the_mean(text: str, verdict: str) -> None:
    before = [run(str(place), 100.0) for place in range(4)]
    after = [run(str(place), 115.0) for place in range(4)]

    assert Threshold.parse(text).judge(compare_sets(before, after)) == verdict


def test_what_did_not_happen_in_a_few_runs_is_not_told_to_be_gone() -> None:
    """A failure in every tenth run is not seldom missing in three."""
    before = [run("", 100)._replace(failures=float(place % 10 == 0)) for place in range(50)]
    after = [run("", 100) for _ in range(3)]
    comparison = compare_sets(before, after)
    failures = next(each for each in comparison.figures if each.name == "failures")

    assert failures.change == -1
    assert failures.verdict == ""
    assert Threshold.parse("failures < -50%").judge(comparison) == "open"


def test_a_narrow_terminal_has_room_for_all_but_the_medians() -> None:
    record("main", 100, 1_000, 10_000)
    record("change", 90, 1_900, 12_000)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.run(
        [sys.executable, "-m", "whyops_trace", "compare", "tag:main", "tag:change"],
        stdout=theirs, check=False, timeout=60,
    )  # fmt: skip
    shown = os.read(ours, 65_536).decode()
    os.close(theirs)
    os.close(ours)

    assert done.returncode == 0
    assert "…" not in shown
    assert "B mean" in shown
    assert "median" not in shown


def test_runs_of_one_key_are_one_value() -> None:
    """Ten repetitions of one case are no ten cases."""
    before = [run("a", value) for value in (90, 100, 110)] + [run("b", 200), run("c", 300)]
    after = [run("a", 100), run("b", 220), run("b", 180), run("c", 300)]
    comparison = compare_sets(before, after)

    assert (comparison.counts, comparison.pairs) == ((5, 4), 3)
    assert next(each for each in comparison.figures if each.name == "tokens").interval == (0, 0)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ("tag:none", "tag:main"),
            1,
            "There are no runs in tag:none: no such file is there, and no stored trace fits; whyops-trace ls",
        ),
        (("nothing", "tag:main"), 1, "There is no trace 'nothing'"),
        (("bad.json", "tag:main"), 1, "bad.json is no trace that `whyops-trace export --json` wrote"),
        (("bad.whyops", "tag:main"), 1, "bad.whyops is no fixture"),
        (("empty", "tag:main"), 1, "There are no runs in empty: it holds no recordings (.whyops)"),
        (("", "tag:main"), 2, "Name two sets of runs; one is empty."),
        (("tag:main", "tag:main", "--fail-if", "cost"), 2, "write 'cost > +10%'"),
        (("tag:main", "tag:main", "--fail-if", "price > +1%"), 2, "of cost, tokens, cached"),
        (("tag:main", "tag:main", "--fail-if", "cost > 10%"), 2, "is no threshold"),
        (("tag:main", "tag:main", "--markdown", "--json"), 2, "not both"),
    ],
)
def test_what_cannot_be_compared_is_told(
    words: tuple[str, ...], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("main", 100)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text('{"format": "other"}')
    (tmp_path / "bad.whyops").write_text("{}")
    (tmp_path / "empty").mkdir()
    result = whyops("compare", *words)

    assert result.exit_code == code
    assert said in result.stderr


@pytest.mark.parametrize(("prompt", "code"), [(1.0, 0), (1.5, 1)])
def test_the_steps_of_the_workflow_in_the_documentation_run(tmp_path: Path, prompt: float, code: int) -> None:
    """As GitHub runs them: the comparison is commented and summed up, and the job fails if a threshold is broken."""
    page = (ROOT / "docs" / "how-to" / "regressions.md").read_text()
    [workflow] = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    steps = re.findall(
        r"^ +- name: (?:Compare|Comment)\n(?:.*\n)*?^ +run: \|\n((?:^ {10}.*\n)+)", workflow, re.MULTILINE
    )
    record("main", 100, 1_000, 10_000)
    record("change", *(int(prompt * tokens) for tokens in (100, 1_000, 10_000)))
    project, runs = tmp_path / "project", tmp_path / "project" / "tests" / "runs"
    runs.mkdir(parents=True)

    def git(*words: str) -> str:
        about = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "init.defaultBranch=main"]
        done = subprocess.run(
            ["git", *about, *words], cwd=project, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init")
    for side in ("main", "change"):
        for place in range(3):
            whyops("export", f"{side}-{place}", "--fixture", runs / f"case{place}.whyops")
        git("add", "--all")
        git("commit", "--allow-empty", "-m", side)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "whyops-trace").write_text(f'#!/bin/sh\nexec {sys.executable} -m whyops_trace "$@"\n')
    (tools / "gh").write_text('#!/bin/sh\necho "$@" > gh.txt\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    settings = environment(
        tmp_path / "home", PATH=f"{tools}:{os.environ['PATH']}", GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"),
        BASE=git("rev-parse", "HEAD~1"), PR="17",
    )  # fmt: skip
    done = [
        subprocess.run(["bash", "-e", "-c", step], cwd=project, env=settings, check=False, timeout=60)
        for step in steps
    ]

    assert [each.returncode for each in done] == [code, 0]
    assert "| tokens |" in (tmp_path / "summary.md").read_text()
    assert (project / "gh.txt").read_text().startswith("pr comment 17 --body-file compare.md")
