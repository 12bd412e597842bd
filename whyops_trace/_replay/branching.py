"""A recording that is cut behind one of its calls, which is answered otherwise: what follows is not replayed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from whyops_trace._reading.excerpt import Tokens, headline, value
from whyops_trace._replay.composing import ANSWERS, used, with_text
from whyops_trace._replay.recording import Places, RecordedCall, Recording, ended_by, key_of, opened_by
from whyops_trace._replay.values import LostError, check_whole
from whyops_trace._shapes import dict_of, dicts_of, text_of
from whyops_trace._values.failures import describe_whole
from whyops_trace.exceptions import ConfigurationError, ReplayError

_STATUS: Final = re.compile(r"([45]\d\d)\b:?\s*(.*)", re.DOTALL)
#: Characters of a value, and calls, that a message shows.
_SHOWN: Final = 90
_NAMED: Final = 8


class _Unset:
    def __repr__(self) -> str:
        return "(the recorded one)"


UNSET: Final = _Unset()


@dataclass(frozen=True, slots=True)
class Answer:
    """
    An answer to a call in place of the recorded one; give one of its members.

    Attributes:
        result: What a tool returns, as JSON; of a generator the list of its items; of a client the JSON of an answer.
        error: What is raised: an exception, or a text such as ``ValueError: no such order``. Of a client a text that
            begins with a status, such as ``429 slow down``, is the provider's refusal; any other is a lost connection.
        text: What a model answers, without tool calls.

    Raises:
        ConfigurationError: if none of them is given, or several, or it is of another type.
    """

    result: Any = UNSET
    error: BaseException | str | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        given = [self.result is not UNSET, self.error is not None, self.text is not None]
        if sum(given) != 1:
            raise ConfigurationError("An answer has one of result, error and text.")
        if not isinstance(self.error, BaseException | str | None):
            raise ConfigurationError(f"The error is {self.error!r:.80}; it must be an exception or a text.")
        if not isinstance(self.text, str | None):
            raise ConfigurationError(f"The text is {self.text!r:.80}; it must be a str.")
        if given[0] and not _is_json(self.result):
            raise ConfigurationError(f"The result is {self.result!r:.80}; it must be JSON.")

    def __str__(self) -> str:
        if self.error is not None:
            told = _told(self.error)
            return headline(f"raises {told['type']}: {told.get('message', '')}".removesuffix(": "), _SHOWN)
        if self.text is not None:
            return headline(f"answers {value(self.text)}", _SHOWN)
        return headline(f"returns {value(self.result)}", _SHOWN)


def _is_json(result: Any) -> bool:
    try:
        json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


@dataclass(slots=True)
class Branch:
    """
    The place where a run leaves its recording.

    Attributes:
        recording: The calls before it, which are answered, with the call itself if that is answered otherwise.
        call: The call.
        answer: The answer to it, None if it runs as all that follows.
        rest: The recorded calls that follow, with the call itself if that runs.
        recorded: How the call ended when it was recorded, in words.
        lost: The calls before it that cannot be answered from the recording.
    """

    recording: Recording
    call: RecordedCall
    answer: Answer | None
    rest: list[RecordedCall]
    recorded: str
    lost: list[RecordedCall] = field(default_factory=list)


def branch(recording: Recording, step: int, answer: Answer | None) -> Branch:
    """
    Return a recording as far as it is replayed before a step.

    Calls that began before the answered one had ended could not depend on it: they are answered as recorded.

    Args:
        recording: The recording, which is changed.
        step: The step of the call, or of its end.
        answer: The answer to it; None if it runs.

    Raises:
        ReplayError: if there is no such step, it is no call, or the answer does not fit.
        ConfigurationError: if the step is no whole number, or the answer no :class:`Answer`.
    """
    if isinstance(step, bool) or not isinstance(step, int):
        raise ConfigurationError(f"The step is {step!r}; it must be a whole number.")
    if not (answer is None or isinstance(answer, Answer)):
        raise ConfigurationError(f"The answer is {answer!r:.80}; it must be an Answer: Answer(result=…).")
    if not recording.events:
        raise ReplayError(
            f"{recording.source} comes from a fixture, which has no steps: name the trace itself by its id."
        )
    call = _call_at(recording, step)
    recorded = _ending(call)
    before = call.number - 1 if answer is None else _begun_by_end_of(recording, call)
    if answer is not None:
        _answer(call, answer)
    outer = call.parent
    while outer is not None:  # else it would be answered as a whole, and nothing inside would be called
        outer.holds_model, outer = True, outer.parent
    kept = [each for each in recording.calls if each.number <= before and not _is_inside(each, call)]
    rest = [each for each in recording.calls if each.number > before and not _is_inside(each, call)]
    cut = Recording(recording.source, recording.agent, kept, recording.events)
    return Branch(cut, call, answer, rest, recorded)


def check_answers(found: Branch, free: frozenset[str]) -> None:
    """
    Check that the calls before the step can be answered, and note those of which others are told.

    Args:
        found: The branch.
        free: Names of calls that others answer, or that run.

    Raises:
        ReplayError: if one cannot.
    """
    for call in found.recording.calls:
        if call is found.call or _needs_none(call) or not (reason := _lost(call)):
            continue
        found.lost.append(call)
        if call.name not in free:
            raise ReplayError(
                f"{call} at step {call.step} comes before step {found.call.step} and cannot be answered: {reason}. "
                f"Answer it with swap=, or list {call.name!r} in live=."
            )


def _needs_none(call: RecordedCall) -> bool:
    """Tell whether a call needs no answer: it runs, or is inside one that is answered as a whole."""
    if call.holds_model or call.wraps:
        return True
    outer = call.parent
    while outer is not None:
        if not (outer.holds_model or outer.wraps):
            return True
        outer = outer.parent
    return False


def _lost(call: RecordedCall) -> str:
    """Return why a call cannot be answered, "" if it can be."""
    if call.outcome == "open":
        return "it never ended when it was recorded"
    if call.outcome != "ok" or call.error is not None or call.refusal is not None:
        return ""
    if not call.is_captured:
        return "its result was not captured"
    if call.is_redacted:
        return "its result held a secret, which was not recorded"
    if call.kind == "embedding":
        return "its vectors were not recorded"
    whole = call.answer if call.raw is None else call.raw
    if call.raw is None and call.name in ANSWERS:
        return "its answer was not recorded as it came"
    try:
        check_whole(whole)
    except LostError as error:
        return str(error).partition(";")[0]
    return ""


def _call_at(recording: Recording, step: int) -> RecordedCall:
    """Return the call that begins or ends at a step."""
    calls = {call.step: call for call in recording.calls}
    if step in calls:
        return calls[step]
    here = [event for event in recording.events if event.get("stepId") == step]
    for event in here:
        owner = calls.get(event.get("parentStepId") or 0)
        if owner is not None and opened_by(event) is None and event.get("eventType") != "llm_thinking":
            return owner
    some = ", ".join(f"{call.step} {call.name}" for call in recording.calls[:_NAMED])
    more = f" and {len(recording.calls) - _NAMED} more" if len(recording.calls) > _NAMED else ""
    if not here:
        raise ReplayError(f"There is no step {step} in {recording.source}; its calls are {some}{more}.")
    kind = text_of(here[0].get("eventType"))
    raise ReplayError(
        f"Step {step} of {recording.source} is a record of {kind}, which has no result: name the step of a call of a "
        f"decorated function or traced client, which are {some}{more}."
    )


def _begun_by_end_of(recording: Recording, call: RecordedCall) -> int:
    """Return how many calls had begun when a call ended."""
    begun, places = 0, Places()
    for event in recording.events:
        if opened_by(event) is not None:
            places.add_call(key_of(event), recording.calls[begun])
            begun += 1
        elif ended_by(event, places) is call:
            break
    return begun


def _is_inside(call: RecordedCall, outer: RecordedCall) -> bool:
    around = call.parent
    while around is not None and around is not outer:
        around = around.parent
    return around is outer


def _answer(call: RecordedCall, answer: Answer) -> None:
    """Give a recorded call another answer."""
    is_client = call.name in ANSWERS or call.name in ("completions", "responses.compact")
    before, raw = call.answer, call.raw
    call.outcome, call.error, call.refusal, call.raw = "ok", None, None, None
    call.is_captured, call.is_redacted, call.holds_model, call.wraps = True, False, False, False
    if call.kind == "embedding":
        raise ReplayError(f"{call} is an embedding, which can only be answered with swap=.")
    if answer.error is not None:
        told = _told(answer.error)
        status = _STATUS.match(str(answer.error)) if is_client else None
        if status is not None:
            message = status[2] or "refused"
            body = {"type": "error", "error": {"type": "whatif", "message": message}}
            call.refusal = {"status": int(status[1]), "body": body}
        call.outcome, call.error = "error", told
    elif call.kind == "tool":
        if answer.text is not None:
            raise ReplayError(f"{call} is no call of a model: give its result, not a text.")
        call.answer = _tool_answer(call, before, answer.result)
    elif is_client:
        call.raw = _said(call, raw, answer.text) if answer.text is not None else answer.result
        if not isinstance(call.raw, dict):
            raise ReplayError(
                f"{call} is a request of a client, whose result is the JSON object that the provider answers with; "
                "give a text for an answer in words."
            )
        call.usage = None
    elif call.returned and raw is None:
        raise ReplayError(
            f"{call} returns an object of class {call.returned}, which cannot be made of a text; answer it with swap=."
        )
    else:
        text = answer.text if answer.text is not None else answer.result
        if not isinstance(text, str):
            raise ReplayError(f"{call} is a model that answers in words: give a text.")
        call.answer, call.returned = {"content": text}, ""


def _tool_answer(call: RecordedCall, before: Any, result: Any) -> Any:
    if {"items", "count"} <= dict_of(before).keys() and not call.returned:
        if not isinstance(result, list):
            raise ReplayError(f"{call} is a generator: its result is the list of its items.")
        return {"items": result, "count": len(result)}
    if call.returned == "dict":
        call.returned = ""
    return {"result": result}


def _said(call: RecordedCall, raw: dict[str, Any] | None, text: str) -> dict[str, Any]:
    """Return the answer of a provider that says a text."""
    model = dict_of(call.asked.get("params")).get("model") or call.model
    if call.name not in ANSWERS:
        raise ReplayError(f"{call} cannot be answered with a text: give the JSON of an answer as its result.")
    whole = {"model": model, **(raw or {})}
    whole["usage"] = _zeroed(dict_of(whole.get("usage"))) or used(call.name, Tokens())
    return with_text(call.name, whole, text)


def _zeroed(usage: dict[str, Any]) -> dict[str, Any]:
    """Return the usage of an answer that no model gave: of the form of the recorded one, with no tokens in it."""
    return {
        name: _zeroed(count) if isinstance(count, dict) else 0 if type(count) is int else count
        for name, count in usage.items()
    }


def _told(error: BaseException | str) -> dict[str, Any]:
    """Return an exception as it is recorded."""
    if isinstance(error, BaseException):
        return describe_whole(error, parts=True)
    name, colon, message = error.partition(":")
    if colon and re.fullmatch(r"[A-Za-z_][\w.]*", name):
        return {"type": name, "message": message.strip()}
    return {"type": "RuntimeError", "message": error}


def _ending(call: RecordedCall) -> str:
    """Return in words how a call ended when it was recorded."""
    if call.outcome == "open":
        return "never ended"
    if call.error is not None:
        told = f"raised {text_of(call.error.get('type'))}: {text_of(call.error.get('message'))}"
        return headline(told.removesuffix(": "), _SHOWN)
    if call.outcome != "ok":
        return call.outcome
    if call.kind == "tool":
        answer = call.answer
        plain = answer["result"] if isinstance(answer, dict) and list(answer) == ["result"] else answer
        return headline(f"returned {value(plain)}", _SHOWN)
    return headline(f"answered {decided(call)}", _SHOWN)


def decided(call: RecordedCall) -> str:
    """Return in words what a model answered: the calls it asked for, or its text."""
    answer = dict_of(call.answer)
    asked = [
        f"{text_of(one.get('name'))}({text_of(one.get('arguments')) or value(one.get('arguments'))})"
        for one in (dict_of(each.get("function")) for each in dicts_of(answer.get("toolCalls")))
    ]
    return ", ".join(asked) or value(text_of(answer.get("content")))
