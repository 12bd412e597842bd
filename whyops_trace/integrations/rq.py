"""RQ: a job runs in the trace that it was enqueued in, below the call that enqueued it."""

from __future__ import annotations

from whyops_trace.client import WhyOps
from whyops_trace.integrations._attachment import Attachment, load

__all__ = ["attach"]


def attach(sdk: WhyOps | None = None, *, link: bool = True) -> Attachment:
    """
    Have jobs tell, and go on with, the place in the trace where they are enqueued.

    The line runs where jobs are enqueued, and in the script of the worker. A job that was enqueued outside any trace is
    in a trace of its own.

    Args:
        sdk: The client that records in workers; the default one if it is left out.
        link: False to have no job go on with the trace of its sender.

    Returns:
        The attachment, whose ``detach()`` ends it. It is a context manager as well.

    Raises:
        ConfigurationError: if ``rq`` is not installed.

    Example::

        rq.attach()
        Worker([queue], connection=connection).work()
    """
    attachment: Attachment = load("_rq_jobs", "rq", "rq").attach(sdk, link=link)
    return attachment
