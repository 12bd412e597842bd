"""
The form in which the store keeps the line of a record: without what its row and the blobs tell already.

Characters that no JSON contains stand in the places of these pieces, so that the line comes back byte for byte,
wherever else in it the same text may be. What is long after that is compressed.
"""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

#: Characters above which a text is compressed. Each compression gives up the GIL, so short texts are left alone.
LONG: Final = 200
#: Words that texts often contain, which the compression refers to. They belong to the format of the store.
_USUAL_TEXTS: Final = (
    b'{"type":"function","function":{"name":"","description":"","parameters":{"type":"object","properties":{"":{"type":'
    b'"string","description":"The "}},"required":["{"role":"system","content":"You are {"role":"user","content":[{'
    b'"type":"text","text":"{"type":"tool_result","tool_use_id":"toolu_{"type":"tool_use","id":"toolu_{"role":"tool",'
    b'"tool_call_id":"call_","content":"{"role":"assistant","content":null,"tool_calls":[{"id":"call_","type":"function",'
    b'"function":{"name":"","arguments":"{\\"\x01,"tool":"\x02{"toolCalls":[{"name":"","arguments":{"}],'
    b'"toolResults":{"result":"\x01,"function":"","tools":\x11\x02{"toolName":"","output":\x15,"messages":'
    b'\x13}}\x01,"function":"","model":"claude-gpt-","provider":"anthropic","provider":"openai","latencyMs":,'
    b'"timeToFirstTokenMs":,"responseId":"resp_msg_chatcmpl-","usage":{"promptTokens":,"completionTokens":,'
    b'"cacheReadTokens":,"totalTokens":},"rawResponse":{"id":"msg_","type":"message","role":"assistant","content":[{"type"'
    b':"text","text":""}],"stop_reason":"end_turn","usage":{"input_tokens":,"output_tokens":,"rawResponse":{"id":"chatcmpl-'
    b'","object":"chat.completion","created":17,"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"","refusal":null,"annotations":[],"tool_calls":[{"id":"call_","type":"function","function":{"name":"",'
    b'"arguments":"{\\"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"finish_reason":"stop"}],"usage":{'
    b'"prompt_tokens":,"completion_tokens":,"total_tokens":,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":0}},"service_tier":"default","system_fingerprint":"fp_"}'
    b'\x02{"content":"","toolCalls":[{"id":"call_","type":"function","function":{"name":"","arguments":"{\\"}"}}],'
    b'"finishReason":"tool_calls"}}"finishReason":"stop"}}'
)
#: Level, method, bits of the window and memory of a compression, and the bytes up to which a small window is enough.
#: A large one takes longer to set up than a short text takes to compress.
_SHORT: Final = (6, zlib.DEFLATED, 12, 5)
_LARGE: Final = (1, zlib.DEFLATED, 15, 8)
_WINDOW: Final = 4_096
#: The places of :attr:`Facts.usual`, or of :attr:`Facts.pieces`.
_HEAD, _MIDDLE = "\x01", "\x02"
_MARKS: Final = "\x03\x04\x05\x06\x07"
#: The places of what blobs have.
HOLES: Final = "\x11\x12\x13\x14\x15"
#: Begins a text that is no record, and so may contain any characters.
_FOREIGN: Final = "\x1f"


class Facts(NamedTuple):
    """
    The facts of a record that its row has.

    Attributes:
        step: Its step.
        parent: The step that it follows from, None if it names none.
        within: The step of the enclosing call.
        type: The event type.
        span: Its span id.
        timestamp: When it was recorded.
        key: Its idempotency key.
        trace_id: The id of its trace.
        agent_name: The agent of its trace; "" if that is not known yet.
    """

    step: int
    parent: int | None
    within: int
    type: str
    span: str | None
    timestamp: str
    key: str
    trace_id: str
    agent_name: str

    @property
    def usual(self) -> tuple[str, str]:
        """The two parts of a usual line that say the same as the facts."""
        parent = "" if self.parent is None else f',"parentStepId":{self.parent}'
        return (
            f'{{"eventType":"{self.type}","traceId":"{self.trace_id}","stepId":{self.step}{parent},"metadata":{{'
            f'"within":{self.within}',
            f'}},"spanId":"{self.span}","timestamp":"{self.timestamp}","idempotencyKey":"{self.key}","agentName":"'
            f'{self.agent_name}","content":',
        )

    @property
    def pieces(self) -> tuple[str, ...]:
        """Smaller parts, of which other lines have some."""
        parent = "" if self.parent is None else f',"parentStepId":{self.parent}'
        return (
            f'{{"eventType":"{self.type}","traceId":"{self.trace_id}",',
            f'"run":"{self.key.partition("-")[0]}-',
            f'"stepId":{self.step}{parent},"metadata":{{',
            f'"within":{self.within}',
            f'}},"spanId":"{self.span}","timestamp":"{self.timestamp}","idempotencyKey":"{self.key}","agentName":"',
        )


def packed(text: str, facts: Facts) -> str | bytes:
    """
    Return the line of a record, with or without holes, as it is stored.

    A piece that does not say the same as the facts, or says it in another form, stays where it is.
    """
    if text[:1] != _FOREIGN:
        head, middle = facts.usual
        at = text.find(middle) if facts.agent_name else -1  # without a name, the trace may get one later
        if at >= 0 and text.startswith(head):
            text = "".join((_HEAD, text[len(head) : at], _MIDDLE, text[at + len(middle) :]))
        else:
            for mark, piece in zip(_MARKS, facts.pieces, strict=True):
                text = text.replace(piece, mark, 1)
    return compressed(text)


def unpacked(stored: str | bytes, facts: Facts) -> str:
    """Return a line as it was, with holes where blobs belong."""
    text = decompressed(stored)
    if text[:1] == _FOREIGN:
        return text[1:]
    if text[:1] == _HEAD:
        head, middle = facts.usual
        beginning, _, end = text.partition(_MIDDLE)
        return "".join((head, beginning[1:], middle, end))
    for mark, piece in zip(_MARKS, facts.pieces, strict=True):
        text = text.replace(mark, piece, 1)
    return text


def foreign(text: str) -> str:
    """Return a text that is no record as it is stored."""
    return _FOREIGN + text


def without_holes(text: str) -> str:
    """Return a line as JSON with null in its holes."""
    for hole in HOLES:
        text = text.replace(hole, "null", 1)
    return text


def compressed(text: str) -> str | bytes:
    """Return a text, or what it is compressed to if that is shorter."""
    if len(text) > LONG:
        data = text.encode()
        compress = zlib.compressobj(
            *(_SHORT if len(data) <= _WINDOW else _LARGE), zlib.Z_DEFAULT_STRATEGY, _USUAL_TEXTS
        )
        short = compress.compress(data) + compress.flush()
        if len(short) < len(data):
            return short
    return text


def decompressed(stored: str | bytes) -> str:
    """Return the text that :func:`compressed` took."""
    if isinstance(stored, str):
        return stored
    return zlib.decompressobj(zdict=_USUAL_TEXTS).decompress(stored).decode()
