"""Importing beside the host program's threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from programs import run_code

from whyops_trace._loading import load


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Make a package of some text that can be imported, and return its name."""

    def make(text: str) -> str:
        name = tmp_path.name
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
        (tmp_path / name / "part.py").write_text("value = 5")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make


def test_a_client_works_while_the_http_library_is_being_imported(tmp_path: Path) -> None:
    """The first record starts a worker, which needs httpx; that of openai looks whether it is there at each request."""
    code = """
    import sys, threading
    import openai
    from whyops_trace import WhyOps

    importing, called = threading.Event(), threading.Event()
    def hold(event, args):
        if event == "import" and args[0] == "httpx._client":
            importing.set()
            called.wait(2)
    sys.addaudithook(hold)

    client = openai.OpenAI(api_key="sk-test", base_url="http://127.0.0.1:1/v1")
    sdk = WhyOps("whyops_test", agent_name="shop", analyse_base_url="http://127.0.0.1:1")
    with sdk.trace("t") as trace:
        trace.error_sync("the worker starts")
        assert "httpx" in sys.modules or importing.wait(30)
        client.with_options(base_url="http://127.0.0.1:2/v1", timeout=5)
        called.set()
    print(type(sys.modules["httpx"]).__name__)
    sdk.close_sync(0)
    """
    ended = run_code(code, tmp_path)

    assert (ended.returncode, ended.stdout) == (0, "module\n"), ended.stderr


def test_who_looks_meanwhile_waits_until_all_is_there(
    package: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for what a module has from a part of its own, and for what it never has."""
    name = package("import sys; sys.gate.begun.set(); sys.gate.go.wait(30); from .part import value")

    class Gate:
        begun, go = threading.Event(), threading.Event()

    def look(attribute: str) -> object:
        looking.wait()
        return getattr(module, attribute, "nothing")

    looking = threading.Barrier(3)
    monkeypatch.setattr(sys, "gate", Gate, raising=False)
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(load, name)
        Gate.begun.wait(30)
        module = sys.modules[name]
        found = [pool.submit(look, attribute) for attribute in ("value", "other")]
        looking.wait()
        Gate.go.set()
        loading.result()
        seen = [result.result() for result in found]

    assert seen == [5, "nothing"]
    assert type(module) is ModuleType


def test_a_module_that_looks_at_itself_finds_what_it_has(package: Callable[[str], str]) -> None:
    """It does not wait for itself."""
    name = package("import sys\nme = sys.modules[__name__]\nearly = hasattr(me, 'value')\nvalue = 2")
    load(name)

    assert (sys.modules[name].early, sys.modules[name].value) == (False, 2)


@pytest.mark.parametrize("text", ["import there_is_no_such_module", "1 / 0"])
def test_what_cannot_be_imported_raises_each_time(package: Callable[[str], str], text: str) -> None:
    """As an import statement does."""
    name = package(text)
    for _ in range(3):
        with pytest.raises((ImportError, ZeroDivisionError)):
            load(name)

    assert name not in sys.modules
    assert len({id(finder) for finder in sys.meta_path}) == len(sys.meta_path)


def test_a_module_that_does_not_exist_is_named() -> None:
    """The error is that of an import statement."""
    with pytest.raises(ModuleNotFoundError, match="No module named 'there_is_no_such_module'"):
        load("there_is_no_such_module")
