"""
Access to this server, and the limits on a browser's use of its answers.

Any page that a user visits may attack a viewer of traces: it can send requests to 127.0.0.1, and can point a name of
its own there (DNS rebinding). So the Host of each request has to be a known one. A request that another origin makes a
browser send is refused, unless it merely opens a page. No answer may be framed, read by other origins, or run a script
that is not a file of this package.
"""

from __future__ import annotations

import base64
import binascii
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

#: The names of this machine for itself.
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
#: Beginning of the name of the cookie for a browser that has shown the key. The rest depends on the key.
COOKIE: Final = "whyops_viewer"
#: Seconds until a browser has to show the key again.
_REMEMBERED: Final = 30 * 86_400
#: Largest number of bytes of a form.
_FORM_BYTES: Final = 4_096
#: Paths that need no key: the style of the page that asks for it, and whether the server lives.
_OPEN: Final = "/static/"
_HEALTH: Final = "/api/health"
#: Header of those who may know what server this is, with the word for that.
_INTRODUCTION: Final = "x-whyops-token"
#: Paths of the API: SDKs show the key with each request, and a refusal has the form of a WhyOps server's.
_API: Final = ("/api/", "/v1/")
#: A host with its port, without characters that begin a path, a query or another host in an address.
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]*)?", re.IGNORECASE)


def hostname(authority: str) -> str:
    """Return the host in ``host:port``, in lower case; "" if the text is not of that form."""
    match = _AUTHORITY.fullmatch(authority)
    return match[1].strip("[]").lower() if match else ""


class Access:
    """
    Middleware around the whole application.

    Args:
        app: The protected application.
        renderer: Renderer of the page that asks for the key.
        hosts: The names that the server answers to.
        key: The key that each request has to show, "" if none is needed.
        token: The word of those who may know what server this is, beside those who have the key; "" if there is none.
    """

    def __init__(
        self, app: ASGIApp, renderer: Renderer, hosts: Collection[str], key: str = "", token: str = ""
    ) -> None:
        self._app = app
        self._renderer = renderer
        self._hosts = frozenset(hostname(host) or host.lower() for host in hosts)
        self._key = key
        self._token = token
        self._headers = _headers(renderer.assets.import_map_hash)
        # Not the key, and nothing that reveals it; the same after a restart.
        self._pass = hmac.digest(key.encode(), b"whyops-trace viewer", "sha256").hex() if key else ""
        # A browser sends a cookie to all ports of a host, so each server has a cookie name of its own.
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
        answer = self._refusal(request) or self._health(request) or await self._without_key(request)
        await (answer or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """Return the refusal of a request with an unknown host or from another origin, None for any other."""
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

    def _health(self, request: Request) -> Response | None:
        """Return the answer to a stranger who wants to know how the server is: that it lives, and no more."""
        if request.scope["path"] != _HEALTH or request.method != "GET":
            return None
        if self._shows_token(request) or (self._key and _has_key(request.headers, self._key)):
            return None
        return JSONResponse({"status": "healthy"})

    def _shows_token(self, request: Request) -> bool:
        is_health = request.scope["path"] == _HEALTH  # which is all that the token is for
        return is_health and bool(self._token) and _same(request.headers.get(_INTRODUCTION, ""), self._token)

    async def _without_key(self, request: Request) -> Response | None:
        """Return the answer to a request that does not show the key, None if it shows the key or needs none."""
        path: str = request.scope[
            "path"
        ]  # the path that routes match; a URL would also be made of the Host header
        if not self._key or path.startswith(_OPEN) or self._shows_token(request):
            return None
        if _has_key(request.headers, self._key):
            return None
        if request.method == "POST" and path == "/login":
            return await self._log_in(request)
        is_page = not path.startswith(_API)
        if is_page and _same(request.cookies.get(self._cookie, ""), self._pass):
            return None
        if is_page and request.method in ("GET", "HEAD"):
            return self._ask_for_key(request)
        return JSONResponse({"error": "Unauthorized: Authentication required"}, 401)

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
        # The path as sent: a slash in the id of a trace does not separate folders.
        target = request.scope["raw_path"].decode("latin-1") + (f"?{rest}" if rest else "")
        keys = [value for name, value in query if name == "key"]
        if request.method == "GET" and any(_same(value, self._key) for value in keys):
            return self._admitted(request, target)
        return self._renderer.page("login.html", 401, next=_local(target), wrong=bool(keys))

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
        (
            "referrer-policy",
            "same-origin",
        ),  # with none, a browser says of its own forms that they come from nowhere
        ("x-dns-prefetch-control", "off"),  # the names in links are asked for when one is followed
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    )


def _is_foreign(method: str, headers: Headers, host: str) -> bool:
    """Return True if a page of another origin makes a browser send this, unless it opens a page of this server."""
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


def _has_key(headers: Headers, key: str) -> bool:
    """
    Return True if the key is in the headers that SDKs use.

    Exporters of OpenTelemetry that know Basic alone show it as the password, or as the user.
    """
    authorization = headers.get("authorization")
    if authorization is not None:
        return _same(authorization, f"Bearer {key}") or any(
            _same(part, key) for part in _basic(authorization)
        )
    return _same(headers.get("x-api-key", ""), key)


def _basic(authorization: str) -> Sequence[str]:
    """Return the user and the password of Basic authentication, nothing for any other."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        decoded = base64.b64decode(encoded, validate=True).decode() if scheme.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        return ()
    user, _, password = decoded.partition(":")
    return [part for part in (user, password) if part]


def _same(one: str, other: str) -> bool:
    # Digests are compared, so that neither the time nor a text that cannot be compared reveals anything.
    digests = (hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (one, other))
    return hmac.compare_digest(*digests)


def _local(target: str) -> str:
    """Return the address of a page of this server as it is, the address of the first page for any other."""
    # "//host" and "/\host" lead to another server.
    return (
        target if target.startswith("/") and target[1:2] not in ("/", "\\") and target.isprintable() else "/"
    )
