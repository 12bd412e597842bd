"""Who may ask the server: by Host, Origin and key; and what every answer tells a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browser import record, served, tool_call
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from whyops_trace.server.access import Access
from whyops_trace.server.assets import Assets, Renderer

KEY = "whyops_abcdefgh12345678"
GUARDS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-dns-prefetch-control": "off",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
PATHS = [
    "/",
    "/?q=x",
    "/static/base.css",
    "/api/health",
    "/t/nothing",
    "/nothing",
    "/static/nothing",
    "/live/nothing",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one trace."""
    home = tmp_path_factory.mktemp("access")
    record(home, tool_call("checkout-8841"))
    return home


@pytest.fixture
def client(home: Path) -> Iterator[httpx.Client]:
    """A client of a server without a key."""
    with served(home) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture
def locked(home: Path) -> Iterator[httpx.Client]:
    """A client of a server with a key, which it does not know."""
    with served(home, key=KEY) as url, httpx.Client(base_url=url) as client:
        yield client


def test_it_answers_to_the_names_of_this_machine(client: httpx.Client) -> None:
    """Whatever the port, which may be that of a tunnel."""
    names = ["127.0.0.1", "127.0.0.1:1", "localhost", "LocalHost:8765", "[::1]", "[::1]:8765"]

    assert {name: client.get("/", headers={"host": name}).status_code for name in names} == dict.fromkeys(
        names, 200
    )


def test_it_answers_to_no_other_name(client: httpx.Client) -> None:
    """A page that leads its own name to 127.0.0.1 gets nothing, from the collector neither."""
    names = [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "[",
        "@",
    ]
    codes = {
        (name, path): client.get(path, headers={"host": name}).status_code
        for name in names
        for path in ("/", "/api/threads", "/static/base.css", "/live")
    }

    assert set(codes.values()) == {421}, codes
    assert "--allow-host" in client.get("/", headers={"host": "evil.example"}).text


@pytest.mark.parametrize(
    "rest", ["/static/", "/api/health?", "/static/x#", "\\static", "@localhost", "[", ":1:2"]
)
def test_a_host_is_nothing_but_a_host(locked: httpx.Client, rest: str) -> None:
    """What an address would be made of with it would seem to be one that needs no key."""
    answer = locked.get("/api/threads", headers={"host": f"localhost{rest}"})

    assert answer.status_code == 421


def test_it_answers_to_a_name_that_was_allowed(home: Path) -> None:
    """With any port, whichever was named with it."""
    with served(home, allowed_hosts=["Traces.Example", "two.example:8765", "fe80::1"]) as url:
        codes = [
            httpx.get(url, headers={"host": name}).status_code
            for name in ("traces.example", "two.example:80", "[FE80::1]:80", "127.0.0.1", "other.example")
        ]

    assert codes == [200, 200, 200, 200, 421]


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://["},
    ],
    ids=lambda headers: "-".join(headers.values()),
)
def test_pages_of_others_get_nothing(client: httpx.Client, headers: dict[str, str]) -> None:
    """Neither by reading, nor with an address that they show in a frame."""
    assert [client.get(path, headers=headers).status_code for path in ("/", "/api/threads", "/live")] == [
        403
    ] * 3


def test_pages_of_others_send_nothing(client: httpx.Client) -> None:
    """Not even what a form can send without being asked."""
    event = '{"eventType":"error","traceId":"t","agentName":"a","content":{"message":"m"}}'
    headers = {"content-type": "text/plain", "origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    forms = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}

    assert client.post("/api/events", content=event, headers=headers).status_code == 403
    assert client.post("/api/events", content=event, headers=forms).status_code == 403
    assert client.get("/t/t").status_code == 404


def test_a_link_from_elsewhere_opens_a_page(client: httpx.Client) -> None:
    """From a chat, say; and so does an address that is typed."""
    linked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    typed = {**linked, "sec-fetch-site": "none"}

    assert [client.get("/", headers=headers).status_code for headers in (linked, typed)] == [200, 200]


def test_pages_of_ours_may_ask(client: httpx.Client) -> None:
    """A script of ours, with the Origin of the server."""
    headers = {
        "sec-fetch-site": "same-origin",
        "sec-fetch-mode": "cors",
        "origin": str(client.base_url).rstrip("/"),
    }

    assert client.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_guarded(client: httpx.Client, locked: httpx.Client, path: str) -> None:
    """Those of a server without a key, those that ask for it, and those to others."""
    answers = [client.get(path), locked.get(path), client.get(path, headers={"host": "evil.example"})]
    answers.append(client.get(path, headers={"origin": "https://evil.example"}))
    for answer in answers:
        policy = answer.headers["content-security-policy"]

        assert {name: answer.headers[name] for name in GUARDS} == GUARDS
        assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.anyio
async def test_an_internal_error_is_guarded_too() -> None:
    """And tells nothing of the error."""

    async def fail(_: Request) -> None:
        raise RuntimeError("secret")

    guarded = Access(Starlette(routes=[Route("/", fail)]), Renderer(Assets()), {"localhost"})
    transport = httpx.ASGITransport(app=guarded, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/")

    assert (answer.status_code, answer.headers["x-content-type-options"]) == (500, "nosniff")
    assert "secret" not in answer.text


def test_the_policy_knows_the_import_map_of_the_page(client: httpx.Client) -> None:
    """It is the only script in it."""
    scripts = re.findall(r"<script[^>]*>([^<]+)</script>", client.get("/").text)

    assert scripts == [Assets().import_map]
    assert Assets().import_map_hash in client.get("/").headers["content-security-policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/t/x", "/t/x/skeleton", "/t/x/events/1", "/live", "/t/x/live"])
def test_pages_only_show(client: httpx.Client, path: str, method: str) -> None:
    """Whoever wants to delete something uses the command line."""
    assert client.request(method, path).status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd", "/static/..%5capp.py",
     "/static/%00", "/static/.", "/static/"],
)  # fmt: skip
def test_only_static_files_are_static(client: httpx.Client, path: str) -> None:
    """No path leads out of their folder."""
    with client.stream("GET", path) as answer:
        answer.read()

    assert answer.status_code == 404
    assert "import" not in answer.text


def test_static_files_are_kept_by_their_content(client: httpx.Client) -> None:
    """For ever under the address in the page; under any other a browser asks, and is told that nothing changed."""
    address = Assets().url("base.css")
    named, other = client.get(address), client.get("/static/base.css?v=old")
    again = client.get("/static/base.css", headers={"if-none-match": other.headers["etag"]})

    assert named.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert named.headers["content-encoding"] == "gzip"
    assert other.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")


# With a key


def test_without_the_key_nothing_is_told(locked: httpx.Client) -> None:
    """A page asks for it, the API answers as a WhyOps server does; only the style and the health are open."""
    page = locked.get("/t/checkout-8841")
    refused = [locked.get(path) for path in ("/api/threads", "/v1/agents/init")]

    assert (page.status_code, "checkout" in re.sub(r'value="[^"]*"', "", page.text)) == (401, False)
    assert [answer.status_code for answer in refused] == [401, 401]
    assert refused[0].json() == {"error": "Unauthorized: Authentication required"}
    assert locked.get("/live").status_code == 401
    assert locked.get("/api/health").json() == {"status": "healthy"}
    assert "home" in locked.get("/api/health", headers={"x-api-key": KEY}).json()
    assert [locked.get(path).status_code for path in ("/static/base.css", "/api/health")] == [200, 200]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"x-api-key": KEY}, 200),
        ({"authorization": f"bearer {KEY}"}, 401),
        ({"authorization": "Bearer whyops_other", "x-api-key": KEY}, 401),
        ({"x-api-key": KEY + "x"}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": "\xfc"}, 401),
        ({"cookie": "whyops_viewer=" + KEY}, 401),
    ],
    ids=str,
)
def test_sdks_show_the_key_in_a_header(locked: httpx.Client, headers: dict[str, str], status: int) -> None:
    """Where a WhyOps server wants it."""
    sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}

    assert locked.get("/api/threads", headers=sent).status_code == status


def test_a_browser_shows_the_key_once_in_the_address(locked: httpx.Client) -> None:
    """Then it has a cookie that no script can read, no other site sends, and that is not the key; the key is gone."""
    answer = locked.get(f"/?q=tool%3Arefund&key={KEY}")
    cookie = answer.headers["set-cookie"]
    wrong = httpx.get(f"{locked.base_url}?key=wrong")

    assert (answer.status_code, answer.headers["location"]) == (303, "/?q=tool%3Arefund")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert KEY not in cookie
    assert locked.get("/").status_code == 200
    assert (wrong.status_code, "That is not the key" in wrong.text) == (401, True)
    assert "set-cookie" not in wrong.headers


def test_a_browser_shows_the_key_in_a_form(locked: httpx.Client) -> None:
    """And goes on to the page that it asked for."""
    wrong = locked.post("/login", data={"key": "wrong", "next": "/t/checkout-8841"})
    right = locked.post("/login", data={"key": KEY, "next": "/t/checkout-8841"})

    assert (wrong.status_code, 'value="/t/checkout-8841"' in wrong.text) == (401, True)
    assert (right.status_code, right.headers["location"]) == (303, "/t/checkout-8841")
    assert locked.get("/t/checkout-8841").status_code == 200


def test_the_key_is_asked_for_on_the_way_to_a_page(locked: httpx.Client) -> None:
    """Whose address stays as it was, though the id of the trace has a slash in it."""
    asked = locked.get("/t/a%2Fb%3Fc?e=5")
    shown = locked.get(f"/t/a%2Fb%3Fc?e=5&key={KEY}")

    assert 'value="/t/a%2Fb%3Fc?e=5"' in asked.text
    assert shown.headers["location"] == "/t/a%2Fb%3Fc?e=5"


def test_a_form_may_be_sent_twice(locked: httpx.Client) -> None:
    """As by whoever had two pages open that asked for the key."""
    answers = [locked.post("/login", data={"key": KEY, "next": "/"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [303, 303]


@pytest.mark.parametrize("other", ['a={"b": 1}', "a b=1", '"', "a/b=1"])
def test_cookies_of_others_are_in_nobodys_way(locked: httpx.Client, other: str) -> None:
    """A browser sends those of all servers of this machine, whatever is in them."""
    cookie = locked.post("/login", data={"key": KEY}).headers["set-cookie"].partition(";")[0]
    answer = httpx.get(locked.base_url, headers={"cookie": f"{other}; {cookie}"})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "target", ["//evil.example", "/\\evil.example", "https://evil.example", "", "/a\r\nb: c"]
)
def test_the_form_leads_nowhere_else(locked: httpx.Client, target: str) -> None:
    """Only to pages of this server."""
    answer = locked.post("/login", data={"key": KEY, "next": target})

    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_form_that_is_too_large_is_not_read(locked: httpx.Client) -> None:
    """Nobody's key is that long."""
    assert locked.post("/login", content=b"key=" + b"x" * 10_000).status_code == 413


def test_the_cookie_outlives_the_server(home: Path) -> None:
    """It is made of the key, and of nothing that a restart changes; another key ends it."""
    with served(home, key=KEY) as url:
        cookies = dict(httpx.get(f"{url}/?key={KEY}").cookies)
    with served(home, key=KEY) as url:
        again = httpx.get(url, cookies=cookies).status_code
    with served(home, key=KEY + "x") as url:
        other = httpx.get(url, cookies=cookies).status_code

    assert (again, other) == (200, 401)
