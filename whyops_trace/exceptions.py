"""
The errors of whyops-trace, all of them raised at the call that is wrong.

::

    WhyOpsError
    ├── ConfigurationError (ValueError)   an argument or environment variable of WhyOps(...) cannot be obeyed
    ├── InvalidEventError (ValueError)    an event, id or option that a server would refuse or lose
    ├── UnknownOptionError (TypeError)    an option that does not exist
    ├── TraceNotFoundError (LookupError)  the store has no such trace
    ├── StoreError                        the local store cannot be read or written
    ├── JournalError                      a journal segment is corrupt or from another version
    └── DeliveryError                     a destination takes nothing at present

No error of this tree ever reaches a traced call: they come only from the calls of our own API.
"""

from __future__ import annotations


class WhyOpsError(Exception):
    """Base of every error that whyops-trace raises."""


class ConfigurationError(WhyOpsError, ValueError):
    """A setting of a client is missing, malformed or contradicts another one."""


class InvalidEventError(WhyOpsError, ValueError):
    """An event, or an id or value in it, that a WhyOps server would refuse or silently lose."""


class UnknownOptionError(WhyOpsError, TypeError):
    """An event method or decorator was given an option it does not have."""


class TraceNotFoundError(WhyOpsError, LookupError):
    """The local store has no trace of the name asked for."""


class StoreError(WhyOpsError):
    """The local store cannot be opened, read or written."""


class JournalError(WhyOpsError):
    """A journal segment is corrupt, or was written by another version of the format."""


class DeliveryError(WhyOpsError):
    """
    A destination takes nothing at present; the records stay in the journal and are tried again.

    Attributes:
        wait: Seconds until it is worth trying again; None to leave that to the worker's own backoff.

    Args:
        message: Description of the fault and of what to check; the same text is logged once in a process. Empty if
            nothing is wrong and it is only too early.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait
