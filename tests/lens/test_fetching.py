"""Answers that are no trace, limits, and keys: what is said, and what goes to whom."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from elsewhere import Elsewhere
from wire import Answer, CutError, Stream

from whyops_trace._lens import fetching
from whyops_trace._lens.fetching import LensError, fetch, key_of
from whyops_trace._lens.products import PRODUCTS
from whyops_trace.exceptions import TraceNotFoundError

HEX = "2e76bcc8df51e6eb91be88097bd3b58f"
SPAN = {
    "traceId": HEX,
    "spanId": "0b3f61217480e950",
    "name": "chat gpt-5",
    "startTimeUnixNano": "1796050004271529037",
    "endTimeUnixNano": "1796050004371529037",
    "attributes": [],
}
TRACE = {"batches": [{"scopeSpans": [{"spans": [SPAN]}]}]}
PATH = f"/api/traces/{HEX}"
LANGFUSE = f"/project/p/traces/{HEX}"


@pytest.fixture
def product(monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    """A product that has one trace, and no key in the environment."""
    for each in PRODUCTS.values():
        for name in (*each.server, *(name for names in each.key for name in names)):
            monkeypatch.delenv(name, raising=False)
    with Elsewhere({PATH: TRACE}) as product:
        yield product


def pieces(*parts: bytes, cut: bool = False) -> Any:
    """Yield parts of an answer, which then breaks off, if so."""
    yield from parts
    if cut:
        raise CutError


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(302, "", {"Location": "https://log.in/a?next=secret"}), "sends to https://log.in/a in"),
        (Answer(301, ""), "sends to another address"),
        (Answer(200, "<html>Log in</html>", content_type="text/html; charset=utf-8"), "a page for people"),
        (Answer(502, "<html>Bad gateway</html>", content_type="text/html"), r"a page for people \(502\)"),
        (Answer(401, "no"), "lets nobody in like that"),
        (Answer(403, "no"), "--header"),
        (Answer(429, "slow down"), "try again in a while"),
        (Answer(503, "starting"), "'starting'"),
        (Answer(500, "pq: \x1b[31mdied"), r"says: 'pq: died'"),
        (Answer(200, "traces: many"), "something else than JSON: 'traces: many'"),
        (Answer(200, b"\xff\xfe{"), "something else than JSON"),
        (Answer(200, "[" * 100_000), "something else than JSON"),
        (Answer(200, {"batches": [{"scopeSpans": [{"spans": [{**SPAN, "spanId": "1"}]}]}]}), "No span .* can be read"),
        (Stream(200, pieces(b'{"batches"', cut=True)), "cannot be reached"),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_trace_says_what_to_do(
    answer: Answer | Stream, words: str, product: Elsewhere
) -> None:
    """With the product and the server that answered."""
    product.answers[PATH] = answer
    with pytest.raises(LensError, match=words) as raised:
        fetch(product.root + PATH, "tempo")

    assert product.root in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("answer", [Answer(404, "no"), {"batches": []}, [], None, "text", {"data": []}])
def test_a_trace_that_is_not_there_is_not_found(answer: Any, product: Elsewhere) -> None:
    """However the product says so."""
    product.answers[PATH] = answer if isinstance(answer, Answer) else Answer(200, json.dumps(answer))

    with pytest.raises(TraceNotFoundError, match=f"Tempo at {product.root} has no trace '{HEX}'"):
        fetch(product.root + PATH, "tempo")


def test_a_server_that_is_not_there_is_named(product: Elsewhere) -> None:
    """With what to check."""
    product.stop()

    with pytest.raises(LensError, match=f"Jaeger at {product.root} cannot be reached: .*port"):
        fetch(product.root + PATH)


def test_an_answer_is_read_up_to_a_size(product: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is that of the decompressed one."""
    monkeypatch.setattr(fetching, "MAX_BYTES", 1 << 20)
    body = json.dumps({**TRACE, "rest": "x" * (2 << 20)}).encode()
    product.answers[PATH] = Answer(200, gzip.compress(body), {"Content-Encoding": "gzip"})

    with pytest.raises(LensError, match="larger than 1 MiB"):
        fetch(product.root + PATH)


def test_a_trace_is_read_up_to_a_number_of_spans(product: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not in part."""
    monkeypatch.setattr(fetching, "MAX_SPANS", 1)
    product.answers[PATH] = {"batches": [{"scopeSpans": [{"spans": [SPAN, SPAN]}]}]}

    with pytest.raises(LensError, match="larger than 1 spans"):
        fetch(product.root + PATH)


def test_pages_are_read_up_to_a_number(product: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that always names a next one is left."""
    monkeypatch.setattr(fetching, "MAX_REQUESTS", 3)
    path = "/v1/projects/p/spans"
    product.answers[path] = {"data": [], "next_cursor": "a"}
    product.answers[f"{path}?cursor=a&limit=200&trace_id={HEX}"] = {"data": [], "next_cursor": "b"}

    with pytest.raises(LensError, match="larger than 3 answers"):
        fetch(f"{product.root}/projects/p/traces/{HEX}")
    assert len(product.requests) == 3


def test_a_page_that_names_itself_as_the_next_is_the_last(product: Elsewhere) -> None:
    """It would come for ever."""
    product.answers["/v1/projects/p/spans"] = {"data": [], "next_cursor": "a"}

    with pytest.raises(TraceNotFoundError):
        fetch(f"{product.root}/projects/p/traces/{HEX}")
    assert len(product.requests) == 2


def test_a_trace_is_given_up_after_a_time(product: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all, however fast its parts come."""
    monkeypatch.setattr(fetching, "_ALL", 0.0)

    with pytest.raises(LensError, match="did not answer in time"):
        fetch(product.root + PATH)


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        ({}, None),
        (
            {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"},
            f"Basic {base64.b64encode(b'pk:sk').decode()}",
        ),
    ],
)
def test_the_key_of_the_environment_is_sent_to_this_machine(
    environment: dict[str, str], header: str | None, product: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header that is given goes as well, and before it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TraceNotFoundError):
        fetch(product.root + LANGFUSE, headers=[("X-Scope-OrgID", "shop")])
    with pytest.raises(TraceNotFoundError):
        fetch(product.root + LANGFUSE, headers=[("authorization", "Bearer mine")])
    # The trace, and then its observations, of each of them.
    sent = [request.headers for request in product.requests]

    assert [(each["authorization"], each["x-scope-orgid"]) for each in sent[:2]] == [(header, "shop")] * 2
    assert [each["authorization"] for each in sent[2:]] == ["Bearer mine"] * 2
    assert {each["accept"] for each in sent} == {"application/json"}


@pytest.mark.parametrize(
    ("name", "environment", "headers"),
    [
        ("phoenix", {"PHOENIX_API_KEY": "k"}, {"authorization": "Bearer k"}),
        ("mlflow", {"MLFLOW_TRACKING_TOKEN": "t"}, {"authorization": "Bearer t"}),
        (
            "mlflow",
            {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"},
            {"authorization": f"Basic {base64.b64encode(b'u:p').decode()}"},
        ),
        (
            "clickhouse",
            {"CLICKHOUSE_USER": "u", "CLICKHOUSE_PASSWORD": "p"},
            {"X-ClickHouse-User": "u", "X-ClickHouse-Key": "p"},
        ),
        ("jaeger", {"PHOENIX_API_KEY": "k"}, {}),
    ],
)
def test_each_product_has_its_own_key(
    name: str, environment: dict[str, str], headers: dict[str, str]
) -> None:
    """In the form that it takes."""
    assert key_of(PRODUCTS[name], "http://localhost:1234", environment) == (headers, False)


@pytest.mark.parametrize(
    ("base", "server", "is_sent"),
    [
        ("https://cloud.langfuse.com", "", True),
        ("https://us.cloud.langfuse.com/x", "", True),
        ("http://cloud.langfuse.com", "", False),
        ("https://evil-langfuse.com", "", False),
        ("https://langfuse.com.evil.org", "", False),
        ("https://traces.example.org", "https://traces.example.org/", True),
        ("https://traces.example.org:8443", "traces.example.org:443", True),
        ("https://other.example.org", "https://traces.example.org", False),
        ("https://other.example.org", "http://[broken", False),
        ("http://127.0.0.1:3000", "", True),
        ("http://[::1]:3000", "", True),
    ],
)
def test_a_key_goes_to_its_own_server_only(base: str, server: str, is_sent: bool) -> None:
    """An address may come from anybody: the key goes to the makers, to this machine, and where a variable says."""
    environment = {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk", "LANGFUSE_BASE_URL": server}
    headers, is_withheld = key_of(PRODUCTS["langfuse"], base, environment)

    assert (bool(headers), is_withheld) == (is_sent, not is_sent)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, or give a header"),
        (
            {"LANGFUSE_PUBLIC_KEY": "pk-1", "LANGFUSE_SECRET_KEY": "sk-1"},
            "does not take the key in LANGFUSE_PUBLIC_KEY",
        ),
    ],
)
def test_who_is_not_let_in_is_told_of_the_variables(
    environment: dict[str, str], words: str, product: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That are missing, or have a key that is not taken; the key itself is in no message."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    product.answers[f"/api/public/traces/{HEX}"] = Answer(401, {"message": "Invalid credentials"})
    with pytest.raises(LensError, match=words) as raised:
        fetch(product.root + LANGFUSE)

    assert "sk-1" not in str(raised.value)


def test_a_key_that_was_kept_back_is_told_of(product: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable to set."""
    monkeypatch.setenv("PHOENIX_API_KEY", "k")
    monkeypatch.setattr(fetching, "_is_trusted", lambda *_: False)
    product.answers["/v1/projects/p/spans"] = Answer(401)

    with pytest.raises(LensError, match=f"PHOENIX_API_KEY was not sent.* set it to {product.root} if"):
        fetch(f"{product.root}/projects/p/traces/{HEX}")
    assert product.requests[0].headers["authorization"] is None
