"""MLflow: its page, with the trace as a parameter, and its API ``/api/3.0/mlflow/traces/get?trace_id=ID``."""

from __future__ import annotations

import re
from typing import Any, Final

from whyops_trace._lens.makers import KIND, name_makers
from whyops_trace._lens.otlp import in_camel_case, read_answers
from whyops_trace._lens.place import Address, Place, Reading, Request
from whyops_trace._lens.spans import add_score
from whyops_trace._otel.span import Batch
from whyops_trace._shapes import dict_of, dicts_of, text_of

TITLE: Final = "MLflow"
EXAMPLE: Final = "http://localhost:5000/#/experiments/1/traces?selectedEvaluationId=tr-TRACE"
_PATH: Final = re.compile(r"(?P<base>.*?)(?:/experiments/.*|/(?:api|ajax-api)/[23]\.0/mlflow/traces/.*)?")
_TRACE: Final = re.compile(r"tr-[0-9a-f]{32}")


def find(address: Address) -> Place | None:
    """Return the place that an address of its pages or its API names, None if it is no such."""
    match = address.match(_PATH)
    values = (*address.query.values(), address.path.rpartition("/")[2])
    found = next((value for value in values if _TRACE.fullmatch(value)), "")
    return address.place(match, found) if match and found else None


def read(place: Place) -> Reading:
    """Read a trace."""
    (answer,) = yield Request("/api/3.0/mlflow/traces/get", {"trace_id": place.trace_id})
    spans = in_camel_case(dicts_of(dict_of(dict_of(answer).get("trace")).get("spans")))
    batch = read_answers([{"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}])
    for span in batch.spans:
        # What it adds to spans of others repeats what they tell.
        if KIND in span.attributes or "gen_ai.operation.name" in span.attributes:
            span.attributes = {
                name: value for name, value in span.attributes.items() if not name.startswith("mlflow.")
            }
    name_makers(batch.spans)
    info = dict_of(dict_of(dict_of(answer).get("trace")).get("trace_info"))
    for assessment in dicts_of(info.get("assessments")) if batch.spans else ():
        _add_score(batch, assessment)
    return batch


def _add_score(batch: Batch, assessment: dict[str, Any]) -> None:
    """Add feedback; an expectation is no judgement."""
    value = dict_of(assessment.get("feedback")).get("value")
    if value is not None and assessment.get("valid") is not False:
        label = value if isinstance(value, str) else None
        span_id = text_of(assessment.get("span_id"))
        time, name = assessment.get("last_update_time"), assessment.get("assessment_name")
        add_score(batch, span_id, time, name, None if label else value, label, assessment.get("rationale"))
