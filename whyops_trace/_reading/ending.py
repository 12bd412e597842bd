"""The ending of a trace, found in the same way by all who read it, one record at a time."""

from __future__ import annotations

from typing import Final

import msgspec

#: Types of the records that may end a trace. The end of a step only passes on what ended inside it.
_ENDS: Final = frozenset({"llm_response", "error", "tool_call_response", "embedding_response", "trace_end"})


class Ending(msgspec.Struct, array_like=True, gc=False):
    """
    The last things that were said in a trace, each as its step and its text, whatever order the records come in.

    Attributes:
        answer: The last answer of a model.
        failure: The last error of a model, or of nothing that is named.
        outside: The last end of a tool or an embedding, with the text of its error.
        block: The end of the last block, with the text of its error. It stands behind every step before it.
        step: The largest step so far.
    """

    answer: tuple[int, str] = (0, "")
    failure: tuple[int, str] = (0, "")
    outside: tuple[int, str] = (0, "")
    block: tuple[int, str] = (0, "")
    step: int = 0

    def add(self, kind: str, step: int, error: str, *, said: str = "", tool: object = None) -> None:
        """
        Take the next record.

        Args:
            kind: Its type.
            step: Its step.
            error: The error that it tells of, "" for none.
            said: The answer in it.
            tool: The tool that an ``error`` names.
        """
        self.step = max(self.step, step)
        if kind not in _ENDS:
            return
        if kind == "trace_end":
            self.block = (self.step, error)
        elif kind == "llm_response" and not error:
            self.answer = _later(self.answer, (step, said))
        elif kind == "llm_response" or (kind == "error" and not (tool and isinstance(tool, str))):
            self.failure = _later(self.failure, (step, error))
        else:
            self.outside = _later(self.outside, (step, error))

    def told(self) -> tuple[str, bool]:
        """
        Return what the trace ended with, and whether that is an error.

        A trace ends with the error of its block, unless a model answered after it. Any other ends with what a model
        said last, its answer or its error; or with the error of a tool, if nothing came after that, no call and no end
        of a block.
        """
        turn = max(self.answer[0], self.failure[0])
        if self.block[1] and self.block[0] >= self.answer[0]:
            return self.block[1], True
        if self.outside[1] and self.outside[0] > max(turn, self.block[0]):
            return self.outside[1], True
        return (self.failure[1], True) if self.failure[0] > self.answer[0] else (self.answer[1], False)


def _later(one: tuple[int, str], other: tuple[int, str]) -> tuple[int, str]:
    return other if other[0] >= one[0] else one
