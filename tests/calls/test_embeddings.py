"""What calls of embedding models record: the texts and how many vectors came back, never the vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import numpy
import pytest
from recorded import Recorded

from whyops_trace import traced_embedding


def about(model: str, provider: str, **more: Any) -> dict[str, Any]:
    """Return what an answer says of its model."""
    return {"model": model, "provider": provider, **more}


OPENAI_EMBEDDING = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"embedding": [0.1, 0.2, 0.3]}, {"embedding": [0.4, 0.5, 0.6]}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}


def embedded(count: int, dimensions: int) -> dict[str, Any]:
    """Return what is recorded of vectors."""
    return {
        "object": "list",
        "embeddingCount": count,
        "firstEmbeddingDimensions": dimensions,
        "encodingFormat": "float",
    }


def test_an_embedding_call_counts_its_vectors(events: Recorded) -> None:
    """The texts are recorded, the vectors are not."""

    @traced_embedding(model="m", provider="p")
    def embed(texts: list[str]) -> list[list[float]]:
        return [[0.1, 0.2] for _ in texts]

    embed(["a", "b", "c"])

    assert events.rows == [
        ("embedding_request", 1, None, 0, "embed", {"input": ["a", "b", "c"]}),
        ("embedding_response", 2, 1, 1, "embed", embedded(3, 2), about("m", "p")),
    ]


@pytest.mark.anyio
async def test_openais_embeddings_are_read(events: Recorded) -> None:
    """Model and tokens are the answer's."""

    @traced_embedding(provider="openai")
    async def embed(input: str) -> Any:
        return OPENAI_EMBEDDING

    await embed("a")
    usage = {"promptTokens": 8, "totalTokens": 8}

    assert events.rows == [
        ("embedding_request", 1, None, 0, "embed", {"input": ["a"]}),
        (
            "embedding_response", 2, 1, 1, "embed", embedded(2, 3),
            about("text-embedding-3-small", "openai", usage=usage),
        ),
    ]  # fmt: skip


def test_numpy_vectors_are_counted(events: Recorded) -> None:
    """Small ones and large ones, one and many."""

    @traced_embedding(model="m")
    def embed(text: Any) -> Any:
        return text

    for shape in ((2, 3), (5, 1536), (7,), (1536,)):
        embed(numpy.zeros(shape))

    assert [row[5] for row in events.rows[1::2]] == [
        embedded(2, 3), embedded(5, 1536), embedded(1, 7), embedded(1, 1536),
    ]  # fmt: skip


def test_a_list_of_numpy_vectors_is_counted(events: Recorded) -> None:
    """As many libraries give them, short or long."""

    @traced_embedding(model="m")
    def embed(texts: list[str], size: int) -> Any:
        return [numpy.zeros(size) for _ in texts]

    embed(["a", "b"], 3)
    embed(["a", "b"], 1536)

    assert [row[5] for row in events.rows[1::2]] == [embedded(2, 3), embedded(2, 1536)]


def test_large_batches_of_vectors_are_counted(events: Recorded) -> None:
    """Lists of floats, in objects too, are not walked through."""

    @dataclass
    class Vector:
        embedding: list[float]

    @dataclass
    class Answer:
        data: list[Vector]

    traced_embedding(name="lists")(lambda texts: [[0.5] * 1536 for _ in range(500)])(["a"])
    traced_embedding(name="object")(lambda texts: Answer([Vector([0.5] * 1536)] * 500))(["a"])

    assert [row[5] for row in events.rows[1::2]] == [embedded(500, 1536)] * 2


def test_the_model_of_an_embedding_call_may_be_an_argument(events: Recorded) -> None:
    """As for any call of a model."""

    @traced_embedding
    def embed(texts: list[str], model: str) -> Any:
        return [[1.0]]

    embed(["a"], "openai/small")

    assert events.rows[1][6] == about("openai/small", "openai")


def test_a_secret_parameter_is_never_taken_for_the_texts(events: Recorded) -> None:
    """Wherever it stands."""

    @traced_embedding(model="m")
    def embed(api_key: str, sentences: list[str]) -> Any:
        return [[1.0]]

    embed("sk-secret", ["a"])

    assert events.rows[0][5] == {"input": ["a"]}


def test_a_failed_embedding_call_is_an_error(events: Recorded) -> None:
    """And a cancelled one says so."""

    @traced_embedding(model="m")
    def embed(texts: list[str]) -> Any:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        embed(["a"])

    assert events.rows[1] == (
        "error", 2, 1, 1, "embed", {"type": "ValueError", "message": "bad"}, about("m", "unknown"),
    )  # fmt: skip


@pytest.mark.anyio
async def test_a_cancelled_embedding_call_says_so(events: Recorded) -> None:
    """It has no vectors."""

    @traced_embedding(model="m")
    async def embed(texts: list[str]) -> Any:
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(embed, ["a"])
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()

    assert events.rows[1] == (
        "embedding_response", 2, 1, 1, "embed", {"embeddingCount": 0},
        about("m", "unknown", outcome="cancelled"),
    )  # fmt: skip


def test_vectors_streamed_by_a_generator_are_counted(events: Recorded) -> None:
    """Item by item."""

    @traced_embedding(model="m")
    def embed(texts: list[str]) -> Iterator[list[float]]:
        for _ in texts:
            yield [1.0, 2.0]

    list(embed(["a", "b", "c"]))

    assert events.rows[1][5] == embedded(3, 2)
