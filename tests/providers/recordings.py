"""
Recorded HTTP exchanges, replayed through traced clients.

Each model call in a folder of recordings is made with the recorded answer by a client of OpenAI's or Anthropic's
package, and by the same client traced; then by their asynchronous clients. The caller must get the same from all, and
the records of the call must agree with the recorded answer as ``readings.py`` reads it. No request leaves the process.

The folder holds cassettes of VCR (https://vcrpy.readthedocs.io), YAML or JSON files with a list of ``interactions``, at
any depth. A program of your own records one under ``vcr.use_cassette("one.yaml", filter_headers=["authorization",
"x-api-key"])``. The repositories of agent frameworks and of instrumentations hold thousands: clone one, and give the
path of the clone. Recordings may hold what people wrote and models said, so keep them out of this repository.

The exit code is 0 if nothing differs, 1 if something does, and 2 if the folder holds no model call.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gzip
import importlib
import json
import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anthropic
import openai
import yaml
from providers.readings import Reading, read_answer, read_records
from pydantic import BaseModel

from whyops_trace import WhyOps
from whyops_trace.testing import capture_events

#: End of a request's path, the client's method for it, and the arguments without which that is not called. The first
#: end that fits counts.
ENDPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "/chat/completions": ("chat.completions", {"model": "unknown", "messages": [], "stream": False}),
    "/completions": ("completions", {"model": "unknown", "prompt": "", "stream": False}),
    "/responses": ("responses", {"stream": False}),
    "/embeddings": ("embeddings", {"model": "unknown", "input": ""}),
    "/v1/messages": ("messages", {"model": "unknown", "messages": [], "max_tokens": 1, "stream": False}),
}
#: Headers that describe the bytes on the wire. Recordings hold the bytes as they were unpacked.
ON_THE_WIRE = ("content-encoding", "content-length", "transfer-encoding")
#: The loader of YAML in C is ten times as fast.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Exchange:
    """
    A recorded model call and its answer.

    Attributes:
        place: File and number of the exchange in it.
        base_url: Address of the seller's interface.
        end: End of the request's path, a key of ``ENDPOINTS``.
    """

    place: str
    base_url: str
    end: str
    body: dict[str, Any]
    status: int
    headers: dict[str, str]
    answer: bytes

    @property
    def family(self) -> str:
        """Package whose clients make such calls."""
        return "anthropic" if self.end == "/v1/messages" else "openai"

    @property
    def streamed(self) -> bool:
        """True if the caller asked for a stream."""
        return bool(self.body.get("stream"))


@dataclass
class Tally:
    """Counts of the exchanges with one seller, and their differences."""

    exchanges: int = 0
    same: int = 0
    agree: int = 0
    differences: list[str] = field(default_factory=list)


def exchanges(folder: Path) -> Iterator[Exchange]:
    """Yield the model calls in the recordings of a folder."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".yaml", ".yml", ".json") or not path.is_file():
            continue
        text = path.read_text("utf-8", errors="replace")
        if "interactions" not in text:
            continue
        try:
            cassette = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader)
        except (ValueError, yaml.YAMLError):
            continue
        interactions = cassette.get("interactions") if isinstance(cassette, dict) else None
        for number, interaction in enumerate(interactions or []):
            exchange = _exchange(f"{path.relative_to(folder)}[{number}]", interaction)
            if exchange is not None:
                yield exchange


def _exchange(place: str, interaction: Any) -> Exchange | None:
    """Return an interaction as an exchange, None if it is not a whole model call."""
    try:
        request, response = interaction["request"], interaction["response"]
        url = urlsplit(request["uri"])
        end = next(end for end in ENDPOINTS if url.path.endswith(end))
        status = response["status_code"] if "status_code" in response else response["status"]["code"]
        headers = {name.lower(): value for name, value in (response.get("headers") or {}).items()}
        # Some recorders leave out what was asked.
        unasked = {"stream": "text/event-stream" in str(headers.get("content-type"))}
        body, answer = json.loads(_body(request) or json.dumps(unasked)), _body(response)
    except (KeyError, TypeError, ValueError, StopIteration):
        return None
    if request["method"].upper() != "POST" or not isinstance(body, dict):
        return None
    kept = {
        name: value if isinstance(value, str) else value[0]
        for name, value in headers.items()
        if name not in ON_THE_WIRE
    }
    base_url = f"{url.scheme}://{url.netloc}{url.path.removesuffix(end)}"
    return Exchange(place, base_url, end, body, status, kept, answer)


def _body(message: dict[str, Any]) -> bytes:
    """Return the bytes of a recorded request or response, which some recorders parsed and others left packed."""
    if "parsed_body" in message:
        return json.dumps(message["parsed_body"]).encode()
    body = message.get("body", message.get("content"))
    if isinstance(body, dict) and not body.keys() & {"string", "base64_string"}:
        return json.dumps(body).encode()
    if isinstance(body, dict):
        body = base64.b64decode(body["base64_string"]) if "base64_string" in body else body["string"]
    if not isinstance(body, bytes):
        return str(body or "").encode()
    return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body


def call(
    exchange: Exchange, connect: Callable[[Any], Any], *, asynchronous: bool = False
) -> list[tuple[type, Any]]:
    """
    Make the call of an exchange, whose answer is the recorded one.

    Args:
        connect: Function from a client of the package to the one that makes the call.
        asynchronous: True to make it with the asynchronous client.

    Returns:
        Type and content of what the caller gets: one answer, or the items of a stream, and the exception at the end.
    """
    package: Any = anthropic if exchange.family == "anthropic" else openai
    kind = ("Async" if asynchronous else "") + ("Anthropic" if exchange.family == "anthropic" else "OpenAI")
    # Each package stands on one of two HTTP libraries, as its version will have it.
    http = importlib.import_module(package.DefaultHttpxClient.__base__.__module__.partition(".")[0])

    def answer(request: Any) -> Any:
        return http.Response(exchange.status, headers=exchange.headers, content=exchange.answer)

    path, needed = ENDPOINTS[exchange.end]
    arguments = {name: exchange.body.get(name, value) for name, value in needed.items()}
    others = {name: value for name, value in exchange.body.items() if name not in needed}
    # Without a timeout Anthropic's client refuses calls that may take long.
    arguments |= {"extra_body": others, "timeout": 60}
    given: list[tuple[type, Any]] = []

    def create(wire: Any) -> Any:
        method = connect(
            getattr(package, kind)(api_key="k", base_url=exchange.base_url, max_retries=0, http_client=wire)
        )
        for name in path.split("."):
            method = getattr(method, name)
        return method.create(**arguments)

    def give(item: Any) -> None:
        given.append((type(item), item.model_dump(warnings=False) if isinstance(item, BaseModel) else item))

    def take() -> None:
        with http.Client(transport=http.MockTransport(answer)) as wire:
            answered = create(wire)
            for item in answered if exchange.streamed else [answered]:
                give(item)

    async def atake() -> None:
        async with http.AsyncClient(transport=http.MockTransport(answer)) as wire:
            answered = await create(wire)
            if not exchange.streamed:
                return give(answered)
            async for item in answered:
                give(item)

    try:
        asyncio.run(atake()) if asynchronous else take()
    except Exception as error:
        given.append((type(error), str(error)))
    return given


def disagreements(exchange: Exchange, failed: bool, records: list[dict[str, Any]]) -> Iterator[str]:
    """
    Yield the members in which the record of a call disagrees with the recorded answer.

    Args:
        failed: True if the call raised. A client may refuse an answer that is no error by its status.
        records: Events of the call.
    """
    recorded = read_records(records)
    if failed and exchange.status < 400:
        if recorded.error is None:
            yield "the call raised, and no error is recorded"
        return
    method, _ = ENDPOINTS[exchange.end]
    try:
        told = read_answer(method, exchange.status, exchange.answer, streamed=exchange.streamed)
    except Exception as error:  # no shape is too strange for a recording
        yield f"the recorded answer cannot be read: {error!r}"
        return
    if told.error is None:
        told.model = told.model or exchange.body.get("model")
    for member in fields(Reading):
        mine, theirs = getattr(recorded, member.name), getattr(told, member.name)
        if mine != theirs:
            yield f"{member.name} recorded as {_short(mine)}, told as {_short(theirs)}"


def replay(found: Iterable[Exchange], keep: Iterable[str]) -> dict[str, Tally]:
    """
    Make each call without and with tracing, and return the tallies by seller.

    Args:
        keep: Names of arguments that are recorded although they sound like secrets.
    """
    tallies: dict[str, Tally] = defaultdict(Tally)
    internal_errors: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: internal_errors.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("whyops_trace").addHandler(handler)
    with WhyOps(agent_name="recordings", redact_keep=keep) as sdk:
        for exchange in found:
            tally = tallies[urlsplit(exchange.base_url).hostname or "unknown"]
            differing: list[str] = []
            wrong: list[str] = []
            for asynchronous in (False, True):
                untraced = call(exchange, lambda client: client, asynchronous=asynchronous)
                with capture_events() as records, sdk.trace("t"):
                    traced = call(exchange, getattr(sdk, exchange.family), asynchronous=asynchronous)
                failed = bool(untraced) and issubclass(untraced[-1][0], Exception)
                by = " by the asynchronous client" if asynchronous else ""
                texts = [*disagreements(exchange, failed, records), *internal_errors]
                internal_errors.clear()
                wrong += [f"{exchange.place}{by}: {text}" for text in texts]
                if traced != untraced:
                    text = f"the caller gets {_short(traced)} instead of {_short(untraced)}"
                    differing.append(f"{exchange.place}{by}: {text}")
            tally.exchanges += 1
            tally.same += not differing
            tally.agree += not wrong
            tally.differences += wrong + differing
    return tallies


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:140]} ... {text[-50:]}"


def main() -> int:
    """Replay a folder, print a table of its sellers and the first differences of each, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m providers.recordings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="folder with recordings, at any depth")
    parser.add_argument(
        "--show", type=int, default=5, metavar="N", help="differences shown for each seller (5)"
    )
    parser.add_argument(
        "--keep", action="append", default=[], metavar="NAME", help="a name whose values are no secrets here"
    )
    options = parser.parse_args()
    tallies = replay(exchanges(options.folder), options.keep)
    print("| seller | exchanges | caller the same | record agrees |\n|---|---|---|---|")
    for seller, tally in sorted(tallies.items(), key=lambda item: (-item[1].exchanges, item[0])):
        print(f"| {seller} | {tally.exchanges} | {tally.same} | {tally.agree} |")
    for seller, tally in sorted(tallies.items()):
        if tally.differences:
            print(f"\n{seller}:\n")
            print("\n".join(f"- {text}" for text in tally.differences[: options.show]))
    if not tallies:
        return 2
    return 1 if any(tally.differences for tally in tallies.values()) else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["WHYOPS_HOME"] = home
        raise SystemExit(main())
