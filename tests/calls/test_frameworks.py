"""Decorated functions as FastAPI endpoints and dependencies, and with pydantic's ``validate_call``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import httpx
import pydantic
import pytest
from fastapi import Depends, FastAPI
from recorded import Recorded, tool

from whyops_trace import traced_tool

app = FastAPI()
pytestmark = pytest.mark.asyncio_only  # Starlette's own loop is enough here


class Item(pydantic.BaseModel):
    """A body."""

    name: str
    price: float = 1.0


@traced_tool
def shop(tenant: str = "main") -> str:
    """Tell the shop."""
    return f"shop {tenant}"


@traced_tool
async def user(token_id: int) -> str:
    """Tell the user."""
    return f"user {token_id}"


@traced_tool
def session() -> Iterator[str]:
    """Open a session and close it."""
    yield "session"


@traced_tool
async def asession() -> AsyncIterator[str]:
    """Do the same asynchronously."""
    yield "asession"


class Pager:
    """A dependency that is an object."""

    def __call__(self, page: int = 1) -> int:
        return page


@app.get("/plain/{key}")
@traced_tool
def plain(
    key: int, shop: Annotated[str, Depends(shop)], session: Annotated[str, Depends(session)]
) -> dict[str, object]:
    """Answer from a worker thread."""
    return {"key": key, "shop": shop, "session": session}


@app.get("/waiting/{key}")
@traced_tool
async def waiting(
    key: int,
    user: Annotated[str, Depends(user)],
    session: Annotated[str, Depends(asession)],
    page: Annotated[int, Depends(traced_tool(Pager()))],
) -> dict[str, object]:
    """Answer from the loop."""
    return {"key": key, "user": user, "session": session, "page": page}


@app.post("/items")
@traced_tool
async def create(item: Item) -> Item:
    """Take a body and give it back."""
    return item


def client() -> httpx.AsyncClient:
    """Return a client of the application, without a network."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


@pytest.mark.anyio
async def test_plain_endpoints_and_dependencies(events: Recorded) -> None:
    """Parameters are found, converted and refused as with bare functions."""
    async with client() as http:
        answer = await http.get("/plain/5", params={"tenant": "east"})
        refused = await http.get("/plain/five")

    assert answer.json() == {"key": 5, "shop": "shop east", "session": "session"}
    assert refused.status_code == 422
    names = [row[4] for row in events.rows if row[0] == "tool_call_request"]
    assert sorted(names[:3]) == ["plain", "session", "shop"]


@pytest.mark.anyio
async def test_asynchronous_endpoints_and_dependencies(events: Recorded) -> None:
    """As with bare functions."""
    async with client() as http:
        answer = await http.get("/waiting/5", params={"token_id": 7, "page": 3})

    assert answer.json() == {"key": 5, "user": "user 7", "session": "asession", "page": 3}
    names = {row[4] for row in events.rows}
    assert names == {"waiting", "user", "asession", "Pager"}


@pytest.mark.anyio
async def test_a_body_is_validated_and_recorded(events: Recorded) -> None:
    """By the model in the annotation."""
    async with client() as http:
        answer = await http.post("/items", json={"name": "pen"})
        refused = await http.post("/items", json={"price": "much"})

    assert answer.json() == {"name": "pen", "price": 1.0}
    assert refused.status_code == 422
    item = {"name": "pen", "price": 1.0}
    assert events.rows == tool("create", {"item": item}, item)


@pytest.mark.anyio
async def test_the_schema_is_that_of_bare_functions() -> None:
    """Parameters and answers are described."""
    async with client() as http:
        schema = (await http.get("/openapi.json")).json()

    parameters = schema["paths"]["/plain/{key}"]["get"]["parameters"]
    assert [(p["name"], p["in"]) for p in parameters] == [("key", "path"), ("tenant", "query")]
    assert schema["paths"]["/waiting/{key}"]["get"]["description"] == "Answer from the loop."


def test_validate_call_over(events: Recorded) -> None:
    """What is recorded is what was converted."""

    @pydantic.validate_call
    @traced_tool
    def double(x: int) -> int:
        return 2 * x

    assert double("4") == 8  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError):
        double("four")  # type: ignore[arg-type]
    assert events.rows == tool("double", {"x": 4}, {"result": 8})


def test_validate_call_under(events: Recorded) -> None:
    """What is recorded is what was passed; a refusal is a failure of the tool."""

    @traced_tool
    @pydantic.validate_call
    def double(x: int) -> int:
        return 2 * x

    assert double("4") == 8  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError):
        double("four")  # type: ignore[arg-type]
    assert events.of(events.traces[0]) == tool("double", {"x": "4"}, {"result": 8})
    assert [row[0] for row in events.of(events.traces[1])] == [
        "tool_call_request",
        "error",
        "tool_call_response",
    ]


@pytest.mark.anyio
async def test_validate_call_of_coroutine_functions(events: Recorded) -> None:
    """Over and under."""

    @pydantic.validate_call
    @traced_tool(name="over")
    async def over(x: int) -> int:
        return 2 * x

    @traced_tool(name="under")
    @pydantic.validate_call
    async def under(x: int) -> int:
        return 2 * x

    assert await over("4") == 8  # type: ignore[arg-type]
    assert await under("4") == 8  # type: ignore[arg-type]
    assert events.rows == [
        *tool("over", {"x": 4}, {"result": 8}),
        *tool("under", {"x": "4"}, {"result": 8}),
    ]
