"""The documentation as a site; ``nox -s docs`` builds it."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any, ParamSpec, TypeVar

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from whyops_trace import Trace, __version__, events

project = "whyops-trace"
author = "WhyOps"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"whyops-trace {version}"
#: Links to headings work as they do on code hosts.
myst_heading_anchors = 4
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

nitpicky = True
nitpick_ignore_regex = [
    # Nothing is fetched for a build, so names of other packages lead nowhere.
    ("py:.*", rf"({'|'.join(sorted(sys.stdlib_module_names))})\..+"),
    ("py:.*", r"(msgspec|typing_extensions)\..+"),
    ("py:class", "BaseCallbackHandler"),  # of LangChain, which a build does not need
    ("py:class", "Context|ReadableSpan|Span"),  # of OpenTelemetry
    # Type variables, which have no entries.
    ("py:class", r"~?(whyops_trace\.[\w.]+\.)?[A-Z](_co)?"),
    # What only the library itself uses is named in some signatures, and is no part of the reference.
    ("py:class", r"whyops_trace\.(\w+\.)*_\w+.*"),
]


def skip_member(
    app: Sphinx, what: str, name: str, member: object, skip: bool, options: object
) -> bool | None:
    """Leave out an attribute that the docstring of its class tells of: napoleon makes an entry of that."""
    here = app.env.current_document
    if what == "class":
        owner = getattr(sys.modules[here.autodoc_module], here.autodoc_class)
        if name in attributes(owner):
            return True
    return True if isinstance(member, TypeVar | ParamSpec) else None


def attributes(owner: type) -> set[str]:
    """Return the names in the section "Attributes" of a class's docstring."""
    section = re.search(r"^Attributes:\n((?:    .*\n|\n)*)", f"{inspect.getdoc(owner)}\n", re.MULTILINE)
    return set(re.findall(r"^    (\w+):", section[1], re.MULTILINE)) if section else set()


def drop_builtin(
    app: Sphinx, what: str, name: str, member: object, options: object, lines: list[str]
) -> None:
    """Drop the docstring of a built-in type from a value of it."""
    if what == "data" and "\n".join(lines).strip() == inspect.getdoc(type(member)):
        lines.clear()


def keep_colons(app: Sphinx, what: str, name: str, member: object, options: object, lines: list[str]) -> None:
    """Say that nothing before a colon is a type, as napoleon takes it to be where an attribute has a sentence."""
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = f": {lines[0]}"


def show_types(app: Sphinx, what: str, name: str, member: object, options: object, lines: list[str]) -> None:
    """Put the type of an attribute behind its name, where napoleon gives it a line of its own."""
    entry = re.compile(r"(\.\. attribute:: \w+\n)((?:\n|   (?!:type:).*\n)*)(   :type: .*\n?)")
    lines[:] = entry.sub(r"\1\3\2", "\n".join(lines)).split("\n")


def show_builder(app: Sphinx, method: Any, bound: bool) -> None:
    """Give an event method of a trace the types of its builder, which makes an ``Event`` of what the method returns."""
    name = getattr(method, "__name__", "")
    builder = vars(events).get(name.removesuffix("_sync"))
    if builder is not None and vars(Trace).get(name) is method:
        (self, *_) = inspect.signature(method).parameters.values()
        built = inspect.signature(builder, eval_str=True)
        (returned,) = built.return_annotation.__args__
        parameters = [self, *built.parameters.values()]
        method.__signature__ = built.replace(parameters=parameters, return_annotation=returned)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> Any:
    """Find a name of the package that is written as in code that has imported it."""
    if node["refdomain"] != "py" or node.get("refspecific"):
        return None
    node["refspecific"] = True
    domain = env.domains.python_domain
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], node["reftarget"], node, content
    )


def setup(app: Sphinx) -> None:
    """Connect what autodoc cannot know."""
    app.connect("autodoc-skip-member", skip_member)
    # Napoleon comes at 500.
    app.connect("autodoc-process-docstring", drop_builtin, priority=300)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.connect("autodoc-process-docstring", show_types, priority=600)
    app.connect("autodoc-before-process-signature", show_builder)
    app.connect("missing-reference", resolve)
