"""Celery: a task runs in the trace that it was sent from, below the call that sent it."""

from __future__ import annotations

from whyops_trace.client import WhyOps
from whyops_trace.integrations._attachment import Attachment, load

__all__ = ["attach"]


def attach(sdk: WhyOps | None = None, *, link: bool = True) -> Attachment:
    """
    Have tasks tell, and go on with, the place in the trace where they are sent.

    The line belongs into the module of the tasks, so that senders and workers both run it. Retries, chains and groups
    stay in the trace. A task that was sent outside any trace is in a trace of its own.

    Args:
        sdk: The client that records in workers; the default one if it is left out.
        link: False to have no task go on with the trace of its sender.

    Returns:
        The attachment, whose ``detach()`` ends it. It is a context manager as well.

    Raises:
        ConfigurationError: if ``celery`` is not installed.

    Example::

        celery.attach()

        @app.task
        def answer(question):
            return ask(question)
    """
    attachment: Attachment = load("_celery_signals", "celery", "celery").attach(sdk, link=link)
    return attachment
