"""Requests that are none of the API: each is answered with what to do instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browser import served


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a server."""
    with served(tmp_path / "home") as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/v1/chat/completions", "no proxy for calls of models"),
        ("/v1/messages", "no proxy for calls of models"),
        ("/api/public/ingestion", "none of Langfuse"),
        ("/runs/batch", "none of LangSmith"),
        ("/events", "begins with /api here"),
        ("/entities/init", "begins with /api here"),
        ("/api/api/events", "There is one /api"),
        ("/api/v1/events", "There is one /api"),
        ("/api/event", "There is no such path here: events go to POST http"),
        ("/anything", "There is no such path here"),
    ],
)
def test_a_path_of_another_protocol_is_told_what_to_do(client: httpx.Client, path: str, advice: str) -> None:
    """In the form of the API's errors, with the address that is meant."""
    answer = client.post(path, content=b"\x0a\x00", headers={"content-type": "application/x-protobuf"})

    assert (answer.status_code, answer.json()["success"]) == (404, False)
    assert advice in answer.json()["error"]
    if "analyse_base_url" in answer.json()["error"]:
        assert str(client.base_url.join("/api")) in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/entities/init", "POST"),
        ("PUT", "/api/events", "GET, HEAD, POST"),
        ("GET", "/v1/agents/init", "POST"),
    ],
)
def test_another_method_is_told_which_one_is_taken(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    """As HTTP has it."""
    answer = client.request(method, path)

    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["error"].endswith(f"not {method}.")


def test_a_page_that_is_none_stays_one_that_is_not_found(client: httpx.Client) -> None:
    """Browsers ask for many things."""
    assert client.get("/favicon.ico").status_code == 404


def test_strangers_are_told_nothing(tmp_path: Path) -> None:
    """Not even which paths there are."""
    with served(tmp_path / "home", key="whyops_abcdefgh12345678") as url:
        answers = [httpx.post(f"{url}{path}").status_code for path in ("/v1/traces", "/events", "/api/none")]

    assert answers == [401, 401, 401]
