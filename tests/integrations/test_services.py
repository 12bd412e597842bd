"""Three services over HTTP and a job of Celery, four agents in processes of their own, make one tree in one trace."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from collector import Collector, check
from programs import environment, outline, run, start, stored

from whyops_trace._recording.places import w3c_span_id, w3c_trace_id

KEY = "whyops_test"
PATIENCE = 60

TASKS = """
from celery import Celery
from whyops_trace import WhyOps, traced_tool
from whyops_trace.integrations import celery

sdk = WhyOps()
celery.attach()
app = Celery("tasks", broker="filesystem://", backend="file://{place}/results")
app.conf.broker_transport_options = {{
    "data_folder_in": "{place}/queue", "data_folder_out": "{place}/queue", "control_folder": "{place}/control",
}}

@traced_tool
def send(item):
    return item

@app.task
def mail(item):
    send(item)
"""
#: Takes from the stock and has a mail sent later; answers what its caller told, and on request when the mail is sent.
STOCK = """
import json, signal, sys
from wsgiref.simple_server import WSGIRequestHandler, make_server
from tasks import mail, sdk
from whyops_trace import traced_tool
from whyops_trace.integrations import wsgi

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
WSGIRequestHandler.log_message = lambda *_: None
jobs = []

@traced_tool
def take(item):
    jobs.append(mail.delay(item))
    return item

def app(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/wait":
        [job.get(timeout=40) for job in jobs]
    else:
        take("tea")
    return [environ.get("HTTP_TRACEPARENT", "").encode()]

with make_server("127.0.0.1", 0, wsgi.Middleware(app)) as server:
    print(server.server_port, flush=True)
    server.serve_forever(0.01)
"""
ORDERS = """
import socket, sys, httpx, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from whyops_trace import WhyOps, traced_tool
from whyops_trace.integrations import asgi, http

sdk = WhyOps()
client = http.attach(httpx.AsyncClient(trust_env=False))

@traced_tool
async def reserve(item):
    return (await client.get(sys.argv[1])).text

async def buy(request):
    return PlainTextResponse(await reserve("tea"))

app = Starlette(routes=[Route("/", buy)])
app.add_middleware(asgi.Middleware)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none")).run([listener])
sdk.close_sync()
"""
FRONT = """
import sys, httpx
from whyops_trace import WhyOps, step, trace, traced_tool
from whyops_trace.integrations import http

sdk = WhyOps()
client = http.attach(httpx.Client(trust_env=False))

@traced_tool
def order(item):
    return client.get(sys.argv[1]).text

@traced_tool
def thank(name):
    return name

with trace(sys.argv[2] or None) as made:
    with step("plan"):
        sdk.flush_sync()
        told = order("tea")
    thank("ann")
sdk.close_sync()
print(made.id, told)
"""


@contextlib.contextmanager
def serving(place: Path, *arguments: str, home: Path, **settings: str) -> Iterator[str]:
    """Run a service until the block ends and it has delivered, and give its address."""
    with start(*arguments, home=home, cwd=place, **settings) as service:
        assert service.stdout is not None
        port = service.stdout.readline().strip()
        yield f"http://127.0.0.1:{port}"
        service.terminate()
        out, err = service.communicate(timeout=PATIENCE)

        assert service.returncode in (0, -15), out + err


@pytest.mark.parametrize(
    ("trace_id", "homes"),
    [("checkout-8841", "one"), ("checkout-8841", "each"), ("", "each")],
    ids=["an id of yours", "an id of yours in homes of their own", "homes of their own"],
)
def test_three_services_and_a_job_are_one_tree(
    tmp_path: Path, collector: Collector, trace_id: str, homes: str
) -> None:
    """In the store, on a WhyOps server, whose steps rise with time, and by the ids of W3C."""
    pytest.importorskip("celery", reason="celery is not installed; nox -s workers has it")
    for name in ("queue", "control", "results"):
        (tmp_path / name).mkdir()
    for name, program in (
        ("tasks", TASKS.format(place=tmp_path)),
        ("stock", STOCK),
        ("orders", ORDERS),
        ("front", FRONT),
    ):
        (tmp_path / f"{name}.py").write_text(program)
    urls = {"WHYOPS_API_KEY": KEY, "WHYOPS_ANALYSE_URL": collector.url, "WHYOPS_STORE": "on"}

    def settings(agent: str) -> dict[str, str]:
        return {**urls, "WHYOPS_AGENT_NAME": agent}

    def home(agent: str) -> Path:
        return tmp_path / ("home" if homes == "one" else agent)

    with serving(tmp_path, "stock.py", home=home("stock"), **settings("stock")) as stock:
        with serving(tmp_path, "orders.py", stock, home=home("orders"), **settings("orders")) as orders:
            done = run("front.py", orders, trace_id, home=home("front"), cwd=tmp_path, **settings("front"))
            assert done.returncode == 0, done.stderr
        worker = ("-m", "celery", "-A", "tasks", "worker", "--loglevel=error", "-P", "solo")
        about = environment(home("mail"), **settings("mail"))
        with subprocess.Popen(
            [sys.executable, *worker], cwd=tmp_path, env=about
        ) as mail:  # Celery has warnings
            assert httpx.get(f"{stock}/wait", timeout=PATIENCE, trust_env=False).status_code == 200
            mail.terminate()
            mail.wait(PATIENCE)
    made, told = done.stdout.split()

    rows = [row for row in collector.stored if row["traceId"] == made]
    by_tool = {row["metadata"].get("tool"): row for row in rows if row["eventType"] == "tool_call_request"}
    steps = {name: row["stepId"] for name, row in by_tool.items()}
    check(rows)
    assert len(rows) == 11  # it refuses events of other agents than that of the first one
    assert {name: row["metadata"]["within"] for name, row in by_tool.items()} == {
        "order": 1, "reserve": steps["order"], "take": steps["reserve"], "send": steps["take"], "thank": 0,
    }  # fmt: skip
    calls = ["plan", "order", "reserve", "take", "send"]
    if homes == "one":
        events = stored(tmp_path / "home", made)
        run_ = next(event["run"] for event in events)
        assert [(depth, name) for depth, _, name, _ in outline(events)] == [*enumerate(calls), (0, "thank")]
        assert told == f"00-{w3c_trace_id(made)}-{w3c_span_id(made, run_, steps['reserve'])}-01"
    elif not trace_id:
        assert told == f"00-{made}-{w3c_span_id(made, None, steps['reserve'])}-01"
