"""The names users import, what importing costs, and that the types say what the code does."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import whyops_trace
from whyops_trace.exceptions import WhyOpsError

#: ``__all__`` of PyPI whyops 0.1.1.
ORIGINAL = [
    "AgentInfo", "AgentMetadata", "AgentTool", "ErrorContent", "EventOptions", "EventType", "LLMResponseContent",
    "LLMThinkingContent", "MessageItem", "TokenUsage", "ToolCallItem", "ToolCallPair", "UserMessageMetadata", "WhyOps",
    "WhyOpsTrace",
]  # fmt: skip
#: Fields of its TypedDicts.
FIELDS = {
    "AgentInfo": {"agentId", "agentVersionId", "status", "versionHash"},
    "AgentMetadata": {"systemPrompt", "description", "tools"},
    "AgentTool": {"name", "inputSchema", "outputSchema", "description"},
    "ErrorContent": {"message", "status", "stack"},
    "EventOptions": {
        "span_id", "step_id", "parent_step_id", "timestamp", "idempotency_key", "external_user_id",
    },
    "LLMResponseContent": {"content", "toolCalls", "finishReason"},
    "LLMThinkingContent": {"type", "thinking", "signature"},
    "MessageItem": {"role", "content"},
    "TokenUsage": {
        "promptTokens", "completionTokens", "totalTokens", "cacheReadTokens", "cacheCreationTokens",
    },
    "ToolCallItem": {"id", "function"},
    "ToolCallPair": {"name", "arguments"},
    "UserMessageMetadata": {"systemPrompt", "tools", "params"},
}  # fmt: skip


def run(program: str) -> Any:
    """Return what a fresh interpreter prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def test_every_public_name_can_be_had() -> None:
    """``__all__`` lists what there is, each once, and ``dir`` shows it."""
    names = whyops_trace.__all__

    assert len(set(names)) == len(names)
    assert set(names) <= set(dir(whyops_trace))
    assert all(getattr(whyops_trace, name) is not None for name in names)


def test_nothing_public_is_missing_from_all() -> None:
    """Whatever a fresh import can give and is no module is listed."""
    public = {name for name in whyops_trace._HOME if not name.startswith("_") or name == "__version__"}

    assert public == set(whyops_trace.__all__)


def test_star_import_gives_the_public_names() -> None:
    """No more, no less."""
    names = run(
        "import json\nbefore = {'before', *dir()}\nfrom whyops_trace import *\n"
        "print(json.dumps(sorted(set(dir()) - before)))"
    )

    assert names == sorted(set(whyops_trace.__all__))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="module 'whyops_trace' has no attribute 'trcae'"):
        whyops_trace.trcae  # noqa: B018


@pytest.mark.parametrize("name", ORIGINAL)
def test_every_name_of_the_original_package_is_there(name: str) -> None:
    """Only the import changes."""
    assert name in whyops_trace.__all__


@pytest.mark.parametrize("name", FIELDS)
def test_typed_dicts_have_the_fields_of_the_original(name: str) -> None:
    """No more, no less; token counts alone tell more here."""
    more = {"TokenUsage": {"reasoningTokens", "cacheWrite1hTokens", "cost"}}

    assert set(getattr(whyops_trace, name).__annotations__) - more.get(name, set()) == FIELDS[name]


def test_public_objects_have_docstrings_and_say_where_they_are() -> None:
    """Everything a user can call is documented."""
    for name in whyops_trace.__all__:
        value = getattr(whyops_trace, name)
        if callable(value) and hasattr(value, "__module__") and value.__module__.startswith("whyops_trace"):
            assert value.__doc__, name


def test_errors_form_one_tree() -> None:
    """All can be caught by their base."""
    errors = [name for name in whyops_trace.__all__ if name.endswith("Error")]

    assert len(errors) == 7
    assert all(issubclass(getattr(whyops_trace, name), WhyOpsError) for name in errors)


HEAVY = ["anyio", "asyncio", "httpx", "msgspec", "sqlite3", "wrapt"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Nor does it start a thread."""
    loaded, threads = run(
        "import json, sys, threading, whyops_trace\n"
        f"print(json.dumps([[m for m in {HEAVY} if m in sys.modules], threading.active_count()]))"
    )

    assert loaded == []
    assert threads == 1


def test_decorating_loads_neither_a_network_nor_a_database() -> None:
    """They come with what needs them."""
    loaded, made = run(
        "import json, sys, os\n"
        "from whyops_trace import traced_tool, traced_llm, trace, step\n"
        "@traced_tool\n"
        "def f(): pass\n"
        f"print(json.dumps([[m for m in {HEAVY} if m in sys.modules], os.path.exists(os.environ['WHYOPS_HOME'])]))"
    )

    assert set(loaded) <= {"asyncio", "msgspec", "wrapt"}  # wrapt itself needs asyncio
    assert made is False


def test_the_version_is_that_of_the_file() -> None:
    """One place holds it."""
    assert whyops_trace.__version__ == importlib.import_module("whyops_trace._version").__version__


def test_types_are_shipped() -> None:
    """Type checkers look for the marker."""
    assert (Path(whyops_trace.__file__).parent / "py.typed").exists()


def test_type_checkers_see_what_the_code_does(tmp_path: Path) -> None:
    """Decorated callables keep their types in every form, and misuse is an error."""
    pytest.importorskip("mypy")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "--no-error-summary",
            "--config-file", "", str(root / "tests" / "typing" / "api.py"),
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )  # fmt: skip

    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_hints_install_extras_from_wherever_the_package_came() -> None:
    """A checkout installs them from itself; the name of an index alone would find nothing, or another package."""
    sources = (Path(whyops_trace.__file__).parent).rglob("*.py")

    assert [path.name for path in sources if "whyops-trace[" in path.read_text(encoding="utf-8")] == []
