"""The documentation is true: its code runs, its trees are what is printed, and it names all there is to know."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, get_args

import click
import pytest
from programs import DEMO, ROOT, run
from provider import Provider
from receiver import Receiver
from replies import Reply, ToolCall
from runs.installed import is_here

from whyops_trace import Trace, WhyOps, events
from whyops_trace._calls.kinds import Embedding, Llm, Tool
from whyops_trace._checks import check_options
from whyops_trace._home import (
    REJECTED_FILE,
    SEARCH_FILE,
    SERVER_FILE,
    SPANS_FILE,
    SPANS_OUT_FILE,
    STORE_FILE,
)
from whyops_trace.cli import main
from whyops_trace.commands import serving
from whyops_trace.exceptions import UnknownOptionError
from whyops_trace.types import DropReason, EventOptions

DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    *sorted(DOCS.rglob("*.md")),
]
#: Pages whose trees are those of the code above them, run as ``agent.py``.
WITH_TREES = [DOCS / "tutorial.md"]
#: Pages of frameworks that are run by a session of their own; some of these warn of things of theirs.
FRAMEWORKS = DOCS / "how-to" / "frameworks"
#: Packages that the code of a page needs beside those of all tests.
NEEDS = {
    "docs/how-to/langchain.md": "langchain_openai",
    "docs/how-to/mcp.md": "mcp.server.mcpserver",
    "docs/how-to/openai-agents.md": "agents",
    "docs/how-to/opentelemetry.md": "opentelemetry.sdk",
    "docs/how-to/frameworks/ag2.md": "ag2",
    "docs/how-to/frameworks/crewai.md": "crewai",
    "docs/how-to/frameworks/dspy.md": "dspy",
    "docs/how-to/frameworks/google-adk.md": "google.adk",
    "docs/how-to/frameworks/haystack.md": "haystack_integrations.tracing.opentelemetry",
    "docs/how-to/frameworks/litellm.md": "litellm",
    "docs/how-to/frameworks/llama-index.md": "llama_index.core.agent",
    "docs/how-to/frameworks/pydantic-ai.md": "pydantic_ai",
    "docs/how-to/frameworks/smolagents.md": "openinference.instrumentation.smolagents",
    "docs/how-to/frameworks/strands.md": "strands",
}
#: What keeps frameworks from asking servers outside.
ALONE = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
#: What the model says to the code of a page, instead of the same again and again.
SAYS = {
    **{
        f"docs/how-to/frameworks/{name}.md": [
            Reply(tool_calls=(ToolCall("track", {"parcel": 7}, "call_1"),)), Reply("It is in Bonn."),
        ]
        for name in ("ag2", "crewai", "google-adk", "haystack", "litellm", "llama-index", "pydantic-ai", "strands")
    },
    "docs/how-to/frameworks/smolagents.md": [
        Reply(tool_calls=(ToolCall("track", {"parcel": 7}, "call_1"),)),
        Reply(tool_calls=(ToolCall("final_answer", {"answer": "It is in Bonn."}, "call_2"),)),
    ],
    "docs/how-to/frameworks/dspy.md": [
        Reply("[[ ## next_thought ## ]]\nLook.\n[[ ## next_tool_name ## ]]\ntrack\n"
              '[[ ## next_tool_args ## ]]\n{"parcel": 7}\n[[ ## completed ## ]]'),
        Reply("[[ ## next_thought ## ]]\nDone.\n[[ ## next_tool_name ## ]]\nfinish\n"
              "[[ ## next_tool_args ## ]]\n{}\n[[ ## completed ## ]]"),
        Reply("[[ ## reasoning ## ]]\nI looked.\n[[ ## answer ## ]]\nBonn\n[[ ## completed ## ]]"),
    ],
    "docs/how-to/langchain.md": [
        Reply(tool_calls=(ToolCall("track", {"parcel": 7}, "call_1"),)), Reply("It is in Bonn."),
    ],
    "docs/how-to/openai-agents.md": [
        Reply(tool_calls=(ToolCall("track", {"parcel": 7}, "call_1"),)),
        Reply(tool_calls=(ToolCall("transfer_to_writer", {}, "call_2"),)),
        Reply("It is in Bonn."),
    ],
}  # fmt: skip


def place(page: Path) -> str:
    """Return where a page is in the repository."""
    return page.relative_to(ROOT).as_posix()


def text(name: str) -> str:
    """Return a page of the documentation."""
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language in a page."""
    return re.findall(
        rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def program(page: Path, folder: Path) -> Path:
    """Write the Python blocks of a page, in order, as a program."""
    path = folder / "agent.py"
    path.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    return path


def settled(tree: str) -> list[str]:
    """Return the lines of a tree without what differs from run to run: times, and the room around them."""
    return [" ".join(re.sub(r"<?[\d.]+ (ms|s)\b", "T", line).split()) for line in tree.strip().splitlines()]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=place)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """All its blocks, one after the other, as one program; the providers that it asks are on this machine."""
    done = run_page(page, tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or FRAMEWORKS in page.parents


def run_page(page: Path, folder: Path) -> CompletedProcess[str]:
    """Run the code of a page, if what it needs is installed."""
    if (package := NEEDS.get(place(page))) and not is_here(package):
        pytest.skip("an extra, or the session `integrations` or `framework_runs` of nox, installs it")
    quiet = ("-W", "ignore") if FRAMEWORKS in page.parents else ()
    with Provider() as provider, Receiver() as receiver:
        provider.reply(*SAYS.get(place(page), ()))
        # LlamaIndex has an older name for the place of OpenAI's API.
        about = {**provider.environment, "OPENAI_API_BASE": provider.openai_url, **ALONE}
        about["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url
        return run(*quiet, program(page, folder), home=folder / "home", **about)


@pytest.mark.parametrize("page", SAYS)
def test_the_tree_of_a_framework_is_what_its_code_leaves(page: str, tmp_path: Path) -> None:
    """Line by line, what each call is."""
    run_page(ROOT / page, tmp_path)
    (shown,) = blocks(ROOT / page, "text")
    printed = run("-m", "whyops_trace", "show", "parcel-7", home=tmp_path / "home").stdout

    assert [signed(line) for line in printed.splitlines()] == [signed(line) for line in shown.splitlines()]


def signed(line: str) -> str:
    """Return the sign and the name of a node on its line, with the guides before them."""
    return next(iter(re.findall(r"^[ │├└─]*[●⚒✦✗] \w+(?: \w+)?", line)), "")


@pytest.mark.parametrize("page", WITH_TREES, ids=place)
def test_the_trees_of_a_page_are_what_its_code_leaves(page: Path, tmp_path: Path) -> None:
    """But for the times."""
    run(program(page, tmp_path), home=tmp_path / "home")
    shown = blocks(page, "text")
    names = [tree.split(" ", 1)[0] for tree in shown]
    printed = [run("-m", "whyops_trace", "show", name, home=tmp_path / "home").stdout for name in names]

    assert len(shown) > 1
    assert [settled(tree) for tree in printed] == [settled(tree) for tree in shown]


def test_the_tree_in_the_readme_is_that_of_the_demo() -> None:
    """Line by line, what each call is and whether it failed."""
    (tree,) = blocks(ROOT / "README.md", "text")
    header, *lines = tree.splitlines()
    signs = {"step": "●", "tool": "⚒", "llm": "✦"}
    expected = [f"{'✗' if status == 'error' else signs[kind]} {name}" for _, kind, name, status in DEMO]
    shown = [match[0] for line in lines if (match := re.search(r"[●⚒✦✗] [a-z_]+( [a-z]+)*", line))]

    assert header.startswith("demo-")
    assert [name[: len(whole)] for name, whole in zip(shown, expected, strict=True)] == expected


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    """To a file of the repository, and to a heading that it has."""
    links = re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8"))
    missing = []
    for target, heading in links:
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (heading and heading not in headings(path)):
            missing.append((target, heading))

    assert missing == []


def headings(page: Path) -> set[str]:
    """Return the headings of a page as they are linked to."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_a_page_begins_with_its_title_and_a_sentence(page: Path) -> None:
    """Plain prose, before anything else."""
    title, empty, first, *_ = page.read_text(encoding="utf-8").splitlines()

    assert re.fullmatch(r"# \S.*", title)
    assert empty == ""
    assert re.fullmatch(r"[A-Za-z`\[].*[.?]", first)
    assert not first.startswith("```")


def test_the_navigation_of_the_site_is_the_list_on_its_first_page() -> None:
    """The same parts, and the same pages in the same order."""
    page = text("index.md")
    shown = {
        heading: re.findall(r"^- \[.*?\]\((.*?)\)", section, re.MULTILINE)
        for heading, section in re.findall(r"^## (.*)\n((?:(?!#|```).*\n)*)", page, re.MULTILINE)
    }
    trees = {
        caption: entries.split()
        for caption, entries in re.findall(r"^:caption: (.*)\n\n((?:\S+\n)*)```$", page, re.MULTILINE)
    }

    assert list(shown) == ["Tutorial", "How-to", "Reference", "Explanation"]
    assert trees == shown


def test_every_argument_and_environment_variable_of_the_client_is_explained() -> None:
    """On the page of the settings."""
    page = text("reference/settings.md")
    arguments = list(inspect.signature(WhyOps).parameters)
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "whyops_trace").rglob("*.py")]
    variables = set(re.findall(r"\bWHYOPS_[A-Z]+(?:_[A-Z]+)*\b", "".join(sources)))

    assert len(variables) >= 8
    assert [name for name in [*arguments, *sorted(variables)] if f"`{name}`" not in page] == []


def test_every_option_of_the_decorators_is_explained() -> None:
    """On the page of the decorators."""
    page = text("how-to/decorators.md")
    options = {option for kind in (Tool, Llm, Embedding) for option in kind.options}

    assert {"enabled", "accumulate", "extract"} <= options
    assert [option for option in sorted(options) if f"| `{option}` |" not in page] == []


def test_every_event_with_its_arguments_and_options_is_explained() -> None:
    """On the page of the events by hand."""
    page = text("how-to/manual-events.md")
    names = [name.removesuffix("_sync") for name in vars(Trace) if name.endswith("_sync")]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    missing = [
        (name, parameter)
        for name in names
        for parameter in inspect.signature(getattr(events, name)).parameters
        if parameter != "options" and f"`{parameter}`" not in rows.get(name, "")
    ]

    assert len(names) == 9
    assert missing == []
    assert [option for option in sorted(EventOptions.__optional_keys__) if option not in rows] == []


def test_every_argument_of_a_trace_is_explained() -> None:
    """On the page of workflows."""
    rows = re.findall(r"^\| `(\w+)` \|", text("how-to/tracing.md"), re.MULTILINE)

    assert rows == [name for name in inspect.signature(WhyOps.trace).parameters if name != "self"]


def test_every_type_of_event_is_explained() -> None:
    """On the page of events."""
    names = [name.removesuffix("_sync") for name in vars(Trace) if name.endswith("_sync")]
    rows = re.findall(r"^\| `(\w+)` \|", text("reference/events.md"), re.MULTILINE)

    assert [name for name in names if name not in rows] == []


def test_every_drop_reason_is_explained() -> None:
    """With when it happens, and what to do."""
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", text("reference/drop-reasons.md"), re.MULTILINE)

    assert rows == list(get_args(DropReason))


def test_every_file_in_the_home_is_explained(tmp_path: Path) -> None:
    """Those that a program leaves, and those that only servers and refusals make."""
    rows = re.findall(r"^\| `([\w./*]+)` \|", text("reference/home.md"), re.MULTILINE)
    run("-m", "whyops_trace", "demo", home=tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    files = {STORE_FILE, SERVER_FILE, REJECTED_FILE, SEARCH_FILE, SPANS_FILE, SPANS_OUT_FILE, serving._FILE}

    assert files <= set(rows)
    assert STORE_FILE in left
    assert left - {row.partition("/")[0] for row in rows} == set()


def test_the_glossary_is_in_order_and_has_the_words_of_opentelemetry() -> None:
    """Each word with what it is, and with OpenTelemetry's word or that there is none."""
    rows = re.findall(
        r"^\| \*\*(.*?)\*\*(.*?) \| (.+) \| (.+) \|$", text("reference/glossary.md"), re.MULTILINE
    )
    words = [(word.strip("`").lower(), which) for word, which, _, _ in rows]

    assert len(words) > 40
    assert words == sorted(words)
    assert [word for word, _, _, other in rows if not other.endswith(".") and "*None" not in other] == []


def test_every_command_with_its_options_is_explained() -> None:
    """On the page of the command line, under a heading of its own."""
    sections = dict(
        re.findall(
            r"^## `whyops-trace ([\w-]+)`\n(.*?)(?=^## |\Z)",
            text("reference/cli.md"),
            re.MULTILINE | re.DOTALL,
        )
    )
    context = click.Context(main)
    commands: dict[str, Any] = {name: main.get_command(context, name) for name in main.list_commands(context)}
    missing = [
        (name, option)
        for name, command in commands.items()
        for parameter in command.params
        for option in (
            parameter.opts
            if isinstance(parameter, click.Option)
            else [parameter.make_metavar(click.Context(command))]
        )
        if option not in sections.get(name, "")
    ]

    assert sections.keys() == commands.keys()
    assert missing == []


def test_every_command_has_an_example_and_what_looks_at_traces_has_json() -> None:
    """In its help, and on the page of the command line."""
    context = click.Context(main)
    commands: dict[str, Any] = {name: main.get_command(context, name) for name in main.list_commands(context)}
    asked = re.findall(r"whyops-trace ([\w-]+)", "".join(blocks(DOCS / "reference" / "cli.md", "sh")))
    json = {name for name, command in commands.items() if any("--json" in one.opts for one in command.params)}

    assert all(
        f"Example: whyops-trace {name}" in (command.epilog or "") for name, command in commands.items()
    )
    assert set(commands) - set(asked) == set()
    assert set(commands) - json == {"demo", "journal", "test-from"}


def test_an_unknown_option_names_the_known_ones() -> None:
    """The documentation can be looked up from the error."""
    with pytest.raises(UnknownOptionError) as raised:
        check_options({"stepid": 1})

    assert all(option in str(raised.value) for option in EventOptions.__optional_keys__)


def test_the_documentation_is_one_sentence_a_line() -> None:
    """Outside code and tables, so that a change of a sentence is a change of a line."""
    crowded = []
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        lines = [line for line in prose.splitlines() if not line.startswith("|")]
        crowded += [line for line in lines if re.search(r"[a-z`)]\. [A-Z`]", line)]

    assert crowded == []
