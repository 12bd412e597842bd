"""
What real receivers show of exported spans, read back through their own APIs.

Usage: ``readback.py phoenix|mlflow|oteltap [URL]``. Without the URL of one that runs it is started, from the packages
of this environment. Two runs of one agent are exported, by the GenAI conventions and with OpenInference beside them,
and a table printed of what is shown as it was recorded. It exits with 1 if the tree, names, times, tokens or errors are
not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whyops_trace import WhyOps, step, traced_llm, traced_tool
from whyops_trace._recording.places import w3c_trace_id
from whyops_trace.exporters.otlp import OtlpExporter

#: Seconds to wait for a receiver to start, and for what was sent to be shown.
START, SHOW = 180.0, 30.0
TOKENS = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}


@dataclass
class Shown:
    """A trace as a receiver shows it. ``messages`` is all text of the turn, ``kinds`` names each span's type."""

    parents: dict[str, str]
    starts: dict[str, float]
    kinds: dict[str, str]
    errors: list[str]
    attributes: dict[str, dict[str, Any]]
    tokens: tuple[int, int] | None = None
    cost: float | None = None
    about: dict[str, Any] = field(default_factory=dict)


@traced_llm(model="gpt-4o", provider="openai")
def ask(messages: list[Any]) -> Any:
    call = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"order": 7}'}}
    message = {"role": "assistant", "content": "Let me look.", "tool_calls": [call]}
    usage = {**TOKENS, "prompt_tokens_details": {"cached_tokens": 600}}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o",
        "choices": [choice],
        "usage": usage,
    }


@traced_tool
def find(order: int) -> Any:
    return {"order": order, "state": "sent"}


@traced_tool
def refund(order: int) -> None:
    raise LookupError("no such order")


def run(url: str, headers: dict[str, str], trace_id: str, *, openinference: bool) -> None:
    """Record and export a run."""
    exporter = OtlpExporter(
        url, headers=headers, content=True, openinference=openinference, home=tempfile.mkdtemp()
    )
    with WhyOps(agent_name="shop", store=False, home=tempfile.mkdtemp(), exporters=[exporter]) as sdk:
        with (
            sdk.trace(trace_id, external_user_id="u-9", tags=["vip"], metadata={"plan": "pro"}),
            step("research"),
        ):
            ask([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is 7?"}])
            find(7)
            with contextlib.suppress(LookupError):
                refund(8)
        print("exported:", sdk.flush_sync()["otlp"])


def get(url: str, body: Any = None) -> Any:
    """Return the JSON of an address."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


QUERY = """query($id: ID!) { projects { edges { node { trace(traceId: $id) { session { sessionId }
 costSummary { total { cost } } rootSpan { input { value } output { value }
 cumulativeTokenCountPrompt cumulativeTokenCountCompletion } } } } } }"""


def phoenix(url: str, trace_id: str) -> Shown:
    """Return what Phoenix shows."""
    spans = get(f"{url}/v1/projects/default/spans?trace_id={trace_id}&limit=100")["data"]
    edges = get(f"{url}/graphql", {"query": QUERY, "variables": {"id": trace_id}})["data"]["projects"][
        "edges"
    ]
    whole = next(edge["node"]["trace"] for edge in edges if edge["node"]["trace"])
    root = whole["rootSpan"]
    names = {span["context"]["span_id"]: span["name"] for span in spans}
    return Shown(
        {span["name"]: names.get(span["parent_id"], "") for span in spans},
        {
            span["name"]: time.mktime(time.strptime(span["start_time"][:19], "%Y-%m-%dT%H:%M:%S"))
            for span in spans
        },
        {span["name"]: span["span_kind"] for span in spans},
        [span["name"] for span in spans if span["status_code"] == "ERROR"],
        {span["name"]: span["attributes"] for span in spans},
        (root["cumulativeTokenCountPrompt"], root["cumulativeTokenCountCompletion"]),
        whole["costSummary"]["total"]["cost"],
        {
            "session": (whole["session"] or {}).get("sessionId"),
            "input": (root["input"] or {}).get("value"),
            "output": (root["output"] or {}).get("value"),
        },
    )


def mlflow(url: str, trace_id: str) -> Shown:
    """Return what MLflow shows."""
    told = get(f"{url}/api/3.0/mlflow/traces/get?trace_id=tr-{trace_id}")["trace"]
    info, spans = told["trace_info"], told["spans"]
    attributes = {span["name"]: _members(span.get("attributes", [])) for span in spans}
    names = {span["span_id"]: span["name"] for span in spans}
    usage = json.loads(info.get("trace_metadata", {}).get("mlflow.trace.tokenUsage", "{}"))
    cost = json.loads(info.get("trace_metadata", {}).get("mlflow.trace.cost", "{}"))
    return Shown(
        {span["name"]: names.get(span.get("parent_span_id", ""), "") for span in spans},
        {span["name"]: int(span["start_time_unix_nano"]) / 1e9 for span in spans},
        {name: str(values.get("mlflow.spanType")) for name, values in attributes.items()},
        [span["name"] for span in spans if "ERROR" in str(span.get("status", {}).get("code"))],
        attributes,
        (usage["input_tokens"], usage["output_tokens"]) if usage else None,
        cost.get("total_cost"),
        {
            "session": info.get("trace_metadata", {}).get("mlflow.trace.session"),
            "input": info.get("request_preview"),
            "output": info.get("response_preview"),
        },
    )


def _members(pairs: list[Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        members: dict[str, Any] = value or {}
        kind = next(iter(members), "")
        inner: Any = members.get(kind)
        if kind == "kvlist_value":
            return {each["key"]: plain(each.get("value")) for each in inner.get("values", [])}
        return [plain(each) for each in inner.get("values", [])] if kind == "array_value" else inner

    return {pair["key"]: plain(pair.get("value")) for pair in pairs}


TREE = {
    "invoke_agent shop": "",
    "research": "invoke_agent shop",
    "chat gpt-4o": "research",
    "execute_tool find": "research",
    "execute_tool refund": "research",
}


def rows(shown: Shown) -> Iterator[tuple[str, bool, str, bool]]:
    """Yield each line of the table: what, whether it is as recorded, what is shown, and whether it has to be."""
    told = {name: json.dumps(values, default=str) for name, values in shown.attributes.items()}
    turn, tool = told.get("chat gpt-4o", ""), told.get("execute_tool find", "")
    yield "tree and names", shown.parents == TREE, f"{len(shown.parents)} spans", True
    yield "times", len(shown.starts) == 5 and min(shown.starts.values()) > 1.7e9, "of all", True
    yield "kinds", True, ", ".join(sorted(set(shown.kinds.values()))), False
    yield "errors", shown.errors == ["execute_tool refund"], ", ".join(shown.errors), True
    yield "tokens", shown.tokens == (1000, 20), str(shown.tokens), True
    yield "cached tokens", "600" in turn, "600" if "600" in turn else "-", False
    yield "cost", shown.cost is not None and abs(shown.cost - 0.00195) < 1e-5, str(shown.cost), False
    yield "messages", "Where is 7?" in turn and "Let me look." in turn, "question and answer", False
    yield "system prompt", "Be brief." in turn, "", False
    yield "tool arguments and result", "order" in tool and "sent" in tool, "", False
    yield "id of the tool call", "call_1" in tool, "", False
    for name, value in shown.about.items():
        yield f"{name} of the trace", bool(value), str(value)[:60], False


async def tap() -> Shown:
    """Return what oteltap, a receiver that keeps nothing, reads of a run."""
    from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

    settings = OtelTapHttpProtobufReceiverSettings(http_port=16107, listen_on_all_interfaces=False)
    async with OtelTapHttpProtobufReceiver(settings) as receiver:
        arriving = receiver.stream_traces().__aiter__()
        first = asyncio.ensure_future(arriving.__anext__())
        await asyncio.sleep(0.5)
        await asyncio.to_thread(run, "http://127.0.0.1:16107", {}, "order-7", openinference=True)
        spans = [await first, *[await arriving.__anext__() for _ in range(len(TREE) - 1)]]
    names = {span.span_id: span.name for span in spans}
    about = {span.name: {pair.key: str(pair.value) for pair in span.attributes} for span in spans}
    turn = next(span for span in spans if span.name == "chat gpt-4o")
    counts = {pair.key: pair.value.int_value for pair in turn.attributes}
    return Shown(
        {span.name: names.get(span.parent_span_id, "") for span in spans},
        {span.name: span.start_time_unix_nano / 1e9 for span in spans},
        {span.name: str(span.kind) for span in spans},
        [span.name for span in spans if span.status.code == 2],
        about,
        (counts["gen_ai.usage.input_tokens"], counts["gen_ai.usage.output_tokens"]),
    )


RECEIVERS: dict[str, Callable[[str, str], Shown]] = {"phoenix": phoenix, "mlflow": mlflow}


@contextlib.contextmanager
def running(name: str) -> Iterator[str]:
    """Run a receiver in a folder of its own; yield its address."""
    folder, port = Path(tempfile.mkdtemp()), "16106"
    places = {"PHOENIX_WORKING_DIR": str(folder), "PHOENIX_HOST": "127.0.0.1", "PHOENIX_PORT": port}
    quiet = {
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PHOENIX_GRPC_PORT": "16417",
    }
    command = {
        "phoenix": ["phoenix", "serve"],
        "mlflow": ["mlflow", "server", "--port", port, "--backend-store-uri", f"sqlite:///{folder}/m.db"],
    }[name]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, env={**os.environ, **places, **quiet}, cwd=folder) as process:
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=5).close()
                break
            time.sleep(1)
        try:
            yield url
        finally:
            process.terminate()


def experiment(url: str) -> dict[str, str]:
    """Return the header that MLflow asks for."""
    name = f"spans {time.time()}"
    return {
        "x-mlflow-experiment-id": get(f"{url}/api/2.0/mlflow/experiments/create", {"name": name})[
            "experiment_id"
        ]
    }


def printed(title: str, shown: Shown) -> bool:
    """Print the table. Return True if what has to be is as recorded."""
    print(f"\n{title}")
    good = True
    for what, as_recorded, told, has_to in rows(shown):
        good &= as_recorded or not has_to
        print(f"  {'yes' if as_recorded else 'no':3}  {what:26}  {told}")
    return good


def main(name: str, url: str) -> bool:
    """Export, read back, print the table. Return True if what has to be is as recorded."""
    if name == "oteltap":
        return printed(name, asyncio.run(tap()))
    headers = experiment(url) if name == "mlflow" else {}
    good = True
    for openinference in (False, True):
        trace_id = f"order-{time.time()}"
        run(url, headers, trace_id, openinference=openinference)
        deadline, shown = time.monotonic() + SHOW, None
        while time.monotonic() < deadline and (shown is None or len(shown.parents) < len(TREE)):
            with contextlib.suppress(OSError, KeyError, StopIteration):
                shown = RECEIVERS[name](url, w3c_trace_id(trace_id))
            time.sleep(0.5)
        assert shown is not None, "nothing is shown"
        good &= printed(f"{name}, {'OpenInference beside GenAI' if openinference else 'GenAI'}", shown)
    return good


if __name__ == "__main__":
    which, *address = sys.argv[1:]
    with (
        running(which)
        if which != "oteltap" and not address
        else contextlib.nullcontext("".join(address)) as base
    ):
        sys.exit(not main(which, base))
