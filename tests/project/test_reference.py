"""The reference on the site is complete: each public name has an entry there, and each has a docstring."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, ParamSpec, TypeVar

import pytest
from programs import ROOT

import whyops_trace

#: The site takes some seconds to build, and much longer where many tests run at once.
pytestmark = pytest.mark.timeout(600)

#: Modules without an underscore that no program imports, and why.
NOT_IMPORTED = {
    "__main__": "python -m whyops_trace runs it",
    "cli": "the command whyops-trace runs it",
    "commands": "the command line has them",
    "demo": "whyops-trace demo runs it",
    "server": "whyops-trace serve runs it",
    "pytest_plugin": "pytest loads it",
    "providers": "WhyOps.openai() and WhyOps.anthropic() use it",
}
#: Packages whose modules are imported one by one. Any other is imported as a whole: its modules are its parts.
COLLECTIONS = {"whyops_trace", "whyops_trace.exporters", "whyops_trace.integrations"}


def modules(package: ModuleType = whyops_trace) -> Iterator[ModuleType]:
    """Yield the public modules."""
    yield package
    if package.__name__ in COLLECTIONS:
        for found in pkgutil.iter_modules(package.__path__):
            if not found.name.startswith("_") and found.name not in NOT_IMPORTED:
                yield from modules(importlib.import_module(f"{package.__name__}.{found.name}"))


def names(module: ModuleType) -> list[str]:
    """Return the public names of a module: those it lists, else those it defines."""
    found = [name for node in ast.parse(inspect.getsource(module)).body for name in defined(node)]
    own = [
        name
        for name in dict.fromkeys(found)
        if not name.startswith("_") and not isinstance(getattr(module, name), TypeVar | ParamSpec)
    ]
    return getattr(module, "__all__", own)


def defined(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement defines."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))


#: Every public name with its module and what it stands for.
PUBLIC = [(module.__name__, name, getattr(module, name)) for module in modules() for name in names(module)]
#: The public classes of the package, each by its first name.
CLASSES = {value: name for _, name, value in reversed(PUBLIC) if inspect.isclass(value)}


def addresses(name: str, value: Any) -> set[str]:
    """Return where programs can import what a name stands for."""
    return {f"{module}.{other}" for module, other, same in PUBLIC if other == name and same is value}


def places(kind: type) -> set[str]:
    """Return the addresses under which a member of a class may stand: its own, and those of its public bases."""
    bases = [base for base in inspect.getmro(kind) if base in CLASSES]
    return {address for base in bases for address in addresses(CLASSES[base], base)}


def members(owner: type) -> set[str]:
    """Return the public members of a class, inherited ones too where their class is not public itself."""
    sources = [
        base
        for base in inspect.getmro(owner)
        if base.__module__.startswith("whyops_trace") and (base is owner or base not in CLASSES)
    ]
    found = {
        name for base in sources for name in [*vars(base), *inspect.get_annotations(base), *assigned(base)]
    }
    return {name for name in found if not name.startswith("_")}


@cache
def assigned(owner: type) -> set[str]:
    """Return the attributes that the constructor of a class gives its objects."""
    constructor = vars(owner).get("__init__")
    if not isinstance(constructor, FunctionType) or "<string>" in constructor.__code__.co_filename:
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(constructor)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Build the site; return where it is, and what is wrong with it."""
    place = tmp_path_factory.mktemp("site")
    plain = ["-D", "html_theme=basic"]  # takes half of the time
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", *plain, ROOT / "docs", place],
        capture_output=True,
        text=True,
        check=False,
    )
    return place, done.stdout + done.stderr


@pytest.fixture(scope="session")
def entries(site: tuple[Path, str]) -> set[str]:
    """Return the Python names in the inventory of the site."""
    from sphinx.util.inventory import InventoryFile

    with (site[0] / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    return {name for kind, found in inventory.items() if kind.startswith("py:") for name in found}


def test_nothing_is_wrong_with_the_site(site: tuple[Path, str]) -> None:
    """Every link and every name in it leads somewhere, and every page is in its navigation."""
    place, warnings = site

    assert warnings == ""
    assert (place / "index.html").exists()


def test_every_public_module_has_an_entry(entries: set[str]) -> None:
    """The package, and what programs import of it."""
    public = {module.__name__ for module in modules()}

    assert {"whyops_trace", "whyops_trace.client", "whyops_trace.exporters.local"} <= public
    assert public - entries == set()


def test_every_public_name_has_an_entry(entries: set[str]) -> None:
    """Under one of its addresses: what is imported from the package itself stands under that one."""
    missing = [f"{module}.{name}" for module, name, value in PUBLIC if not entries & addresses(name, value)]

    assert {"WhyOps", "capture_events", "LocalExporter"} <= {name for _, name, _ in PUBLIC}
    assert missing == []


def test_every_public_member_of_a_class_has_an_entry(entries: set[str]) -> None:
    """Methods, properties, fields and attributes."""
    missing = [
        f"{owner}.{member}"
        for kind, owner in CLASSES.items()
        for member in sorted(members(kind))
        if not entries & {f"{address}.{member}" for address in places(kind)}
    ]

    assert {"trace", "flush_sync", "settings"} <= members(whyops_trace.WhyOps)
    assert {"user_message", "user_message_sync", "id"} <= members(whyops_trace.Trace)
    assert {"promptTokens", "totalTokens"} <= members(whyops_trace.TokenUsage)
    assert missing == []


def test_everything_public_that_can_be_called_has_a_docstring() -> None:
    """Classes, functions, methods and properties; of both faces each has its own."""
    called: dict[str, Any] = {
        f"{module}.{name}": value
        for module, name, value in PUBLIC
        if inspect.isclass(value) or inspect.isroutine(value)
    }
    for kind, owner in CLASSES.items():
        for member in members(kind):
            value = inspect.getattr_static(kind, member, None)
            if isinstance(value, FunctionType | classmethod | staticmethod | property):
                called[f"{owner}.{member}"] = value

    assert {"WhyOps.flush", "WhyOps.flush_sync", "Exporter.export"} <= called.keys()
    assert [name for name, value in called.items() if not value.__doc__] == []


def test_the_page_of_the_package_names_everything_in_it() -> None:
    """With the page that tells more."""
    page = (ROOT / "docs" / "reference" / "api" / "whyops_trace.md").read_text(encoding="utf-8")

    assert [
        name for name in whyops_trace.__all__ if f"`{name}`" not in page and f":: {name}" not in page
    ] == []
