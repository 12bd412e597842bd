"""The files of pages, and the rendering of pages. Nothing is built, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from whyops_trace.server.rendering import extend

_HERE: Final = Path(__file__).parent
#: Cache header of a file, whose address changes with its content.
_FOR_EVER: Final = "public, max-age=31536000, immutable"
#: Comments that begin a line of a module, with that line, and indentation: a seventh of its bytes when compressed.
_UNSENT: Final = re.compile(rb"^\s*(?://.*|/\*\*.*\*/|/\*\*\n(?:\s*\*.*\n)*?\s*\*/)\n|^[ \t]+", re.MULTILINE)


class Assets:
    """
    The style sheets and modules in ``static``, read once.

    Each is served below ``/static`` at an address with a hash of its content. Modules import one another by names
    such as ``whyops/live``. An import map in the page maps these names to the addresses, so that a page can also embed
    the modules.

    Attributes:
        files: Name and content of each file.
        import_map: The import map of all modules, as JSON.
        import_map_hash: The hash of that script for a content security policy.
    """

    def __init__(self, folder: Path = _HERE / "static") -> None:
        self.files: Mapping[str, bytes] = {path.name: _content(path) for path in sorted(folder.iterdir())}
        self._tags = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in self.files.items()}
        modules = {
            f"whyops/{name.removesuffix('.js')}": self.url(name)
            for name in self.files
            if name.endswith(".js")
        }
        self.import_map: str = json.dumps({"imports": modules})
        digest = hashlib.sha256(self.import_map.encode()).digest()
        self.import_map_hash: str = f"sha256-{base64.b64encode(digest).decode()}"

    def url(self, name: str) -> str:
        """
        Return the address of a file.

        Raises:
            KeyError: if there is no file of that name.
        """
        return f"/static/{name}?v={self._tags[name]}"

    def route(self) -> Route:
        """Return the route that serves the files."""
        return Route("/static/{name}", self._serve)

    async def _serve(self, request: Request) -> Response:
        name = request.path_params["name"]
        content = self.files.get(name)
        if content is None:
            return PlainTextResponse("There is no such file.", 404)
        tag = self._tags[name]
        headers = {"etag": f'"{tag}"'}
        # At the address of an earlier version a browser must revalidate.
        headers["cache-control"] = _FOR_EVER if request.query_params.get("v") == tag else "no-cache"
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(content, headers=headers, media_type=kind)


def _content(path: Path) -> bytes:
    """Return a file as it is sent: a module goes without indentation and the comments that begin a line."""
    content = path.read_bytes()
    return _UNSENT.sub(b"", content) if path.suffix == ".js" else content


class Renderer:
    """
    The templates of pages, in which everything is escaped that is not marked as safe.

    In each template ``asset(name)`` is the address of a file in ``static``, and ``annotate`` the word of forms.

    Args:
        assets: The files.
        annotate: The word that the forms of pages hold; "" for pages without forms, which only read.
    """

    def __init__(self, assets: Assets, annotate: str = "") -> None:
        self.assets = assets
        self._environment = extend(
            Environment(
                loader=FileSystemLoader(_HERE / "templates"),
                autoescape=True,
                undefined=StrictUndefined,
                trim_blocks=True,
                lstrip_blocks=True,
                auto_reload=False,
            )
        )
        self._environment.globals.update(asset=assets.url, import_map=assets.import_map, annotate=annotate)

    def compile(self) -> None:
        """Compile all templates now, so that the first page that needs one does not wait for it."""
        for name in self._environment.list_templates():
            self._environment.get_template(name)

    def text(self, template: str, **context: Any) -> str:
        """Return a filled template, such as a part of a page."""
        return self._environment.get_template(template).render(context)

    def page(self, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """Return a filled template as an answer, which a browser may cache but must revalidate."""
        return HTMLResponse(self.text(template, **context), status, {"cache-control": "no-cache"})
