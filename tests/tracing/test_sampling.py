"""Which traces are recorded where only a share of them is."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import run_code

from whyops_trace import SpanId, WhyOps, current_trace, step, traced_tool
from whyops_trace.exceptions import ConfigurationError, InvalidEventError
from whyops_trace.exporters.memory import MemoryExporter
from whyops_trace.testing import capture_events


def fraction(trace_id: str) -> float:
    return int(hashlib.sha256(trace_id.encode()).hexdigest()[:16], 16) / 2**64


#: At a rate of a half, the first is recorded and the second is not.
IN, OUT = "order-1", "order-5"


@traced_tool
def inner(n: int) -> int:
    return n


@traced_tool
def outer(n: int) -> int:
    return inner(n) + inner(n)


def ids(memory: MemoryExporter) -> set[str]:
    return {event["traceId"] for event in memory.events}


def half(tmp_path: Path, memory: MemoryExporter) -> WhyOps:
    return WhyOps(home=tmp_path, exporters=[memory], store=False, sample_rate=0.5)


def test_the_examples_are_on_either_side() -> None:
    """Or the other tests would show nothing."""
    assert fraction(IN) < 0.5 < fraction(OUT)


@pytest.mark.parametrize("rate", [0, 0.25, 0.5, 1])
def test_the_share_of_traces_is_what_was_asked_for(tmp_path: Path, rate: float) -> None:
    """The hash of an id decides, so the same ids are recorded every time."""
    memory = MemoryExporter()
    names = [f"conversation {n}" for n in range(200)]
    with WhyOps(home=tmp_path, exporters=[memory], store=False, sample_rate=rate) as sdk:
        for name in names:
            sdk.trace(name).error_sync("x")

    assert ids(memory) == {name for name in names if fraction(name) < rate}
    assert sdk.stats()["memory"].emitted == len(ids(memory))


def test_a_made_up_id_is_decided_by_the_same_rule(tmp_path: Path) -> None:
    """So that another process, which is told the id, decides alike."""
    memory = MemoryExporter()
    with half(tmp_path, memory) as sdk:
        traces = [sdk.trace() for _ in range(100)]
        for handle in traces:
            handle.error_sync("x")

    assert ids(memory) == {handle.id for handle in traces if fraction(handle.id) < 0.5}
    assert 0 < len(ids(memory)) < 100


def test_another_process_decides_alike(tmp_path: Path) -> None:
    """Whatever its hash seed, told by the environment."""
    code = """
        from whyops_trace import WhyOps
        from whyops_trace.exporters.memory import MemoryExporter
        memory = MemoryExporter()
        with WhyOps(exporters=[memory]) as sdk:
            for n in range(50):
                sdk.trace(f"t{n}").error_sync("x")
        print(*(event["traceId"] for event in memory.events))
    """
    printed = [
        run_code(code, home=tmp_path, WHYOPS_SAMPLE_RATE="0.3", PYTHONHASHSEED=seed).stdout.split()
        for seed in "12"
    ]

    assert printed[0] == printed[1] == [f"t{n}" for n in range(50) if fraction(f"t{n}") < 0.3]


def test_a_trace_that_is_sampled_out_leaves_nothing(tmp_path: Path, said: Callable[[], list[str]]) -> None:
    """No file, no thread, no count, no word."""
    with WhyOps(home=tmp_path / "home", sample_rate=0) as sdk:
        with sdk.trace(OUT, metadata={"a": 1}), step("plan"):
            outer(1)
        sdk.trace().error_sync("x")
        stats = sdk.stats()

    assert stats["local"].emitted == 0
    assert list((tmp_path / "home").rglob("*.*")) == []
    assert said() == []


def test_handles_of_a_trace_that_is_sampled_out_return_what_they_do_with_tracing_off(tmp_path: Path) -> None:
    """A program that uses the numbers runs on, and mistakes are refused all the same."""
    results = []
    ways: list[dict[str, Any]] = [{"sample_rate": 0.5}, {"tracing": False}]
    for options in ways:
        handle = WhyOps(home=tmp_path, **options).trace(OUT)
        span = handle.tool_call_request_sync("charge", [{"name": "charge", "arguments": {}}])
        response = handle.tool_call_response_sync("charge", span, [], {"ok": True})
        with pytest.raises(InvalidEventError):
            handle.error_sync(5)  # type: ignore[arg-type]
        results.append((type(span), span.step_id, response, handle.error_sync("x")))

    assert results == [(SpanId, 0, 0, 0)] * 2


def test_inside_a_trace_another_one_may_be_sampled_out(tmp_path: Path) -> None:
    """What runs in it is not recorded; back outside it goes on."""
    memory = MemoryExporter()
    with half(tmp_path, memory) as sdk, sdk.trace(IN):
        inner(1)
        with sdk.trace(OUT), step("plan"):
            outer(2)
            assert current_trace().id == OUT  # type: ignore[union-attr]
        inner(3)

    requests = [event for event in memory.events if event["eventType"] == "tool_call_request"]
    assert ids(memory) == {IN}
    assert [event["content"]["toolCalls"][0]["arguments"]["n"] for event in requests] == [1, 3]
    assert [event["stepId"] for event in memory.events if event["eventType"] != "trace_end"] == [1, 2, 3, 4]


def test_inside_a_trace_that_is_sampled_out_another_one_may_be_recorded(tmp_path: Path) -> None:
    """It is a trace of its own."""
    memory = MemoryExporter()
    with half(tmp_path, memory) as sdk, sdk.trace(OUT):
        inner(1)
        with sdk.trace(IN):
            outer(2)
        inner(3)

    names = [
        event["metadata"]["tool"] for event in memory.events if event["eventType"] == "tool_call_request"
    ]
    assert ids(memory) == {IN}
    assert names == ["outer", "inner", "inner"]


def test_a_capture_gets_every_trace(tmp_path: Path) -> None:
    """A test of traced code does not depend on its ids; afterwards they are sampled again."""
    memory = MemoryExporter()
    with half(tmp_path, memory) as sdk:
        sdk.trace(OUT).error_sync("before")
        with capture_events() as events:
            sdk.trace(OUT).error_sync("within")
            outer(1)
        sdk.trace(OUT).error_sync("after")

    assert [event["eventType"] for event in events].count("tool_call_request") == 3
    assert events[0]["content"] == {"message": "within"}
    assert memory.events == []


@traced_tool
async def outer_async(n: int) -> int:
    return inner(n)


@traced_tool
def generate(n: int) -> Iterator[int]:
    yield inner(n)
    yield inner(n)


@traced_tool
async def generate_async(n: int) -> AsyncIterator[int]:
    yield inner(n)


@traced_tool
def failing(n: int) -> int:
    inner(n)
    raise ValueError(n)


async def each(n: int) -> list[int]:
    return [item async for item in generate_async(n)]


def in_a_step(n: int) -> None:
    with step("plan") as plan:
        inner(n)
        plan.set_output(inner(n))


def failed(n: int) -> None:
    with pytest.raises(ValueError, match=str(n)):
        failing(n)


@pytest.mark.parametrize(
    "call",
    [
        outer,
        lambda n: asyncio.run(outer_async(n)),
        lambda n: list(generate(n)),
        lambda n: next(generate(n)),
        lambda n: asyncio.run(each(n)),
        failed,
        in_a_step,
    ],
)
def test_a_trace_of_its_own_is_recorded_whole_or_not_at_all(
    tmp_path: Path, call: Callable[[int], Any]
) -> None:
    """What a call or a step outside any trace runs inside is part of its trace, also of one that is sampled out."""
    memory = MemoryExporter()
    with half(tmp_path, memory):
        for n in range(30):
            call(n)

            assert current_trace() is None
    roots = [
        event["traceId"] for event in memory.events if event["stepId"] == 1 and "parentStepId" not in event
    ]
    first = [event for event in memory.events if event["stepId"] == 1 and event["eventType"] != "step_end"]

    assert 0 < len(ids(memory)) < 30
    assert {fraction(trace_id) < 0.5 for trace_id in ids(memory)} == {True}
    assert all(event["metadata"].get("tool") != "inner" for event in first)
    assert set(roots) == ids(memory)


def test_a_trace_that_is_sampled_out_uses_up_no_span_ids(tmp_path: Path) -> None:
    """There are few, and pairs that are recorded need them."""
    with WhyOps(home=tmp_path, sample_rate=0) as sdk:
        free = len(sdk.recorder.free_spans)
        sdk.trace(OUT).tool_call_request_sync("charge", [])
        outer(1)

        assert len(sdk.recorder.free_spans) == free


def test_a_rate_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument wins over it."""
    monkeypatch.setenv("WHYOPS_SAMPLE_RATE", "0.25")

    assert WhyOps(home=tmp_path).settings.sample_rate == 0.25
    assert WhyOps(home=tmp_path, sample_rate=1).settings.sample_rate == 1.0


@pytest.mark.parametrize("value", ["2", "-0.1", "nan", "half", "10%"])
def test_a_rate_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The error names the variable."""
    monkeypatch.setenv("WHYOPS_SAMPLE_RATE", value)

    with pytest.raises(ConfigurationError, match="WHYOPS_SAMPLE_RATE"):
        WhyOps()
