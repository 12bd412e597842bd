"""All recorders of the process: a capture takes the lines of each, and a fork renews each in the child."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from whyops_trace._forks import at_fork

if TYPE_CHECKING:
    from whyops_trace._recording.recorder import Recorder
    from whyops_trace._recording.state import TraceState

#: Every recorder that is in use.
alive: Final[weakref.WeakSet[Recorder]] = weakref.WeakSet()
#: Functions that are told of each trace with a record that is made long after its end, by the thread that made it.
on_late: Final[list[Callable[[TraceState], None]]] = []
#: True once several layers may tell of one turn: clients of providers are traced, or spans are.
_layered = False
#: Function that takes the lines instead of the journals during a capture.
_sink: Callable[[bytes], None] | None = None


def expect_layers() -> None:
    """Have every recorder, also one made later, know that another layer may tell of the turn of a call."""
    global _layered  # noqa: PLW0603 - of the process
    _layered = True
    for recorder in list(alive):
        recorder.traces_clients = True


def has_layers() -> bool:
    """Return True once several layers may tell of one turn."""
    return _layered


def sink() -> Callable[[bytes], None] | None:
    """Return the function that takes the lines instead of the journals, None outside a capture."""
    return _sink


def capture(sink: Callable[[bytes], None] | None) -> Callable[[bytes], None] | None:
    """
    Send the lines of every recorder, also of recorders made later, to *sink*. None sends them to their journals.

    Returns:
        The *sink* before.
    """
    global _sink
    before, _sink = _sink, sink
    for recorder in list(alive):
        with recorder.lock:
            recorder.redirect(sink)
    return before


def forget_traces() -> None:
    """Let traces that have ended begin anew if they come back, as they do in another process."""
    for recorder in list(alive):
        with recorder.lock:
            for trace_id, state in list(recorder.traces.items()):
                if not (state.blocks or state.open or state.open_tools):
                    del recorder.traces[trace_id]


def _before_fork() -> None:
    # No fork happens in the middle of a record. Every thread takes the locks in the same order.
    for recorder in sorted(alive, key=id):
        recorder.lock.acquire()
        recorder.journal.lock.acquire()


def _after_fork_in_parent() -> None:
    for recorder in alive:
        recorder.journal.lock.release()
        recorder.lock.release()


def _after_fork_in_child() -> None:
    for recorder in alive:
        recorder.renew()


at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
