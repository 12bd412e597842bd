"""A place in a trace as ids, by which another process goes on there."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, Self, TypeAlias

import msgspec

from whyops_trace._checks import MAX_ID, MAX_NAME, MAX_STEP, check_text
from whyops_trace._recording.shares import count_apart, give_share, take_share
from whyops_trace._recording.state import UNENDING, TraceState

if TYPE_CHECKING:
    from whyops_trace._recording.recorder import Recorder

#: Characters of the text of a place at most; the longest ids make fewer.
MAX_TEXT: Final = 4_000
#: The start of the text of a place: the version of its form.
_VERSION: Final = "1."
#: Bytes of the signature of a place.
_SIGNATURE: Final = 12

_Step: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_STEP)]
_TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_TRACEPARENT: Final = re.compile(
    rf"(?!ff)[0-9a-f]{{2}}-({_TRACE_ID.pattern})-((?!0{{16}})[0-9a-f]{{16}})-[0-9a-f]{{2}}"
)


class Place(NamedTuple):
    """
    A place in a trace, as it is pickled. The types have the bounds for one that another program tells.

    Attributes:
        trace: The trace id.
        numbering: The name of the numbering that the steps belong to, None if they are final.
        within: The step of the enclosing call; 0 at the top.
        parent: The step that the next event follows from; 0 if there is none yet.
        root: The step of the first event of the trace; 0 if there is none yet.
        stride: The distance between two steps.
        user: The user that the trace acts for, "" if none was named.
        agent: The name of the agent of the trace.
        on: True if the trace is recorded.
        first: The first step of the share of the other process.
        end: The step after that share; 0 if it has none, and counts in a range of its own.
        offset: The offset of the numbering on a WhyOps server; -1 if that is not known.
        key: The idempotency key of the first event of the trace, by which the offset can be found there; "" if the
            offset is known.
    """

    trace: str
    numbering: Annotated[str, msgspec.Meta(pattern=r"\A[\w-]{1,64}\Z")] | None
    within: _Step
    parent: _Step
    root: _Step
    stride: Annotated[int, msgspec.Meta(ge=1, le=1_000)]
    user: Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
    agent: Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
    on: bool
    first: _Step = 0
    end: _Step = 0
    offset: Annotated[int, msgspec.Meta(ge=-1, le=MAX_STEP)] = -1
    key: Annotated[str, msgspec.Meta(max_length=MAX_ID)] = ""

    @classmethod
    def of(cls, state: TraceState, within: int, parent: int, *, waits: bool = False) -> Self:
        """
        Return a place in a trace of this process.

        Args:
            state: The trace.
            within: The step of the enclosing call; 0 at the top.
            parent: The step that the next event follows from.
            waits: True if this process waits for the other one. Then that gets a share of the steps before the next one
                here, so that steps rise with time.
        """
        first, end = give_share(state) if waits else (0, 0)
        offset = state.recorder.offset_of(state.numbering)
        return cls(
            state.id, state.numbering, within, parent, state.root, state.stride, state.user, state.agent, state.on,
            first, end, offset, state.root_key if state.numbering and offset < 0 else "",
        )  # fmt: skip

    def text(self, secret: bytes = b"") -> str:
        """
        Return it as a text of letters, digits and ``.-_``, at most :data:`MAX_TEXT` of them.

        Args:
            secret: The key that signs it; empty for no signature.
        """
        payload = _VERSION + base64.urlsafe_b64encode(msgspec.json.encode(self)).rstrip(b"=").decode()
        return f"{payload}.{_signature(payload, secret)}" if secret else payload

    @classmethod
    def read(cls, text: object, secret: bytes = b"") -> Self:
        """
        Return the place that another program tells, which need not be trusted.

        Args:
            text: The text.
            secret: The key that has to have signed it; empty for any signature or none.

        Raises:
            ValueError: if it is none, or nobody with that key has signed it.
            InvalidEventError: if its trace id is too long.
        """
        if not isinstance(text, str) or len(text) > MAX_TEXT or not text.startswith(_VERSION):
            raise ValueError("not a place")
        version, payload, *signed = text.split(".", 2)
        signature = _signature(f"{version}.{payload}", secret)
        if secret and not (signed and hmac.compare_digest(signed[0].encode(), signature.encode())):
            raise ValueError("a place that is not signed with this key")
        place = msgspec.json.decode(base64.b64decode(f"{payload}===", b"-_", validate=False), type=cls)
        check_text("trace", place.trace, MAX_ID)
        return place

    def traceparent(self) -> str:
        """Return it as W3C tells it, with the enclosing call as the parent."""
        return traceparent(self.trace, self.numbering, self.within, on=self.on)


class RemoteParent(NamedTuple):
    """
    The call of another program that W3C's ``traceparent`` tells.

    Attributes:
        trace: Its trace id, 32 hexadecimal digits.
        span: Its own id, 16 hexadecimal digits.
    """

    trace: str
    span: str

    @classmethod
    def read(cls, traceparent: object) -> Self | None:
        """Return what a ``traceparent`` tells, None if it is none."""
        match = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
        return None if match is None else cls(*match.groups())


def traceparent(trace: str, numbering: str | None, within: int, *, on: bool) -> str:
    """Return a place as W3C tells it, with the enclosing call as the parent."""
    return f"00-{w3c_trace_id(trace)}-{w3c_span_id(trace, numbering, within)}-0{on:d}"


def w3c_trace_id(trace: str) -> str:
    """Return a trace id as 32 hexadecimal digits: itself if it is such, also written as a UUID, else a hash of it."""
    digits = trace.replace("-", "") if _UUID.fullmatch(trace) else trace
    return digits if _TRACE_ID.fullmatch(digits) else _hashed(trace, 16).hex()


def w3c_span_id(trace: str, numbering: str | None, step: int) -> str:
    """Return the 16 hexadecimal digits that name a call by the step of its request, the same in each process."""
    return span_id_bytes(trace, numbering, step).hex()


def span_id_bytes(trace: str, numbering: str | None, step: int) -> bytes:
    """Return the bytes of :func:`w3c_span_id`."""
    return _hashed(f"{trace} {numbering} {step}", 8)


def _hashed(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=size).digest()


def _signature(payload: str, secret: bytes) -> str:
    signature = hashlib.blake2b(payload.encode(errors="replace"), key=secret, digest_size=_SIGNATURE).digest()
    return base64.urlsafe_b64encode(signature).decode()


def resume(recorder: Recorder, place: Place) -> TraceState:
    """
    Return the state of a trace that another process began, in the same numbering.

    Its steps are in the share that it was given, or in a range of this process's own, so that no two processes give the
    same. Here each place of one trace leads to the same state.
    """
    recorder.learn_offset(place.numbering, place.offset)
    if place.offset < 0:
        recorder.expect_offset(place.numbering, place.key, place.root)
    with recorder.lock:
        state = recorder.traces.get(place.trace)
        if state is not None and state.numbering == place.numbering:
            take_share(state, place.first, place.end)
            return state
        state = TraceState(recorder, place.trace, place.numbering)
        state.on = recorder.on and place.on
        state.first = state.root = place.root
        state.root_key = place.key
        state.stride, state.ended_ms, state.end = place.stride, UNENDING, 0
        state.belong_to(place.agent)
        if not take_share(state, place.first, place.end):
            count_apart(state)
        recorder.remember(state)
    if place.user:
        state.tell(place.user, b"")
    return state
