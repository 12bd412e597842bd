"""A program's own processor of records."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import ROOT

from whyops_trace import ConfigurationError, WhyOps, step, traced_llm, traced_tool
from whyops_trace.types import BeforeRecord, RecordedValues

CLEAR = "Ann Lee"


def written(home: Path) -> bytes:
    """Return all that is on disk in a home."""
    return b"".join(path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file())


def replaced(value: Any) -> Any:
    """Return a value with another name in the place of the clear one, at any depth."""
    return json.loads(json.dumps(value).replace(CLEAR, "[customer]"))


def clean(values: RecordedValues) -> RecordedValues:
    """Return values without the clear name."""
    return {**values, "metadata": replaced(values["metadata"]), "content": replaced(values["content"])}


@traced_tool(metadata={"owner": CLEAR})
def look(who: str) -> dict[str, str]:
    """Look somebody up."""
    return {"found": who}


@traced_tool
def fail(who: str) -> None:
    """Raise."""
    raise LookupError(f"no {who}")


@traced_llm(model="m", provider="p")
def ask(messages: list[dict[str, str]]) -> str:
    """Answer."""
    return f"Hello {messages[-1]['content']}"


@traced_tool
def count(who: str) -> Iterator[str]:
    """Yield."""
    yield f"1 {who}"


def everything(sdk: WhyOps, size: int = 0) -> None:
    """Record every kind of event with the clear name in each place that can hold one."""
    with sdk.trace(metadata={"customer": CLEAR}, tags=[CLEAR]) as run:
        with step(f"for {CLEAR}", input=CLEAR, metadata={"who": CLEAR}) as inner:
            look(CLEAR)
            inner.set_output(CLEAR)
        with pytest.raises(LookupError):
            fail(CLEAR)
        list(count(CLEAR))
        ask([{"role": "user", "content": CLEAR + "x" * size}])
        asyncio.run(_manual(run))
        call = run.start_tool_call(f"call {CLEAR}", {"who": CLEAR})
        call.end(error=f"no {CLEAR}")


async def _manual(run: Any) -> None:
    calls = [{"name": "f", "arguments": {"who": CLEAR}}]
    await run.user_message([{"role": "user", "content": CLEAR}], metadata={"systemPrompt": CLEAR})
    await run.llm_thinking(CLEAR)
    await run.llm_response("m", "p", CLEAR, usage={"promptTokens": 3, "totalTokens": 3})
    span = await run.tool_call_request("f", calls)
    await run.tool_call_response("f", span, calls, {"who": CLEAR})
    await run.tool_result("f", CLEAR)
    await run.embedding_request([CLEAR])
    await run.error(CLEAR, stack=CLEAR)


@pytest.mark.parametrize("size", [0, 50_000, 2_000_000])
def test_what_the_processor_replaces_is_nowhere_on_the_disk(tmp_path: Path, size: int) -> None:
    """In no kind of event, in no place, however large the record is."""
    with WhyOps(agent_name="x", home=tmp_path, before_record=clean) as sdk:
        everything(sdk, size)

    on_disk = written(tmp_path)
    assert b"[customer]" in on_disk
    assert CLEAR.encode() not in on_disk


def test_the_same_run_without_it_has_the_name_on_the_disk(tmp_path: Path) -> None:
    """So that the test above can fail."""
    with WhyOps(agent_name="x", home=tmp_path) as sdk:
        everything(sdk)

    assert written(tmp_path).count(CLEAR.encode()) > 10


def _raise(values: RecordedValues) -> RecordedValues:
    raise ValueError(f"cannot read {values['content']}")


@pytest.mark.parametrize(
    "processor",
    [
        _raise,
        lambda values: None,
        lambda values: "text",
        lambda values: {"metadata": CLEAR, "content": CLEAR},
        lambda values: {"content": values["content"]},
    ],
    ids=["raises", "none", "text", "no metadata", "half"],
)
def test_nothing_in_clear_is_written_of_what_it_did_not_return(
    tmp_path: Path, processor: BeforeRecord, caplog: pytest.LogCaptureFixture
) -> None:
    """The records are there, with their numbers and their pairs, and the calls were not disturbed."""
    with WhyOps(agent_name="x", home=tmp_path, before_record=processor) as sdk:
        everything(sdk)
        tally = sdk.flush_sync()["local"]

    assert CLEAR.encode() not in written(tmp_path)
    assert tally.delivered == tally.emitted > 20
    assert CLEAR not in caplog.text
    from whyops_trace.store import Store

    store = Store(tmp_path / "traces.db")
    (trace,) = store.traces()
    events = store.events(trace.trace_id)
    store.close()
    assert trace.prompt_tokens == 3
    assert trace.open_calls == 0
    assert all("omitted" in event["content"] for event in events)


def test_it_gets_decoded_values_without_known_secrets(tmp_path: Path) -> None:
    """And what it returns is searched again."""
    seen: list[RecordedValues] = []
    token = "sk-" + "ant-" + "a1B2" * 12

    def note(values: RecordedValues) -> RecordedValues:
        seen.append(values)
        return {**values, "content": {**values["content"], "added": f"key {token}", "password": "hunter2"}}

    with WhyOps(agent_name="x", home=tmp_path, before_record=note) as sdk, sdk.trace("t", tags=["a"]):
        look(f"{CLEAR} {token}")

    assert [values["eventType"] for values in seen] == [
        "trace",
        "tool_call_request",
        "tool_call_response",
        "trace_end",
    ]
    assert seen[0]["metadata"] == {"trace": {"tags": ["a"]}}
    assert seen[1]["content"]["toolCalls"][0]["arguments"] == {"who": f"{CLEAR} [redacted]"}
    assert seen[1]["metadata"] == {"within": 0} or seen[1]["metadata"]["tool"] == "look"
    assert token.encode() not in written(tmp_path)
    assert b"hunter2" not in written(tmp_path)


def test_what_it_records_itself_has_no_values(tmp_path: Path) -> None:
    """A processor that calls traced functions does not call itself without end."""

    def curious(values: RecordedValues) -> RecordedValues:
        look(CLEAR)
        return clean(values)

    with WhyOps(agent_name="x", home=tmp_path, before_record=curious) as sdk, sdk.trace():
        fetched = look("somebody")

    assert fetched == {"found": "somebody"}
    assert CLEAR.encode() not in written(tmp_path)
    assert b"recorded by before_record itself" in written(tmp_path)


def test_threads_are_processed_at_the_same_time(tmp_path: Path) -> None:
    """One that waits in the processor keeps no other from being recorded."""
    first, second = threading.Event(), threading.Event()

    def meet(values: RecordedValues) -> RecordedValues:
        if values["eventType"] == "tool_call_request":
            mine, other = (first, second) if "1" in json.dumps(values["content"]) else (second, first)
            mine.set()
            assert other.wait(20)
        return values

    with WhyOps(agent_name="x", home=tmp_path, before_record=meet) as sdk:
        run = sdk.trace("t")
        threads = [threading.Thread(target=run.start_tool_call, args=("f", {"n": n})) for n in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert b"raised" not in written(tmp_path)


async def _awaited(values: RecordedValues) -> RecordedValues:
    return values


@pytest.mark.parametrize("processor", [_awaited, "name", 7])
def test_what_cannot_be_called_is_refused(tmp_path: Path, processor: Any) -> None:
    """When the client is made."""
    with pytest.raises(ConfigurationError, match="before_record"):
        WhyOps(agent_name="x", home=tmp_path, before_record=processor)


def test_presidio_finds_what_the_docs_say(tmp_path: Path) -> None:
    """The example of the docs, with the real package."""
    pytest.importorskip("presidio_analyzer", reason="nox -s detectors installs Presidio")
    page = (ROOT / "docs/how-to/secrets.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```py\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    space: dict[str, Any] = {"WhyOps": lambda **options: WhyOps(home=tmp_path, **options)}
    exec(block, space)
    sdk: WhyOps = space["sdk"]
    with sdk, sdk.trace():
        look("card 4111 1111 1111 1111, account DE89370400440532013000, item 12")

    on_disk = written(tmp_path)
    assert b"card <CREDIT_CARD>, account <IBAN_CODE>, item 12" in on_disk
    assert b"4111 1111" not in on_disk
