"""The jobs of RQ, which tell where they were enqueued in their ``meta``: they have no hook, so methods are replaced."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# The checks of types have no RQ.

from __future__ import annotations

import functools
from typing import Any, Final

from rq.job import Job

from whyops_trace._guard import guarded
from whyops_trace._shapes import dict_of
from whyops_trace.client import WhyOps
from whyops_trace.headers import inject
from whyops_trace.integrations._arrivals import JobAttachment
from whyops_trace.integrations._attachment import Attachment, Patches

#: The member of a job's ``meta`` with the headers.
HEADERS: Final = "whyops"


_attachments: Final[list[Attachment]] = []
_PATCHES: Final = Patches(Job)


def attach(sdk: WhyOps | None, *, link: bool) -> Attachment:
    """Attach to the jobs of this process; see :func:`whyops_trace.integrations.rq.attach`."""
    _PATCHES.put("save", _telling)
    _PATCHES.put("perform", _traced)
    return JobAttachment(_attachments, sdk, link=link, patches=_PATCHES)


@guarded("telling a job of the trace")
def _tell(job: Any) -> None:
    if _attachments and HEADERS not in job.meta and (told := inject(waits=False)):
        job.meta[HEADERS] = told


def _telling(original: Any) -> Any:
    """Return the method that saves a job, which first tells it of the trace."""

    @functools.wraps(original)
    def save(job: Any, *args: Any, **options: Any) -> Any:
        _tell(job)
        return original(job, *args, **options)

    return save


def _traced(original: Any) -> Any:
    """Return the method that does a job, in its trace."""

    @functools.wraps(original)
    def perform(job: Any, *args: Any, **options: Any) -> Any:
        if not _attachments:
            return original(job, *args, **options)
        newest: Any = _attachments[-1]
        with newest.block(dict_of(dict_of(job.meta).get(HEADERS))):
            return original(job, *args, **options)

    return perform
