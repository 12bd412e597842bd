"""What the tests of every integration get: a home, and a client whose traces are in it once it is closed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from integrations.chat import clients

from whyops_trace import WhyOps


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "traces"


@pytest.fixture
def client(home: Path) -> Iterator[WhyOps]:
    """A client whose traces are in the home once it is closed."""
    with WhyOps(agent_name="shop", home=home) as client:
        yield client


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close what the test has opened."""
    yield
    for client in clients:
        if isinstance(client, openai.OpenAI):
            client.close()
    clients.clear()


@pytest.fixture(scope="session")
def agents_alone() -> None:
    """Have the OpenAI Agents SDK send nothing to OpenAI; once, since an attached processor goes with the others."""
    pytest.importorskip("agents").set_trace_processors([])
