"""
One trace as a file: the page with all the data that it would fetch from its server. It opens anywhere, without network.

Modules are data URLs in the import map. The policy in the page allows only the scripts that it names by their hashes,
and the modules that those import. It allows no fetching.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import sys
from collections.abc import Iterable
from typing import Any, Final

from markupsafe import Markup

from whyops_trace.server.assets import Assets, Renderer
from whyops_trace.server.readings import Reading, read
from whyops_trace.server.texts import texts
from whyops_trace.server.trace_page import page, shape
from whyops_trace.server.transcript import WHOLE, Transcript, chunks
from whyops_trace.store import Store

# A script that a named script adds to the page may run, and so may its imports; one in the markup may not.
_START: Final = """
document.addEventListener("DOMContentLoaded", () => {
  const map = document.querySelector('script[type="importmap"]');
  const start = document.createElement("script");
  start.type = "module";
  start.src = JSON.parse(map.textContent).imports["whyops/trace"];
  document.head.append(start);
});
"""
_STYLES: Final = ("base.css", "trace.css")


def offline_page(store: Store, trace_id: str) -> str:
    """
    Return a trace as one HTML file.

    Args:
        store: The store of the trace.
        trace_id: Its id.

    Raises:
        TraceNotFoundError: if there is no trace of that id.
        StoreError: if the store cannot be read.
    """
    reading = read(store, trace_id)
    assets = Assets()
    renderer = Renderer(assets)
    scripts = {
        "import_map": json.dumps({"imports": _modules(assets)}),
        "theme": _text(assets, "theme.js"),
        "start": _START,
    }
    style = "\n".join(_text(assets, name) for name in _STYLES)
    return page(
        reading,
        renderer,
        "",
        template="offline.html",
        packed=_packed(store, reading, renderer),
        policy=_policy(scripts.values(), style),
        style=Markup(style),  # noqa: S704 - a file of this package, like the scripts
        scripts={name: Markup(script) for name, script in scripts.items()},  # noqa: S704
    )


def _text(assets: Assets, name: str) -> str:
    return assets.files[name].decode()


def _modules(assets: Assets) -> dict[str, str]:
    """Return the modules as data URLs, by their names for import."""
    return {
        f"whyops/{name.removesuffix('.js')}": f"data:text/javascript;base64,{base64.b64encode(content).decode()}"
        for name, content in assets.files.items()
        if name.startswith("trace") or name in ("keys.js", "live.js")
        if name.endswith(".js")
    }


def _packed(store: Store, reading: Reading, renderer: Renderer) -> str:
    """Return the data that the page would fetch: base64 of gzip of JSON."""
    events = store.events(reading.summary.trace_id)
    nodes: dict[int, list[int]] = {}
    for number, event in enumerate(events):
        step = event.get("stepId")
        if type(step) is int:
            nodes.setdefault(reading.node(step), []).append(number)
    content: dict[str, Any] = {"records": events, "nodes": nodes, "texts": texts(reading.story)}
    if reading.summary.event_count > WHOLE:
        transcript = Transcript(reading, renderer, "")
        content["sections"] = {
            chunk.first: transcript.sections(chunk.first, chunk.end) for chunk in chunks(reading.story)
        }
        content["skeleton"] = json.loads(shape(reading, limit=sys.maxsize, previewed=sys.maxsize))
    packed = gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0)
    return base64.b64encode(packed).decode()


def _policy(scripts: Iterable[str], style: str) -> str:
    hashes = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {hashes} 'strict-dynamic'; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
