"""``whyops-trace whatif``: runs an agent again from one step of a trace on, with another answer to that step."""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from whyops_trace._extras import install_hint
from whyops_trace._home import command_line
from whyops_trace._reading.excerpt import clean, counted, dollars, duration, percent
from whyops_trace._replay.loading import load
from whyops_trace.commands.common import ParamType, home_option
from whyops_trace.commands.experiment import NAMES, Order, Report
from whyops_trace.whatif import Answer, Experiment, ExperimentRun, Plan, plan

_PYTHON: Final = re.compile(r"python[\d.]*(\.exe)?")
_CALL: Final = re.compile(r"\w+(\.\w+)*:\w.*", re.DOTALL)
#: Characters of an id in the list of runs.
_ID: Final = 60


class _Json(ParamType):
    """A JSON value."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the decoded value."""
        try:
            return msgspec.json.decode(value)  # which refuses NaN and halves of characters
        except (ValueError, RecursionError) as error:
            self.fail(f"{value!r:.80} is no JSON ({error}); a text needs quotes: '\"sent\"'.", param, ctx)


class _Swap(_Json):
    """A name and the JSON that answers it: ``refund={"ok": true}``."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Return the name and the decoded value."""
        name, equals, text = str(value).partition("=")
        if not (equals and name):
            self.fail(f"{value!r} is no swap; write NAME=JSON.", param, ctx)
        return name, super().convert(text, param, ctx)


@click.command(
    "whatif",
    epilog='Example: whyops-trace whatif refund-8841 --step 4 --result \'{"status": "packed"}\' -- python agent.py',
)
@click.argument("trace")
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="[-- PYTHON PROGRAM...]")
@click.option("--step", type=click.IntRange(1), required=True, metavar="N", help="The step to answer.")
@click.option("--result", type=_Json(), metavar="JSON", help="What the call returns instead.")
@click.option(
    "--error", metavar="TEXT", help="What it raises instead: 'ValueError: no such order', '429 slow down'."
)
@click.option("--answer", metavar="TEXT", help="What the model answers instead.")
@click.option("--repeat", default=1, show_default=True, type=click.IntRange(1), help="Number of runs.")
@click.option(
    "--call", metavar="MODULE:CALL", help="The call that runs the agent: 'shop.agent:refund(8841)'."
)
@click.option(
    "--expect",
    metavar="EXPRESSION",
    help="Python that is true for a run that passes, of answer, result, calls and run.",
)
@click.option(
    "--check", metavar="MODULE:FUNCTION", help="A function that checks a run and what the agent returned."
)
@click.option(
    "--swap",
    type=_Swap(),
    multiple=True,
    metavar="NAME=JSON",
    help="What answers a tool behind the step, which then does not run; may be given several times.",
)
@click.option(
    "--live",
    multiple=True,
    metavar="NAME",
    help="What runs before the step, too; may be given several times.",
)
@click.option("--network", is_flag=True, help="Leave the network open before the step.")
@click.option("--yes", is_flag=True, help="Do not ask before anything runs.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@home_option
def whatif(
    trace: str,
    program: Sequence[str],
    step: int,
    call: str | None,
    expect: str | None,
    check: str | None,
    swap: Sequence[tuple[str, Any]],
    live: Sequence[str],
    repeat: int,
    network: bool,
    yes: bool,
    as_json: bool,
    home: Path,
    **given: Any,
) -> None:
    """
    Run an agent again from one step of a trace on, with another answer to that step.

    TRACE is its id, the beginning of its id, or "latest". Up to the step the recording answers and nothing runs. Behind
    it models are asked and tools do what they do: what that may be and cost is shown, and asked for, before.

    Without --result, --error and --answer the step itself runs as well. The agent is started by --call, or as a program
    after --: python agent.py, python -m shop.agent, uv run python agent.py.
    """
    answers = {
        "text" if name == "answer" else name: value
        for name, value in given.items()
        if click.get_current_context().get_parameter_source(name) != click.core.ParameterSource.DEFAULT
    }
    if len(answers) > 1:
        raise click.UsageError("Give one of --result, --error and --answer.")
    if bool(program) == bool(call):
        raise click.UsageError("Say how the agent is started: --call MODULE:CALL, or -- python agent.py.")
    if expect and check:
        raise click.UsageError("Give --expect or --check, not both.")
    _check_words(call, check, expect)
    command = _command(program)
    planned = plan(trace, step, Answer(**answers) if answers else None, home=home)
    order = Order(
        planned.source, step, "", "", str(home), answer=next(iter(answers.items()), None), call=call or "",
        expect=expect or "", check=check or "", live=[*live], swap=dict(swap), network=network,
    )  # fmt: skip
    recording = load(planned.source, home)
    unknown = sorted({*order.swap, *order.live} - {recorded.name for recorded in recording.calls})
    _ask(_plan(planned, repeat, order.swap, unknown, recording.undecorated), yes=yes)
    experiment, problems = Experiment(planned, []), list[str]()
    is_stopped = False
    try:
        _run_all(order, command, repeat, experiment.runs, problems, tells=not as_json)
    except KeyboardInterrupt:
        is_stopped = True
    if not experiment.runs:
        raise click.Abort
    if as_json:
        click.echo(json.dumps(_told(experiment, problems), indent=1))
    else:
        _print(experiment, problems, home)
    if is_stopped:  # what was spent is told
        raise click.Abort


def _check_words(call: str | None, check: str | None, expect: str | None) -> None:
    """
    Check what a user wrote in words of Python, as far as that can be done before anything runs.

    Raises:
        click.UsageError: if it is wrong.
    """
    for option, value in (("--call", call), ("--check", check)):
        if value and not _CALL.fullmatch(value):
            raise click.UsageError(f"{option} is {value!r}; it must begin with a module: 'shop.agent:…'.")
    if call and not _calls(_parsed("--call", call.partition(":")[2])):
        raise click.UsageError(f"--call is {call!r}, which calls nothing: '{call}()'.")
    if expect:
        _check_names(_parsed("--expect", expect))


def _parsed(option: str, expression: str) -> ast.AST:
    """
    Return an expression of Python.

    Raises:
        click.UsageError: if it is none.
    """
    try:
        return ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise click.UsageError(
            f"{option} has {expression!r}, which is no expression of Python: {error}."
        ) from error


def _calls(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Call) for node in ast.walk(tree))


def _check_names(tree: ast.AST) -> None:
    """
    Check the names in an expectation, before anything is spent on a run.

    Raises:
        click.UsageError: if one is not known.
    """
    nodes = [*ast.walk(tree)]
    own = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    if unknown := sorted(names - own - NAMES - vars(builtins).keys()):
        raise click.UsageError(f"--expect knows {', '.join(sorted(NAMES))}, but not {', '.join(unknown)}.")


def _command(program: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words that start Python, and those of the program that it runs."""
    words = [*program]
    if not words or words[0].endswith(".py"):
        return [sys.executable], words
    place = next((at for at, word in enumerate(words) if _PYTHON.fullmatch(Path(word).name)), len(words))
    rest = place + 1
    while rest < len(words) and words[rest].startswith("-") and words[rest] not in ("-m", "-c"):
        rest += 2 if words[rest] in ("-W", "-X") else 1
    if rest >= len(words) or words[rest] == "-c" or words[rest:] == ["-m"]:
        raise click.UsageError(
            f"{' '.join(words)!r} starts no program of Python: write python FILE or python -m MODULE, or use --call."
        )
    if shutil.which(words[0]) is None:
        raise click.UsageError(f"There is no program {words[0]!r}.")
    return words[:rest], words[rest:]


def _run_all(
    order: Order,
    command: tuple[list[str], list[str]],
    repeat: int,
    runs: list[ExperimentRun],
    problems: list[str],
    *,
    tells: bool,
) -> None:
    """
    Run the agent several times. Add each run to *runs*, or why it did not come to the step to *problems*.

    Raises:
        click.ClickException: if the first run did not come to the step.
    """
    for number in range(1, repeat + 1):
        report = _run(order, command)
        if report.run is not None:
            runs.append(report.run)
        elif number == 1:
            raise click.ClickException("\n".join(map(clean, report.problem.split("\n"))))
        else:
            problems.append(report.problem)
        if tells:
            click.echo(_line(number, report))


def _run(order: Order, command: tuple[list[str], list[str]]) -> Report:
    """Run the agent once, in a process of its own, whose output goes to standard error."""
    python, program = command
    with tempfile.TemporaryDirectory(prefix="whyops-") as folder:
        given, order.report = Path(folder, "order.json"), str(Path(folder, "report.json"))
        order.alive = str(Path(folder, "alive"))
        given.write_bytes(msgspec.json.encode(order))
        words = [*python, "-m", "whyops_trace.commands.experiment", str(given), *program]
        with _held_open(order.alive):
            done = subprocess.run(words, stdout=2, check=False)  # noqa: S603 - what the user typed
        try:
            return msgspec.json.decode(Path(order.report).read_bytes(), type=Report)
        except (FileNotFoundError, msgspec.DecodeError):  # it was ended, maybe while it wrote
            return Report(
                problem=f"The process of the run ended with exit code {done.returncode} and told nothing; its output "
                "is above."
            )


@contextlib.contextmanager
def _held_open(pipe: str) -> Iterator[None]:
    """Hold the writing end of a new pipe, by whose end the run learns that this process is gone, however it ended."""
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # without which nothing can be opened for writing
    writing = os.open(pipe, os.O_WRONLY)
    os.close(reading)
    try:
        yield
    finally:
        os.close(writing)


def _ask(lines: Sequence[str], *, yes: bool) -> None:
    """
    Tell what will run and what it may cost, and ask whether it may.

    Raises:
        click.ClickException: if there is nobody to be asked.
        click.Abort: if it may not.
    """
    for line in lines:
        click.echo(clean(line), err=True)
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():  # None where a service has closed it
        raise click.ClickException("Nobody can be asked here whether this may run: --yes says that it may.")
    click.confirm("Run it?", abort=True, err=True)


def _plan(
    planned: Plan, repeat: int, swap: dict[str, Any], unknown: Sequence[str], undecorated: Sequence[str]
) -> list[str]:
    call = f"{planned.source} is replayed up to step {planned.step}, {planned.call}, which"
    tools = [f"{name} {count} x" for name, count in planned.tools.items() if name not in swap]
    models = [f"{name} {counted(count, 'turn')}" for name, count in planned.models.items()]
    lines = [
        f"{call} {planned.instead}"
        + (f"; it {planned.recorded}." if planned.instead != "runs again" else "."),
        f"Behind it everything runs, {counted(repeat, 'time')}. In the recorded run that was:",
        f"  tools   {', '.join(tools) or 'none'}",
        f"  models  {', '.join(models) or 'none'}",
        "The agent may call others as well, and all of them do what they do.",
    ]
    if swap:
        lines.append(f"Answered and not run: {', '.join(swap)}.")
    if undecorated:
        lines.append(f"Run before it as well, since they are not decorated: {', '.join(undecorated)}.")
    if unknown:
        lines.append(f"The recorded run has no call of {', '.join(unknown)}: look whether that is the name.")
    if planned.cost is not None:
        cost = f"{dollars(planned.cost * repeat)}, which is the recorded rest {counted(repeat, 'time')}"
    else:
        hint = f"a model has no price, or genai-prices is missing; {install_hint('prices')}"
        cost = f"not known: {hint}" if planned.models else "none, unless it asks a model now"
    return [*lines, f"Estimated cost: {cost}."]


def _line(number: int, report: Report) -> str:
    run = report.run
    if run is None:
        return clean(f"{number:>3}  no result: {report.problem.partition(chr(10))[0]}")
    cost = [] if run.cost is None else [dollars(run.cost)]
    told = run.status if run.passed else run.reason
    parts = ["passed    " if run.passed else "not passed", told, *cost, duration(run.seconds * 1000)]
    return clean(f"{number:>3}  {'  '.join(parts)}  {run.trace_id[:_ID]}")


def _print(experiment: Experiment, problems: Sequence[str], home: Path) -> None:
    runs, (low, high) = experiment.runs, experiment.interval
    click.echo(
        f"\n{experiment.passed} of {counted(len(runs), 'run')} passed: {percent(experiment.passed / len(runs))}, and "
        f"with a confidence of 95 % {percent(low)} to {percent(high)} of all such runs would."
    )
    click.echo(
        f"The recorded run {'passes' if experiment.plan.passed else 'does not pass'} by its own ending."
    )
    if problems:
        click.echo(
            f"{counted(len(problems), 'more run')} without a result: not come to the step, or ended with the process; "
            "not counted."
        )
    for path, count in experiment.paths.items():
        click.echo(clean(f"{count} of {len(runs)}: {path}"))
    if cost := experiment.cost:
        click.echo(f"What ran cost {dollars(cost)}.")
    for note in dict.fromkeys(note for run in runs for note in run.notes):
        click.echo(clean(note))
    last: ExperimentRun = runs[-1]
    if last.trace_id:
        both = [experiment.plan.source, last.trace_id]
        dashes = ["--"] if any(each.startswith("-") for each in both) else []
        click.echo(clean(f"Side by side: {command_line('diff', *dashes, *both, home=home)}"))


def _told(experiment: Experiment, problems: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(experiment)
    more = {
        "passed": experiment.passed,
        "share": experiment.passed / len(experiment.runs),
        "interval": [*experiment.interval],
        "paths": experiment.paths,
        "cost": experiment.cost,
        "problems": [*problems],
    }
    return {**told, **more}
