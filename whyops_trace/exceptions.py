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
    ├── DeliveryError                     a destination takes nothing at present
    ├── ReplayError                       a recording cannot be replayed
    └── AgentRunaway                      a trace used up a limit that it was given

    Exception
    └── RecordedError                     raised inside a replay, for a recorded exception that cannot be made again

    BaseException
    ├── ReplayMiss                        raised inside a replay, by a call that the recording has no answer to
    └── AgentStop                         raised inside the block of such a trace, which raises AgentRunaway at its end

No error of this tree ever reaches a traced call: they come only from the calls of our own API. ``AgentStop`` does, for
whoever asks for it with a limit, and ``ReplayMiss`` and ``RecordedError`` while a replay is open.
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


class AgentRunaway(WhyOpsError):
    """
    The block of a trace used up a limit that it was given.

    Attributes:
        limit: Name of the limit, such as ``max_tokens``.
        allowed: Value of the limit; of ``on_loop`` the number of equal calls that make a loop.
        used: The part of it that was used when a call was refused: tokens, US dollars, calls and steps, seconds, or
            equal calls.
        refused: Name of the first call or step that was refused.
        trace_id: Id of the trace.

    Args:
        message: Description of what was used, with what to do.
        limit: See above, as the rest.
    """

    def __init__(
        self,
        message: str,
        *,
        limit: str = "",
        allowed: float = 0,
        used: float = 0,
        refused: str = "",
        trace_id: str = "",
    ) -> None:
        super().__init__(message)
        self.limit: str = limit
        self.allowed: float = allowed
        self.used: float = used
        self.refused: str = refused
        self.trace_id: str = trace_id


class AgentStop(BaseException):
    """
    Raised in place of a call or step that a trace with a used up limit would begin.

    It is no :class:`Exception`, because an agent catches these and goes on. Let it pass, as :class:`KeyboardInterrupt`:
    the block that was given the limit raises :class:`AgentRunaway` in its place.

    Attributes:
        runaway: The error that the block raises.
    """

    def __init__(self, runaway: AgentRunaway) -> None:
        super().__init__(str(runaway))
        self.runaway: AgentRunaway = runaway

    def __reduce__(self) -> tuple[type[AgentStop], tuple[AgentRunaway]]:
        return AgentStop, (self.runaway,)


class ReplayError(WhyOpsError):
    """A recording cannot be replayed as a whole: it still runs, or its file is of another version, cut or edited."""


class ReplayMiss(BaseException):
    """
    A replay differs from its recording, which has no answer to a call.

    It is no :class:`Exception`, since frameworks tell those of tools to the model, and is raised again when the replay
    is closed, whoever caught it.
    """


class RecordedError(Exception):
    """
    Raised in a replay in place of a recorded exception whose class is not loaded, or cannot be made from its words.

    Attributes:
        type: Full name of the class that it was of.
        message: Message that it had.
    """

    def __init__(self, type: str, message: str) -> None:
        super().__init__(f"{type}: {message}" if message else type)
        self.type: str = type
        self.message: str = message

    def __reduce__(self) -> tuple[type[RecordedError], tuple[str, str]]:
        return RecordedError, (self.type, self.message)
