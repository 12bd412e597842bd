"""What products answer of a trace, recorded from them or in the form of their documentation, and what is read of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from elsewhere import Elsewhere
from kept import of_jaeger, of_jaeger_3, of_langfuse, of_tempo, of_tempo_2
from lens_runs import GOLDEN, missed, records_of
from wire import Answer

from whyops_trace._lens.fetching import fetch
from whyops_trace._otel.scores import take_scores
from whyops_trace._otel.span import Batch, Span, read_json

RECORDED = Path(__file__).parent / "recorded"
#: The trace that is in the recorded answers.
TRACE = "2e76bcc8df51e6eb91be88097bd3b58f"
#: Captures with all of a trace in spans: what log records have is kept by none of the products.
NAMES = [path.stem for path in sorted(GOLDEN.glob("*.json")) if path.stem != "claude_agent"]
#: What Langfuse loses: the answers of LlamaIndex in spread attributes, and those of Strands in events.
LOST = {("langfuse", "llama_index"), ("langfuse", "strands")}
#: The path of an answer, and the function from spans to it.
FORMS: dict[str, tuple[str, Callable[[list[Span]], Any]]] = {
    "jaeger": ("/api/traces", of_jaeger),
    "jaeger, third API": ("/api/v3/traces", of_jaeger_3),
    "tempo": ("/api/traces", of_tempo),
    "tempo, second API": ("/api/v2/traces", of_tempo_2),
    "langfuse": ("/api/public/traces", of_langfuse),
}


@pytest.fixture
def product() -> Iterator[Elsewhere]:
    """A product without traces."""
    with Elsewhere() as product:
        yield product


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_a_trace_is_read_as_if_its_spans_had_been_sent_here(form: str, name: str, product: Elsewhere) -> None:
    """Turns, tools and agents, with arguments, results, ids, tokens and failures."""
    path, answer = FORMS[form]
    sent = read_json((GOLDEN / f"{name}.json").read_bytes()).spans
    trace_id = sent[0].trace_id
    product.answers[f"{path}/{trace_id}"] = answer(sent)
    found, batch = fetch(f"{product.root}{path}/{trace_id}")

    assert (found, batch.refused) == (trace_id, [])
    assert {span.span_id for span in batch.spans} == {span.span_id for span in sent}
    assert ((form, name) in LOST) == bool(missed(name, batch.spans))


def test_a_recorded_trace_of_phoenix_is_read(product: Elsewhere) -> None:
    """Through its pages of spans, whatever project the address of its page names."""
    answer = json.loads((RECORDED / "phoenix.json").read_bytes())
    spans = answer["data"]
    path = f"/v1/projects/UHJvamVjdDox/spans?{{}}limit=200&trace_id={TRACE}"
    product.answers[path.format("")] = {"data": spans[:7], "next_cursor": "c7"}
    product.answers[path.format("cursor=c7&")] = {"data": spans[7:], "next_cursor": None}
    _, batch = fetch(f"{product.root}/projects/UHJvamVjdDox/traces/{TRACE}?selectedSpanNodeId=U3Bhbjox")

    assert len(batch.spans) == 13
    assert missed("pydantic_ai", batch.spans) == []


def test_a_recorded_trace_of_mlflow_is_read(product: Elsewhere) -> None:
    """Whose parameters are in the fragment of the address of its page."""
    product.answers[f"/api/3.0/mlflow/traces/get?trace_id=tr-{TRACE}"] = Answer(
        200, (RECORDED / "mlflow.json").read_bytes()
    )
    name, batch = fetch(f"{product.root}/#/experiments/1/traces?o=2&selectedEvaluationId=tr-{TRACE}")

    assert (name, len(batch.spans)) == (f"tr-{TRACE}", 13)
    assert missed("pydantic_ai", batch.spans) == []


def test_recorded_rows_of_clickhouse_are_read(product: Elsewhere) -> None:
    """Each attribute of which is a text; the id is a parameter of the query, and no part of its text."""
    product.answers["/"] = Answer(200, (RECORDED / "clickhouse.jsonl").read_bytes())
    _, batch = fetch(f"{product.root}/telemetry/otel_traces/{TRACE}")
    query = product.requests[0].query

    assert missed("pydantic_ai", batch.spans) == []
    assert query["param_trace"] == TRACE
    assert TRACE not in query["query"]
    assert "FROM `telemetry`.`otel_traces`" in query["query"]


def observation(name: str, at: int, **about: Any) -> dict[str, Any]:
    """Return an observation that Langfuse's own SDK made, one second long."""
    times = {"startTime": f"2026-11-20T08:00:{at:02d}.000Z", "endTime": f"2026-11-20T08:00:{at + 1:02d}.250Z"}
    return {"id": f"obs-{at}", "traceId": "lf-7", "name": name, "level": "DEFAULT", **times, **about}


def test_a_trace_of_langfuse_is_read_that_its_sdk_made(product: Elsewhere) -> None:
    """With any text for an id, and the trace itself as the step around its observations."""
    product.answers["/lf/api/public/traces/lf-7"] = {
        "id": "lf-7",
        "name": "support",
        "input": {"question": "Where is it?"},
        "output": "In Bonn.",
        "sessionId": "desk-3",
        "userId": "user-9",
        "observations": [
            observation(
                "answer",
                0,
                type="GENERATION",
                model="gpt-5",
                input=[{"role": "user", "content": "Where is it?"}],
                output={
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
                    ],
                },
                usageDetails={
                    "input": 90,
                    "input_cached_tokens": 10,
                    "output": 4,
                    "output_reasoning_tokens": 3,
                    "total": 107,
                },
                metadata=None,
            ),
            observation("find", 2, type="TOOL", input={}, output="Bonn", parentObservationId="obs-0"),
            observation("seen", 4, type="EVENT", endTime=None, metadata={"why": "once"}),
            observation("bad", 6, type="SPAN", startTime="yesterday"),
        ],
    }
    _, batch = fetch(f"{product.root}/lf/project/shop/traces/lf-7?timestamp=2026-11-20")
    records = records_of(batch.spans)
    turn = next(record for record in records if record["eventType"] == "llm_response")
    first = records[0]

    assert batch.refused == ["Invalid isoformat string: 'yesterday'"]
    assert [record["eventType"] for record in records] == [
        "llm_thinking",
        "user_message",
        "llm_response",
        "tool_call_request",
        "tool_call_response",
        "llm_thinking",
        "step_end",
        "step_end",
        "trace_end",
    ]
    assert (first["metadata"]["step"], first["metadata"]["input"]) == (
        "support",
        {"question": "Where is it?"},
    )
    assert first["metadata"]["conversationId"] == "desk-3"
    assert first["externalUserId"] == "user-9"
    assert turn["metadata"]["usage"] == {
        "promptTokens": 90,
        "completionTokens": 7,
        "cacheReadTokens": 10,
        "reasoningTokens": 3,
        "totalTokens": 107,
    }
    assert turn["metadata"]["latencyMs"] == 1250


def test_a_trace_of_a_newer_langfuse_is_read_page_by_page(product: Elsewhere) -> None:
    """Where the trace itself has no observations, or is not there any more; inputs and outputs are texts then."""
    query = (
        "expandMetadata=attributes,scope,resourceAttributes&fields=core,basic,io,metadata,model,usage"
        "&limit=1000&traceId=lf-7"
    )
    turn = observation(
        "answer", 0, type="GENERATION", providedModelName="gpt-5", usageDetails={"input": 9, "output": 4},
        input='[{"role": "user", "content": "Where is it?"}]', output='{"role": "assistant", "content": "In Bonn."}',
        userId="user-9", sessionId="desk-3",
    )  # fmt: skip
    tool = observation("find", 2, type="TOOL", input="{}", output='"Bonn"', parentObservationId="obs-0")
    pages = "/api/public/v2/observations"
    product.answers[f"{pages}?{query}"] = {"data": [turn], "meta": {"cursor": "next"}}
    product.answers[f"{pages}?cursor=next&{query}"] = {"data": [tool], "meta": {}}
    _, batch = fetch(f"{product.root}/project/shop/traces/lf-7")
    product.answers["/api/public/traces/lf-7"] = {
        "id": "lf-7", "name": "support", "observations": [], "scores": [{"name": "correct", "value": 1}]
    }  # fmt: skip
    _, again = fetch(f"{product.root}/project/shop/traces/lf-7")
    records = records_of(batch.spans)
    (answer,) = [record for record in records if record["eventType"] == "llm_response"]

    assert (answer["metadata"]["model"], answer["metadata"]["usage"]["promptTokens"]) == ("gpt-5", 9)
    assert answer["content"]["content"] == "In Bonn."
    assert records[0]["content"]["messages"] == [{"role": "user", "content": "Where is it?"}]
    assert records[0]["externalUserId"] == "user-9"
    assert len(batch.spans) == len(again.spans) == 2
    assert scores_of(again) == [("", {"name": "correct", "value": 1})]


def scores_of(batch: Batch) -> list[tuple[str, dict[str, Any]]]:
    """Return the span and the content of each score."""
    _, _, scores = take_scores(batch.spans, batch.logs)
    return [(score.span_id, score.content) for score in scores]


def test_scores_of_langfuse_are_read(product: Elsewhere) -> None:
    """Numbers, truths, categories and comments, of the trace and of its observations; in parts that is wrong too."""
    product.answers["/api/public/traces/lf-7"] = {
        "id": "lf-7",
        "observations": [observation("answer", 0, type="SPAN")],
        "scores": [
            {"name": "correct", "dataType": "NUMERIC", "value": 0.5, "comment": "half"},
            {"name": "solved", "dataType": "BOOLEAN", "value": 1, "stringValue": "True", "observationId": "obs-0"},
            {"name": "tone", "dataType": "CATEGORICAL", "value": 2, "stringValue": "polite", "timestamp": "soon"},
            {"name": None, "value": 1},
        ],
    }  # fmt: skip
    _, batch = fetch(f"{product.root}/project/shop/traces/lf-7")

    assert scores_of(batch) == [
        ("", {"name": "correct", "value": 0.5, "comment": "half"}),
        (batch.spans[0].span_id, {"name": "solved", "value": True}),
        ("", {"name": "tone", "label": "polite"}),
    ]


def test_feedback_of_mlflow_is_read(product: Elsewhere) -> None:
    """And no expectation, which judges nothing, and nothing that was replaced."""
    answer = json.loads((RECORDED / "mlflow.json").read_bytes())
    answer["trace"]["trace_info"]["assessments"] = [
        {"assessment_name": "correct", "feedback": {"value": 0.5}, "rationale": "half"},
        {"assessment_name": "solved", "feedback": {"value": True}, "span_id": "00000000000000aa"},
        {
            "assessment_name": "tone",
            "feedback": {"value": "polite"},
            "last_update_time": "2026-11-20T09:00:00Z",
        },
        {"assessment_name": "answer", "expectation": {"value": 42}},
        {"assessment_name": "old", "feedback": {"value": 1}, "valid": False},
    ]
    product.answers[f"/api/3.0/mlflow/traces/get?trace_id=tr-{TRACE}"] = answer
    _, batch = fetch(f"{product.root}/#/experiments/1/traces?selectedEvaluationId=tr-{TRACE}")

    assert scores_of(batch) == [
        ("", {"name": "correct", "value": 0.5, "comment": "half"}),
        ("00000000000000aa", {"name": "solved", "value": True}),
        ("", {"name": "tone", "label": "polite"}),
    ]


def test_annotations_of_phoenix_are_read(product: Elsewhere) -> None:
    """Of the trace and of its spans, page by page; a server that does not know the path has none."""
    spans = json.loads((RECORDED / "phoenix.json").read_bytes())["data"]
    root = spans[0]["context"]["span_id"]

    def told(score: float, **about: Any) -> dict[str, Any]:
        return {"name": "correct", "result": {"score": score, "label": None, "explanation": "half"}, **about}

    product.answers["/v1/projects/shop/spans"] = {"data": spans, "next_cursor": None}
    _, without = fetch(f"{product.root}/projects/shop/traces/{TRACE}")
    path = f"/v1/projects/shop/trace_annotations?{{}}limit=1000&trace_ids={TRACE}"
    product.answers[path.format("")] = {"data": [told(0.5)], "next_cursor": "2"}
    product.answers[path.format("cursor=2&")] = {"data": [told(0.25)], "next_cursor": None}
    product.answers["/v1/projects/shop/span_annotations"] = {"data": [told(1, span_id=root)]}
    _, batch = fetch(f"{product.root}/projects/shop/traces/{TRACE}")

    assert scores_of(without) == []
    assert scores_of(batch) == [
        ("", {"name": "correct", "value": 0.5, "comment": "half"}),
        ("", {"name": "correct", "value": 0.25, "comment": "half"}),
        (root, {"name": "correct", "value": 1, "comment": "half"}),
    ]


def test_a_jaeger_span_may_name_its_parent_in_several_ways(product: Elsewhere) -> None:
    """A reference to another trace is no parent, and one that it follows is, if it is a child of none."""
    span = {"traceID": "1f", "operationName": "chat", "startTime": 1_700_000_000_000_000, "duration": 5}
    other = {"refType": "CHILD_OF", "traceID": "2f", "spanID": "9"}
    after = {"refType": "FOLLOWS_FROM", "traceID": "1f", "spanID": "a"}
    of = {"refType": "CHILD_OF", "traceID": "1f", "spanID": "b"}
    product.answers["/api/traces/1f"] = {
        "data": [
            {
                "spans": [
                    {**span, "spanID": "a", "references": [other]},
                    {**span, "spanID": "b", "references": [other, after]},
                    {**span, "spanID": "c", "references": [after, of]},
                    {**span, "spanID": "d", "parentSpanID": "c"},
                    {**span, "spanID": "e", "startTime": None},
                ]
            }
        ]
    }
    _, batch = fetch(f"{product.root}/trace/1f?uiFind=chat")

    assert [(span.span_id[-1], span.parent_id[-1:]) for span in batch.spans] == [
        ("a", ""),
        ("b", "a"),
        ("c", "b"),
        ("d", "c"),
    ]
    assert {span.trace_id for span in batch.spans} == {"0" * 30 + "1f"}
    assert len(batch.refused) == 1
