"""Answers in OTLP/JSON, which several products give, each in a wrapping of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from whyops_trace._otel.span import Batch, read_object
from whyops_trace._shapes import dict_of, dicts_of

_UNDERSCORE: Final = re.compile(r"_([a-z])")


def read_answers(answers: Iterable[Any]) -> Batch:
    """
    Read the spans of answers.

    They are in ``resourceSpans``, or in ``batches`` as Tempo calls it; alone, in the ``trace`` of Tempo's second API,
    or in the ``result`` of Jaeger's third.
    """
    batch = Batch()
    for answer in answers:
        outer = dict_of(answer)
        inner = dict_of(outer.get("trace")) or dict_of(outer.get("result")) or outer
        resources = dicts_of(inner.get("resourceSpans")) or dicts_of(inner.get("batches"))
        part = read_object({"resourceSpans": resources})
        batch.spans += part.spans
        batch.refused += part.refused
    return batch


def in_camel_case(value: Any) -> Any:
    """Return a message of OTLP with the names of JSON, in place of those that protobuf has."""
    if isinstance(value, list):
        return [in_camel_case(each) for each in value]
    if isinstance(value, dict):
        return {
            _UNDERSCORE.sub(lambda match: match[1].upper(), name): in_camel_case(each)
            for name, each in value.items()
        }
    return value
