"""The signals of Celery, by which a task tells where it was sent, and runs there."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# The checks of types have no Celery.

from __future__ import annotations

from typing import Any, Final

from celery import signals

from whyops_trace._guard import guarded
from whyops_trace.client import WhyOps
from whyops_trace.context import find_scope
from whyops_trace.headers import inject
from whyops_trace.integrations._arrivals import Block, JobAttachment
from whyops_trace.integrations._attachment import Attachment

_attachments: Final[list[Attachment]] = []
#: The blocks of the tasks that run, by the identities of their requests: a task that is delivered twice runs twice.
_blocks: Final[dict[int, Block]] = {}


def attach(sdk: WhyOps | None, *, link: bool) -> Attachment:
    """Attach to the tasks of this process; see :func:`whyops_trace.integrations.celery.attach`."""
    signals.before_task_publish.connect(_send, weak=False)
    signals.task_prerun.connect(_begin, weak=False)
    signals.task_postrun.connect(_end, weak=False)
    return JobAttachment(_attachments, sdk, link=link)


def _send(headers: Any = None, **_: Any) -> None:
    if _attachments and isinstance(headers, dict):
        inject(headers, waits=False)


@guarded("beginning the trace of a task")
def _begin(task: Any = None, **_: Any) -> None:
    # A task that runs where it is called has no message, and is where it stands.
    if _attachments and not (task.request.is_eager and find_scope() is not None):
        newest: Any = _attachments[-1]
        block = _blocks[id(task.request)] = newest.block(task.request.headers)
        block.enter()


@guarded("ending the trace of a task")
def _end(task: Any = None, retval: Any = None, state: str = "", **_: Any) -> None:
    if (block := _blocks.pop(id(task.request), None)) is not None:
        block.leave(retval if state == "FAILURE" and isinstance(retval, BaseException) else None)
