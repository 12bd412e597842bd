"""A traced function is a real function, of the module and with the flags of the function that it traces."""

from __future__ import annotations

import asyncio
import dis
import doctest
import inspect
import json
import pickle
import subprocess
import sys
import types
import typing
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import cloudpickle
import joblib
import pytest
from recorded import Recorded, frames_of_ours, tool

from whyops_trace import traced_embedding, traced_llm, traced_tool
from whyops_trace._calls import restored
from whyops_trace.testing import capture_events

DECORATORS = pytest.mark.parametrize("decorate", [traced_tool, traced_llm, traced_embedding])


class Question:
    """A class that annotations name as a text."""


def plain(question: Question, count: int = 1) -> list[Question]:
    """
    Repeat a question.

    >>> plain(5)
    [5]
    """
    return [question] * count


async def coroutine(question: Question, count: int = 1) -> list[Question]:
    """Repeat a question, later."""
    return [question] * count


def generator(question: Question) -> Iterator[Question]:
    """Repeat a question, in turn."""
    yield question


async def agenerator(question: Question) -> AsyncIterator[Question]:
    """Repeat a question, in turn and later."""
    yield question


BARE = [plain, coroutine, generator, agenerator]
KINDS = pytest.mark.parametrize("bare", BARE, ids=[bare.__name__ for bare in BARE])


@DECORATORS
@KINDS
def test_a_traced_function_is_a_function_of_the_same_module(decorate: Any, bare: Any) -> None:
    """Whoever reads its globals, flags, file or line sees those of the function."""
    traced = decorate(bare)
    goes_on = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

    assert type(traced) is FunctionType
    assert traced.__globals__ is bare.__globals__
    assert traced.__code__.co_flags & goes_on == bare.__code__.co_flags & goes_on
    assert traced.__code__.co_filename == __file__
    assert traced.__code__.co_firstlineno == bare.__code__.co_firstlineno
    assert not {"LOAD_GLOBAL", "LOAD_NAME"} & {step.opname for step in dis.get_instructions(traced)}
    assert not inspect.ismethod(traced.__call__)


@KINDS
def test_annotations_in_text_are_resolved_by_its_globals(bare: Any) -> None:
    """As frameworks do that look into the globals themselves."""
    traced = traced_tool(bare)
    annotation = inspect.signature(traced).parameters["question"].annotation

    assert eval(annotation, traced.__globals__) is Question
    assert typing.get_type_hints(traced)["question"] is Question
    assert inspect.signature(traced, eval_str=True).parameters["question"].annotation is Question


DOCUMENTED = '''
from whyops_trace import traced_tool

@traced_tool
def one():
    """
    >>> one()
    1
    """
    return 1
'''


def test_doctests_of_traced_functions_are_found() -> None:
    """They are told to be of a module by their globals."""
    module = types.ModuleType("documented")
    exec(DOCUMENTED, vars(module))
    examples = [test for test in doctest.DocTestFinder().find(module, "documented") if test.examples]

    assert [test.name for test in examples] == ["documented.one"]
    assert doctest.DocTestRunner().run(examples[0]).failed == 0


@pytest.mark.parametrize("name", ["BaseException", "whyops_site", "kwargs", "call", "function"])
def test_names_that_a_module_gives_away_do_not_matter(name: str) -> None:
    """A traced function asks the module for nothing, not even for a builtin."""
    namespace: dict[str, Any] = {name: None, "traced_tool": traced_tool}
    exec("@traced_tool\ndef fail(x):\n    raise ValueError(x)\n", namespace)

    with pytest.raises(ValueError, match="bad"):
        namespace["fail"]("bad")


CHILD = """
import asyncio, json, pickle, sys
functions = pickle.loads(sys.stdin.buffer.read())
from whyops_trace.testing import capture_events
with capture_events() as events:
    for function in functions:
        made = function(2)
        if hasattr(made, "__await__"):
            made = asyncio.run(made)
        elif hasattr(made, "__anext__"):
            async def read(items):
                return [item async for item in items]
            made = asyncio.run(read(made))
        elif hasattr(made, "__next__"):
            made = list(made)
print(json.dumps([event["metadata"]["tool"] for event in events if event["eventType"] == "tool_call_request"]))
print(json.dumps([event["content"] for event in events if event["eventType"] == "tool_call_request"]))
"""


def there(functions: Any) -> list[Any]:
    """Return the tools that are recorded when another process calls functions, and the contents of their requests."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=cloudpickle.dumps(functions), capture_output=True, check=True
    )
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def test_functions_pickled_by_value_are_traced_where_they_run() -> None:
    """As notebooks and the like send them: every kind, methods, and with their options."""

    @traced_tool
    def now(x: int, y: int = 1) -> int:
        return x

    @traced_tool(name="renamed", redact=["x"])
    async def later(x: int) -> int:
        return x

    @traced_tool
    def items(x: int) -> Iterator[int]:
        yield x

    @traced_tool
    async def aitems(x: int) -> AsyncIterator[int]:
        yield x

    class Owner:
        @traced_tool
        async def method(self, x: int) -> int:
            return x

    names, contents = there([now, later, items, aitems, Owner().method])

    assert names == ["now", "renamed", "items", "aitems", "method"]
    assert contents[0]["toolCalls"][0]["arguments"] == {"x": 2, "y": 1}
    assert contents[1]["toolCalls"][0]["arguments"] == {"x": "[redacted]"}


def test_functions_that_know_themselves_and_each_other_are_pickled_by_value() -> None:
    """Each is loaded before the other is whole."""
    namespace = {"traced_tool": traced_tool, "__name__": "__main__"}
    exec(
        "@traced_tool\ndef even(n, step=1):\n    return n == 0 or odd(n - step)\n"
        "@traced_tool\ndef odd(n, step=1):\n    return n != 0 and even(n - step)\n",
        namespace,
    )
    names, contents = there([namespace["even"]])

    assert names == ["even", "odd", "even"]
    assert contents[0]["toolCalls"][0]["arguments"] == {"n": 2, "step": 1}


def test_a_function_that_came_by_value_can_be_sent_on(events: Recorded) -> None:
    """Loaded, pickled and loaded again, it is traced all the same."""

    @traced_tool
    def add(a: int, b: int = 1) -> int:
        return a + b

    again = pickle.loads(cloudpickle.dumps(pickle.loads(cloudpickle.dumps(add))))

    assert again(1) == 2
    assert events.rows == tool("add", {"a": 1, "b": 1}, {"result": 2})


def test_a_function_that_another_version_pickled_runs_untraced(
    events: Recorded, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the log says so, once."""

    @traced_tool
    def now(x: int) -> int:
        return x

    @traced_tool
    async def later(x: int) -> int:
        return x

    sent = cloudpickle.dumps((now, later))
    monkeypatch.setattr(restored, "FORMAT", restored.FORMAT + 1)
    now, later = pickle.loads(sent)

    assert (now(1), asyncio.run(later(2))) == (1, 2)
    assert events.rows == []
    assert len(said()) == 1
    assert "another version" in said()[0]


def test_what_an_edited_body_is_known_by_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caches on disk compare the source that they find by the file and the line in the code."""
    path = tmp_path / "edited.py"

    def load(body: str) -> Any:
        code = f"from whyops_trace import traced_tool\n\n\n@traced_tool\ndef answer(x):\n    return {body}\n"
        path.write_text(code)
        module = types.ModuleType("edited")
        module.__file__ = str(path)
        exec(compile(code, str(path), "exec"), vars(module))
        monkeypatch.setitem(sys.modules, "edited", module)
        return joblib.Memory(tmp_path / "cache", verbose=0).cache(module.answer)

    assert load("x + 1")(1) == 2
    assert load("x + 2 ")(1) == 3


def test_a_frame_of_ours_is_at_the_line_of_the_decorator(events: Recorded) -> None:
    """In tracebacks; a recorded stack has none."""

    @traced_tool
    def fail() -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad") as caught:
        fail()
    entry = next(entry for entry in caught.traceback if entry.name == "traced")

    assert str(entry.path) == __file__
    assert entry.lineno + 1 == fail.__code__.co_firstlineno
    assert frames_of_ours(caught.value) == ["traced"]
    assert "in traced" not in events.records[1]["content"]["stack"]


def test_a_generator_that_can_be_awaited_still_can(events: Recorded) -> None:
    """:func:`types.coroutine` makes such functions."""

    @types.coroutine
    def pause(x: int) -> Generator[None, None, int]:
        yield
        return x

    traced = traced_tool(pause)

    async def main() -> int:
        return await traced(5)

    assert asyncio.run(main()) == 5
    assert traced.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE


def test_a_function_marked_as_a_coroutine_function_stays_one(events: Recorded) -> None:
    """A plain function that says it returns a coroutine."""
    if sys.version_info < (3, 12):
        pytest.skip("Python 3.12 has the mark")

    async def later(x: int) -> int:
        return x

    @traced_tool
    @inspect.markcoroutinefunction
    def ask(x: int) -> Any:
        return later(x)

    assert inspect.iscoroutinefunction(ask)
    assert asyncio.run(ask(1)) == 1
    assert events.rows == tool("ask", {"x": 1}, {"result": 1})


def test_functions_are_told_apart_by_what_looks_at_two_at_once() -> None:
    """Each is itself; equal to no other, and hashed as an object."""
    one, two = traced_tool(plain), traced_tool(plain)

    assert one != two
    assert {one: 1}[one] == 1
    with capture_events() as records:
        one(Question())
    assert len(records) == 2
