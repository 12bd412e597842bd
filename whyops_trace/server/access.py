"""
Who may ask this server, and what a browser may do with its answers.

A viewer of traces is worth attacking from any page that its user visits: such a page can send requests to
127.0.0.1, and can lead a name of its own there (DNS rebinding). So the Host of each request has to be one of ours,
what another origin makes a browser send is refused unless it merely opens a page, and no answer may be framed, read
by others, or run a script that is not a file of ours.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whyops_trace.server.assets import Renderer

#: The names under which this machine reaches itself.
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
#: How the cookie begins of a browser that has shown the key; the rest differs from key to key.
COOKIE: Final = "whyops_viewer"
#: Seconds until a browser has to show the key again.
_REMEMBERED: Final = 30 * 86_400
#: Bytes of a form that are read.
_FORM_BYTES: Final = 4_096
#: What needs no key: the style of the page that asks for it, and whether the server is there.
_OPEN: Final = ("/static/", "/api/health")
#: What SDKs call: they show the key with each request, and are told in the words of a WhyOps server.
_API: Final = ("/api/", "/v1/")
#: A host with its port, and nothing that would begin a path, a query or another host where an address is made of it.
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]*)?", re.IGNORECASE)


def hostname(authority: str) -> str:
    """Return the host in ``host:port``, in lower case; "" if it is none."""
    found = _AUTHORITY.fullmatch(authority)
    return found[1].strip("[]").lower() if found else ""


class Access:
    """
    Middleware around the whole application.

    Args:
        app: What is protected.
        renderer: Makes the page that asks for the key.
        hosts: The names the server answers to.
        key: What has to be shown; "" if anyone may ask who reaches the server.
    """

    def __init__(self, app: ASGIApp, renderer: Renderer, hosts: Collection[str], key: str = "") -> None:
        self._app = app
        self._renderer = renderer
        self._hosts = frozenset(hostname(host) or host.lower() for host in hosts)
        self._key = key
        self._headers = _headers(renderer.assets.import_map_hash)
        # Neither the key nor anything it can be told from; the same after a restart.
        self._pass = hmac.digest(key.encode(), b"whyops-trace viewer", "sha256").hex() if key else ""
        # A browser sends a cookie to all ports of a host: each server there finds its own.
        self._cookie = f"{COOKIE}_{hashlib.sha256(self._pass.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the application answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers:
                    headers[name] = value
            await send(message)

        request = Request(scope, receive)
        answer = self._refusal(request) or await self._without_key(request)
        await (answer or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """Return what a request gets that comes from elsewhere."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or hostname(hosts[0]) not in self._hosts:
            return PlainTextResponse(
                f"This server answers to {', '.join(sorted(self._hosts))} only. "
                "If this name is one of its own, start it with --allow-host NAME.\n",
                421,
            )
        if _is_foreign(request.method, request.headers, hosts[0]):
            return PlainTextResponse("This server takes no requests from pages of other servers.\n", 403)
        return None

    async def _without_key(self, request: Request) -> Response | None:
        """Return what a request gets that does not show the key; None for one that needs none, or shows it."""
        path: str = request.scope["path"]  # what routes go by; an address is made of the Host header as well
        if not self._key or path.startswith(_OPEN):
            return None
        if _shown(request.headers, self._key):
            return None
        if path.startswith(_API):
            return JSONResponse({"error": "Unauthorized: Authentication required"}, 401)
        if request.method == "POST" and path == "/login":
            return await self._log_in(request)
        if _same(request.cookies.get(self._cookie, ""), self._pass):
            return None
        return self._ask_for_key(request)

    async def _log_in(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _FORM_BYTES:
                return PlainTextResponse("The form is too large.\n", 413)
        form = parse_qs(body.decode("latin-1"))
        target = form.get("next", ["/"])[0]
        if _same(form.get("key", [""])[0], self._key):
            return self._admitted(request, target)
        return self._renderer.page("login.html", 401, next=_local(target), wrong=True)

    def _ask_for_key(self, request: Request) -> Response:
        query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest = urlencode([(name, value) for name, value in query if name != "key"])
        # As it was sent: a slash in the id of a trace is not one between folders.
        target = request.scope["raw_path"].decode("latin-1") + (f"?{rest}" if rest else "")
        shown = [value for name, value in query if name == "key"]
        if request.method == "GET" and any(_same(value, self._key) for value in shown):
            return self._admitted(request, target)
        return self._renderer.page("login.html", 401, next=_local(target), wrong=bool(shown))

    def _admitted(self, request: Request, target: str) -> Response:
        answer = RedirectResponse(_local(target), 303, {"cache-control": "no-store"})
        answer.set_cookie(
            self._cookie,
            self._pass,
            max_age=_REMEMBERED,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer


def _headers(import_map_hash: str) -> Sequence[tuple[str, str]]:
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' '{import_map_hash}'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    return (
        ("content-security-policy", "; ".join(f"{name} {value}" for name, value in policy.items())),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    )


def _is_foreign(method: str, headers: Headers, host: str) -> bool:
    """Tell whether a page of another origin makes a browser send this, other than to open a page of ours."""
    site = headers.get("sec-fetch-site", "none")
    origin = headers.get("origin")
    if site in ("none", "same-origin") and (origin is None or _netloc(origin) == host.lower()):
        return False
    opens = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return not (opens and origin is None and method in ("GET", "HEAD"))


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _shown(headers: Headers, key: str) -> bool:
    """Tell whether the key is in the headers, where SDKs put it."""
    authorization = headers.get("authorization")
    if authorization is not None:
        return _same(authorization, f"Bearer {key}")
    return _same(headers.get("x-api-key", ""), key)


def _same(one: str, other: str) -> bool:
    # Of digests, so that neither the time it takes nor what cannot be compared tells anything.
    digests = (hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (one, other))
    return hmac.compare_digest(*digests)


def _local(target: str) -> str:
    """Return the address of a page if it is one of this server, else that of the first page."""
    # "//host" and "/\host" lead to another server.
    return (
        target if target.startswith("/") and target[1:2] not in ("/", "\\") and target.isprintable() else "/"
    )
