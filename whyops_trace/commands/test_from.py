"""``whyops-trace test-from``: a recorded run as a test that replays it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from whyops_trace._reading.excerpt import clean
from whyops_trace._replay.loading import of_store
from whyops_trace._replay.recording import Recording
from whyops_trace.commands.common import home_option, stored_traces
from whyops_trace.commands.recordings import save_recording
from whyops_trace.tree import build

#: The part of the tokens of a run that another one may take more.
_MORE_TOKENS = 1.2


@click.command("test-from", epilog="Example: whyops-trace test-from latest --call 'shop.agent:refund(8841)'")
@click.argument("trace")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File of the test; by the id of the trace if left out, in tests/ if that is there.",
)
@click.option(
    "--call",
    metavar="MODULE:CALL",
    help="The call that runs the agent, such as 'shop.agent:refund(8841)'; to be written into the test if left out.",
)
@home_option
def test_from(trace: str, output: Path | None, call: str | None, home: Path) -> None:
    """
    Write a test for pytest that replays a trace and asserts what should happen in it, with the recording beside it.

    The assertions are those that hold for a run without a failure: edit them to what should have happened. TRACE is its
    id, the beginning of its id, or "latest".
    """
    module, _, expression = (call or "").partition(":")
    name = re.match(r"(\w+)\(", expression)
    if call is not None and (name is None or not re.fullmatch(r"\w+(\.\w+)*", module)):
        raise click.UsageError(
            f"--call is {call!r}; it must be a module and a call: 'shop.agent:refund(8841)'."
        )
    with stored_traces(home) as store:
        recording = of_store(store, store.resolve(trace))
    slug = re.sub(r"\W+", "_", recording.source).strip("_").lower() or "trace"
    path = output or (Path("tests") if Path("tests").is_dir() else Path()) / f"test_{slug}.py"
    fixture = path.parent / "runs" / f"{slug}.whyops"
    for each in (path, fixture):
        if each.exists():
            raise click.ClickException(f"{each} is there already; name another file with -o, or delete it.")
    imported = f"from {module} import {name[1]}\n\n\n" if name else "import pytest\n\n\n"
    body = expression if name else 'pytest.fail("Call here what runs the agent.")'
    lines = [
        f"    with recorded({json.dumps(f'runs/{fixture.name}')}) as run:",
        f"        {body}",
        "",
        *(f"    {line}" for line in _assertions(recording)),
    ]
    head = f'"""The run {clean(recording.source)} of {clean(recording.agent)}, replayed."""\n\n'.replace(
        "\\", "/"
    )
    save_recording(recording, fixture)
    path.write_text(
        f"{head}{imported}def test_{slug}(recorded):\n" + "\n".join(lines) + "\n", encoding="utf-8"
    )
    click.echo(f"Wrote {clean(str(path))}; run it with: python -m pytest {clean(str(path))}", err=True)


def _assertions(recording: Recording) -> Iterator[str]:
    """Yield what should hold for a run of the agent."""
    tools = [call.name for call in recording.calls if call.kind == "tool"]
    turns = sum(call.kind == "llm" and not call.wraps for call in recording.calls)
    tokens = build(recording.events).tokens.total
    yield "# What happened: edit it to what should have happened."
    for tool, times in Counter(tools).items():
        yield f"run.called({json.dumps(tool)}, times={times})"
    if len({*tools}) > 1:
        yield f"run.called_in_order({', '.join(map(json.dumps, dict.fromkeys(tools)))})"
    if turns:
        yield f"run.turns_below({turns + 1})"
    if tokens:
        yield f"run.tokens_below({round(tokens * _MORE_TOKENS)})"
    for call in recording.calls:
        if call.error is not None:
            yield f"# It failed: {clean(str(call))}"
    yield "run.no_errors()"
    yield "run.no_loops()"
    yield 'run.no_findings("medium")'
