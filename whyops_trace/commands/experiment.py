"""
One run of an experiment, in a process of its own: ``python -m whyops_trace.commands.experiment ORDER [PROGRAM]``.

``whyops-trace whatif`` starts it, so that each run begins as the program does. The order is a file, and the report is
written to another one, whose name is in it.
"""

from __future__ import annotations

import importlib
import os
import runpy
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any, Final

import msgspec

from whyops_trace._replay.recording import read_calls
from whyops_trace.exceptions import ConfigurationError, ReplayMiss, WhyOpsError
from whyops_trace.replay import Replay
from whyops_trace.whatif import Answer, ExperimentRun, whatif

#: The names of an expectation.
NAMES: Final = frozenset({"run", "result", "answer", "calls"})
_INTERRUPTED: Final = 130
_KILLED: Final = 137


class Order(msgspec.Struct, omit_defaults=True):
    """
    The order for one run.

    Attributes:
        source: The id of the recorded trace.
        step: The step that is answered otherwise.
        report: The file to write.
        alive: The pipe that the command keeps open as long as it lives.
        home: The home of the store.
        answer: The member of an answer, and its value; None if the step runs.
        call: Module and call of what runs the agent, "" for a program.
        expect: Expression that is true for a run that passes, "" for none.
        check: Module and function that checks a run, "" for none.
        live: Names of what runs before the step.
        swap: Results by the name of what must not run behind it.
        network: True to leave the network open before it.
    """

    source: str
    step: int
    report: str
    alive: str
    home: str
    answer: tuple[str, Any] | None = None
    call: str = ""
    expect: str = ""
    check: str = ""
    live: list[str] = []
    swap: dict[str, Any] = {}
    network: bool = False


class Report(msgspec.Struct, omit_defaults=True):
    """
    The report of one run.

    Attributes:
        run: The run; None if it did not come to the step.
        problem: Why it did not.
    """

    run: ExperimentRun | None = None
    problem: str = ""


def main(words: Sequence[str]) -> None:
    """Run what an order says, and write its report."""
    order = msgspec.json.decode(Path(words[0]).read_bytes(), type=Order)
    Thread(target=_end_with_command, args=(Path(order.alive),), name="whyops-experiment", daemon=True).start()
    try:
        report = Report(_run(order, words[1:]))
    except (WhyOpsError, ReplayMiss) as error:
        report = Report(problem=str(error))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)  # which the command tells
    Path(order.report).write_bytes(msgspec.json.encode(report))


def _end_with_command(alive: Path) -> None:
    """End this process, in which models are asked and tools run, if the command is killed."""
    pipe = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)  # which waits for nobody, should it be killed by now
    os.set_blocking(pipe, True)
    os.read(pipe, 1)
    shutil.rmtree(alive.parent, ignore_errors=True)
    os._exit(_KILLED)


def _run(order: Order, program: Sequence[str]) -> ExperimentRun:
    experiment = whatif(
        order.source,
        _call(order.call) if order.call else lambda: _program(program),
        step=order.step,
        answer=None if order.answer is None else Answer(**dict([order.answer])),
        check=_check(order),
        live=order.live,
        swap={name: _always(result) for name, result in order.swap.items()},
        network=order.network,
        home=order.home,
    )
    return experiment.runs[0]


def _call(text: str) -> Callable[[], Any]:
    module, _, expression = text.partition(":")
    names = vars(_imported("--call", module))
    return lambda: eval(expression.strip(), names)  # noqa: S307 - what the user typed


def _imported(option: str, module: str) -> ModuleType:
    """
    Return a module of the user's.

    Raises:
        ConfigurationError: if it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ConfigurationError(
            f"{module} of {option} cannot be imported: {type(error).__name__}: {error}. It is looked for in this "
            "directory, and where Python looks."
        ) from error


def _program(words: Sequence[str]) -> None:
    """Run a program as Python does, given its file, or ``-m`` and its module."""
    if words[0] == "-m":
        sys.argv = [*words[1:]]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = [*words]
    sys.path[0] = str(Path(words[0]).resolve().parent)
    runpy.run_path(words[0], run_name="__main__")


def _check(order: Order) -> Callable[[Replay, Any], object] | None:
    if order.check:
        module, _, name = order.check.partition(":")
        found: Callable[[Replay, Any], object] | None = getattr(_imported("--check", module), name, None)
        if found is None:
            raise ConfigurationError(f"{module} of --check has no function {name}.")
        return found
    if not order.expect:
        return None

    def holds(run: Replay, returned: Any) -> bool:
        calls = read_calls(run.events).calls
        texts = [call.answer.get("content") for call in calls if call.kind == "llm" and call.answer]
        names = {
            "run": run,
            "result": returned,
            "answer": next((text for text in reversed(texts) if isinstance(text, str)), ""),
            "calls": Counter(call.name for call in calls),
        }
        # Its own names come among the globals, since comprehensions and lambdas see no others.
        return bool(eval(order.expect.strip(), names))  # noqa: S307 - what the user typed

    return holds


def _always(result: Any) -> Callable[..., Any]:
    return lambda *_, **__: result


if __name__ == "__main__":
    main(sys.argv[1:])
