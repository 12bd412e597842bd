"""The blocks of requests and jobs that arrive with headers, and what is attached to the queues of jobs."""

from __future__ import annotations

from typing import Self

from typing_extensions import Unpack

from whyops_trace import default
from whyops_trace._guard import guarded
from whyops_trace._limits import limits_of
from whyops_trace.client import WhyOps
from whyops_trace.headers import Headers
from whyops_trace.integrations._attachment import Attachment, Patches
from whyops_trace.tracing import Trace
from whyops_trace.types import TraceLimits


class Block:
    """
    The block of a request or job, in the trace that its headers tell of. No error of ours reaches who makes it.

    Args:
        headers: The headers.
        sdk: The client that records; None for the default one.
        link: False to ignore the headers.
        limits: Limits of the block.
    """

    def __init__(
        self, headers: Headers, sdk: WhyOps | None, *, link: bool = True, **limits: Unpack[TraceLimits]
    ) -> None:
        self._headers = headers
        self._limits = limits
        self._sdk = sdk
        self._link = link
        self._trace: Trace | None = None

    @guarded("finding the trace of a request")
    def _find(self) -> Trace:
        make = default.continue_from if self._sdk is None else self._sdk.continue_from
        return make(self._headers, link=self._link, **self._limits)

    def enter(self) -> None:
        """Enter the block."""
        self._trace = self._find()
        if self._trace is not None:
            self._trace.__enter__()

    def leave(self, error: BaseException | None = None) -> None:
        """Leave the block, with the exception that it ends with if it does."""
        if self._trace is not None:
            self._trace.__exit__(None, error, None)

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.leave(error)


def check_limits(**limits: Unpack[TraceLimits]) -> None:
    """
    Check limits once, before requests come.

    Raises:
        ConfigurationError: if one is none, or the extra for ``max_cost`` is not installed.
    """
    limits_of(
        limits.get("max_tokens"),
        limits.get("max_cost"),
        limits.get("max_steps"),
        limits.get("max_seconds"),
        limits.get("on_loop"),
    )


class JobAttachment(Attachment):
    """
    An attachment to the jobs of a queue.

    Args:
        attachments: Those to the same queue, the newest last.
        sdk: The client that records; None for the default one.
        link: False to have no job go on with the trace of its sender.
        patches: The methods of the queue that are replaced.
    """

    def __init__(
        self, attachments: list[Attachment], sdk: WhyOps | None, *, link: bool, patches: Patches | None = None
    ) -> None:
        super().__init__(attachments, sdk, patches)
        self._link = link

    def block(self, headers: Headers) -> Block:
        """Return the block of a job that came with these headers."""
        return Block(headers, self.sdk, link=self._link)
