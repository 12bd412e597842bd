"""The ending of a trace, found in the same way by all who read it, one record at a time."""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple

import msgspec

from whyops_trace._models.links import asked_arguments
from whyops_trace._reading.excerpt import answer, clean, excerpt, get, value
from whyops_trace._reading.verdict import Verdict, last_traceback, service_notice
from whyops_trace._shapes import dict_of, dicts_of, text_of

#: Kinds of endings: "call" if nothing came after a call of a tool, "limit" if its rounds were used up, "" if nothing
#: was said.
Kind = Literal["", "answer", "error", "call", "limit"]

#: Types of the records that may end a trace. The end of a step only passes on what ended inside it.
_ENDS: Final = frozenset({"llm_response", "error", "tool_call_response", "embedding_response", "trace_end"})
#: An answer that only says that it was the last one.
_SENTINEL: Final = re.compile(
    r"\W*(?:terminate|task[ _]?(?:complete|done)d?|final[ _]answer|stop|done|exit|eom)\W*", re.I
)
#: The beginning of an answer which says that its rounds were used up.
_LIMIT: Final = re.compile(
    r"[^\n]{0,80}?\b(?:max(?:imum)?(?: number of)?|limit of|too many) ?[\w()]{0,20} ?"
    r"(?:calls|iterations|rounds|steps|turns|retries)\b(?: ?\(?\d{0,6}\)?)(?: (?:was|were|has been|have been))? ?"
    r"(?:exceeded|hit|reached|used up)|[^\n]{0,80}?\b(?:iteration|recursion|round|step|turn) limit\b"
    r"|(?:reached|exceeded|hit) (?:the |its )?max(?:imum)?[ _](?:\w+ of )?(?:iterations|rounds|steps|turns)",
    re.I,
)
_LIMITS: Final = ("limit", "max", "too many")
#: Words in the names of tools that are meant to be the last. One may begin with a capital after a small letter.
_LAST: Final = re.compile(
    r"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))"
    r"(?i:answer|complete|done|end(?![a-z])|escalate|final|finish|hand_?(?:off|over)|respond|submit|terminate|transfer)"
)
#: Those of them that hand over, and so give no answer.
_HANDS_OVER: Final = re.compile(r"escalate|hand_?(?:off|over)|transfer", re.I)
#: Members of the arguments of such a call that hold the answer.
_ANSWERS: Final = ("answer", "final_answer", "response", "result", "output", "message", "summary", "text")
#: The only argument of a call with which an agent hands in its work: a command of its own, or a mark that it prints.
_SUBMITS: Final = re.compile(
    r"\W{0,4}(?:submit\b[^\n]{0,200}|echo \W?\w{0,60}(?:FINAL_OUTPUT|SUBMIT)\w{0,40}\b[^\n]{0,200})\s*"
)
#: Pieces of text of which one is in each such call, and the longest content of one, in bytes.
SUBMIT_SIGNS: Final = ("submit", "SUBMIT", "FINAL_OUTPUT")
SUBMIT_BYTES: Final = 800
_ENDED: Final = "ended by "
#: Longest answer that may be a sentinel alone.
_SHORT: Final = 40


class Told(NamedTuple):
    """
    The end of a trace.

    Attributes:
        kind: Its kind.
        text: The answer, the error, or in words after which call it stopped.
        sentinel: What ended the run after the answer, such as ``TERMINATE`` or the tool of the last call; "" if
            nothing did.
    """

    kind: Kind
    text: str
    sentinel: str = ""


class Ending(msgspec.Struct, array_like=True, gc=False):
    """
    The last things that were said in a trace, each as its step and its text, whatever order the records come in.

    Attributes:
        answer: The last answer of a model that does not only end the run.
        failure: The last error of a model, or of nothing that is named, or an answer that ends with a traceback, or is
            a notice of its service.
        outside: The last end of a tool or an embedding, with the text of its error.
        block: The end of the last block, with the text of its error. It stands behind every step before it.
        step: The largest step so far.
        asked: The last answer that asked for calls.
        call: The last end of a tool, in words.
        outcome: The last end of a tool that says that it failed, or found nothing: the run stopped there if nothing
            was said after it, asked for or not.
        sentinel: The last answer that only ends the run.
        limited: The last answer which says that the rounds were used up.
        request: The last request of a tool, and the last one that hands in the agent's work.
    """

    answer: tuple[int, str] = (0, "")
    failure: tuple[int, str] = (0, "")
    outside: tuple[int, str] = (0, "")
    block: tuple[int, str] = (0, "")
    step: int = 0
    asked: int = 0
    call: tuple[int, str] = (0, "")
    outcome: int = 0
    sentinel: tuple[int, str] = (0, "")
    limited: int = 0
    request: tuple[int, int] = (0, 0)

    def add(
        self,
        kind: str,
        step: int,
        error: str,
        *,
        content: Any = None,
        tool: object = None,
        verdict: Verdict | None = None,
        most: int = 0,
    ) -> None:
        """
        Take the next record.

        Args:
            kind: Its type.
            step: Its step.
            error: The error that it tells of, "" for none.
            content: The content of an ``llm_response``, and of a ``tool_call_request`` that may hand in the work.
            tool: The tool that it names.
            verdict: The verdict of a tool's results.
            most: Largest number of characters of a text that is kept, 0 to keep all.
        """
        self.step = max(self.step, step)
        if kind == "tool_call_request":
            self.request = max(self.request[0], step), step if _submits(content) else self.request[1]
        if kind not in _ENDS:
            return
        if kind == "llm_response" and not error:
            self._add_answer(step, content, most)
            return
        error = excerpt(error, most) if most else error
        if kind == "trace_end":
            self.block = (self.step, error)
        elif kind == "llm_response" or (kind == "error" and not (tool and isinstance(tool, str))):
            self.failure = _later(self.failure, (step, error))
        else:
            self.outside = _later(self.outside, (step, error))
            if kind == "tool_call_response":
                name = excerpt(tool, 80) if isinstance(tool, str) and tool else "a tool"
                self._add_call(step, name, f"failed: {error}" if error else "", verdict)

    def _add_answer(self, step: int, content: Any, most: int) -> None:
        calls = dicts_of(get(content, "toolCalls"))
        said = _handed_in(calls) or answer(content)
        asks = bool(calls)
        if asks:
            self.asked = max(self.asked, step)
        raised = last_traceback(said) or ("" if asks else service_notice(said))
        text = excerpt(raised or said, most) if most else raised or said
        if raised:
            self.failure = _later(self.failure, (step, text))
        elif not asks and len(said) <= _SHORT and _SENTINEL.fullmatch(said):
            self.sentinel = _later(self.sentinel, (step, text))
        else:
            self.answer = _later(self.answer, (step, text))
            beginning = said[:400].lower()
            if any(word in beginning for word in _LIMITS) and _LIMIT.match(beginning):
                self.limited = max(self.limited, step)

    def _add_call(self, step: int, name: str, failed: str, verdict: Verdict | None) -> None:
        if verdict is not None and not failed:
            failed = (
                f"said that it failed: {clean(verdict.words)}"
                if verdict.kind == "failed"
                else "came back empty"
            )
            self.outcome = max(self.outcome, step)
        submits = self.request[1] == self.request[0] > 0 and failed in ("", "came back empty")
        if submits:
            name, failed = f"{name}, which submits", ""
        verb = _ENDED if submits or (_LAST.search(name) and not failed) else "stopped after "
        self.call = _later(self.call, (step, verb + name + (f", which {failed}" if failed else "")))

    def told(self) -> Told:
        """
        Return what the trace ended with.

        A trace ends with the error of its block, unless a model answered after it. Any other ends with what a model
        said last, its answer or its error; or with the error of a tool, if nothing came after that, no call and no end
        of a block. It stopped after a call of a tool if the last answer asked for calls, or if the call says that it
        failed or found nothing, and no model said anything after it. What was said with a call that was meant to be
        the last is the answer, unless it hands over.
        """
        said = max(self.answer[0], self.sentinel[0])
        turn = max(said, self.failure[0])
        if self.block[1] and self.block[0] >= said:
            return Told("error", self.block[1])
        if self.outside[1] and self.outside[0] > max(turn, self.block[0]):
            return Told("error", self.outside[1])
        if self.failure[0] > said:
            return Told("error", self.failure[1])
        step, text = self.call
        if turn and step > turn and (self.asked == turn or self.outcome == step):
            words = self.answer[1] if self.answer[0] == turn and text.startswith(_ENDED) else ""
            if words and not _HANDS_OVER.search(text):
                return Told("answer", words, text.removeprefix(_ENDED))
            return Told("call", text)
        sentinel = self.sentinel[1] if self.sentinel[0] > self.answer[0] else ""
        text = self.answer[1] or sentinel
        limited = 0 < self.limited == self.answer[0]
        return Told(
            "limit" if limited else "answer" if text else "", text, sentinel if text != sentinel else ""
        )


def _submits(content: Any) -> bool:
    """Return True if the only argument of a call is a command that hands in the agent's work."""
    calls = dicts_of(get(content, "toolCalls"))
    arguments = [*dict_of(calls[0].get("arguments")).values()] if len(calls) == 1 else []
    return len(arguments) == 1 and isinstance(arguments[0], str) and bool(_SUBMITS.fullmatch(arguments[0]))


def _handed_in(calls: list[dict[str, Any]]) -> str:
    """Return the answer in the arguments of a call that gives one, "" if a turn asked for anything else."""
    function = get(calls[0], "function") if len(calls) == 1 else None
    name = text_of(get(function, "name"))
    if not _LAST.search(name) or _HANDS_OVER.search(name):
        return ""
    arguments = dict_of(asked_arguments(get(function, "arguments")))
    found = next((one for one in map(arguments.get, _ANSWERS) if one not in (None, "")), "")
    return found if isinstance(found, str) else value(found)


def _later(one: tuple[int, str], other: tuple[int, str]) -> tuple[int, str]:
    return other if other[0] >= one[0] else one
