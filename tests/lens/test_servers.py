"""
Traces that are sent to real products and read back.

The session ``lens`` of nox installs these. Of ClickHouse it is the engine, with as much HTTP around it as is asked for.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from clickhouse import JSON, MAP, ClickHouse
from kept import in_base64
from lens_runs import GOLDEN, missed
from runs.installed import is_here
from wire import PATIENCE

from whyops_trace._lens.fetching import fetch
from whyops_trace._otel.scores import take_scores
from whyops_trace._otel.span import Span, read_json
from whyops_trace.exceptions import TraceNotFoundError

NAMES = [path.stem for path in sorted(GOLDEN.glob("*.json"))]
#: A program whose texts are in log records, which no product keeps.
IN_LOGS = "claude_agent"
#: Seconds that a server has to be there: one makes the tables of its database at first.
START = 300.0
#: Function that sends the spans of a capture, and returns the address of their trace.
Send = Callable[[str], str]


def spans_of(name: str) -> list[Span]:
    """Return the spans of a capture."""
    return read_json((GOLDEN / f"{name}.json").read_bytes()).spans


def request(name: str) -> bytes:
    """Return the spans of a capture as a request in protobuf."""
    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    golden = json.loads((GOLDEN / f"{name}.json").read_bytes())
    told = {"resourceSpans": in_base64(golden["resourceSpans"])}
    body: bytes = ParseDict(told, ExportTraceServiceRequest(), ignore_unknown_fields=True).SerializeToString()
    return body


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def running(folder: Path, ready: str, *command: str, **environment: str) -> Iterator[None]:
    """Run a server until the fixture ends; its output is in a file of the folder."""
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait(lambda: process.poll() is not None or answers(ready), START)

            assert process.poll() is None, (folder / "output").read_text()[-2_000:]
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def wait(is_so: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.2)


def answers(url: str) -> bool:
    """Return True if a server answers."""
    try:
        return httpx.get(url, timeout=PATIENCE).status_code == 200
    except httpx.HTTPError:
        return False


def post(url: str, name: str, **headers: str) -> None:
    """Send a capture."""
    sent = {"content-type": "application/x-protobuf", **headers}
    httpx.post(url, content=request(name), headers=sent, timeout=START).raise_for_status()


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Send]:
    """Phoenix."""
    if not is_here("phoenix"):
        pytest.skip("the session `lens` of nox installs it")
    folder, port = tmp_path_factory.mktemp("phoenix"), free_port()
    root = f"http://127.0.0.1:{port}"
    settings = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }

    def send(name: str) -> str:
        post(f"{root}/v1/traces", name)
        address = f"{root}/projects/default/traces/{spans_of(name)[0].trace_id}"
        wait(lambda: count(address) == len(spans_of(name)), PATIENCE)  # it stores them after its answer
        return address

    for _ in running(folder, f"{root}/healthz", "-m", "phoenix.server.main", "serve", **settings):
        yield send


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Send]:
    """MLflow."""
    if not is_here("mlflow.server"):
        pytest.skip("the session `lens` of nox installs it")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    root = f"http://127.0.0.1:{port}"
    command = ("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    places = ("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./artifacts")

    def send(name: str) -> str:
        post(f"{root}/v1/traces", name, **{"x-mlflow-experiment-id": "0"})
        return f"{root}/#/experiments/0/traces?selectedEvaluationId=tr-{spans_of(name)[0].trace_id}"

    for _ in running(folder, f"{root}/health", *command, *places, MLFLOW_DISABLE_TELEMETRY="true"):
        yield send


@pytest.fixture(scope="module", params=[MAP, JSON], ids=["maps", "json"])
def clickhouse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Send]:
    """ClickHouse, with a table of each of the two forms."""
    if not is_here("chdb"):
        pytest.skip("the session `lens` of nox installs it")
    with ClickHouse(tmp_path_factory.mktemp("clickhouse"), request.param) as server:

        def send(name: str) -> str:
            server.add(spans_of(name))
            return f"{server.root}/telemetry/otel_traces/{spans_of(name)[0].trace_id}"

        yield send


def count(address: str) -> int:
    """Return how many spans of a trace are there."""
    try:
        return len(fetch(address)[1].spans)
    except TraceNotFoundError:
        return 0


def check(send: Send, name: str) -> None:
    """Check that a capture that is sent and read back tells the same."""
    _, batch = fetch(send(name))

    assert batch.refused == []
    assert len(batch.spans) == len(spans_of(name))
    assert missed(name, batch.spans) == (missed(name, spans_of(name)) if name == IN_LOGS else [])


@pytest.mark.timeout(2 * START)
@pytest.mark.parametrize("name", NAMES)
def test_phoenix_gives_back_what_was_sent(name: str, phoenix: Send) -> None:
    """Turns, tools and agents, with arguments, results, ids, tokens and failures."""
    check(phoenix, name)


@pytest.mark.timeout(2 * START)
def test_phoenix_gives_back_its_annotations(phoenix: Send) -> None:
    """Of a span and of the trace, as its own client sends them."""
    address = phoenix(NAMES[0])
    span, root = spans_of(NAMES[0])[0], address.partition("/projects/")[0]
    result = {"name": "correct", "annotator_kind": "HUMAN", "result": {"score": 0.5, "explanation": "half"}}
    for what, name in (("span", span.span_id), ("trace", span.trace_id)):
        sent = {"data": [{f"{what}_id": name, **result}]}
        httpx.post(f"{root}/v1/{what}_annotations?sync=true", json=sent, timeout=PATIENCE).raise_for_status()
    _, batch = fetch(address)
    _, _, scores = take_scores(batch.spans, batch.logs)

    assert [(score.span_id, score.content) for score in scores] == [
        ("", {"name": "correct", "value": 0.5, "comment": "half"}),
        (span.span_id, {"name": "correct", "value": 0.5, "comment": "half"}),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_mlflow_gives_back_what_was_sent(name: str, mlflow: Send) -> None:
    """Turns, tools and agents, with arguments, results, ids, tokens and failures."""
    check(mlflow, name)


@pytest.mark.parametrize("name", NAMES)
def test_clickhouse_gives_back_what_was_sent(name: str, clickhouse: Send) -> None:
    """Turns, tools and agents, with arguments, results, ids, tokens and failures."""
    check(clickhouse, name)


def test_clickhouse_says_what_is_not_there(clickhouse: Send) -> None:
    """A trace, or a table."""
    address = clickhouse(NAMES[0])

    with pytest.raises(TraceNotFoundError, match="has no trace"):
        fetch(address[:-1] + "x")
    with pytest.raises(TraceNotFoundError, match=r"It says: .*UNKNOWN"):
        fetch(address.replace("telemetry", "elsewhere"))
