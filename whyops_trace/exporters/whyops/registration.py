"""
Registers an agent with a server before its first event, which waits for it.

A server binds each trace to the version of the agent that was the latest when the trace began, and refuses events of
a trace that is bound to an older one.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

import msgspec

from whyops_trace._guard import warn_once
from whyops_trace._values import encoding
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters.base import backoff
from whyops_trace.exporters.whyops.http import Answer, Http, NoAnswerError
from whyops_trace.exporters.whyops.retry import LONG_WAIT, Wait, decide
from whyops_trace.exporters.whyops.state import Agent, ServerState
from whyops_trace.types import AgentInfo, AgentMetadata

#: Times a server may fail with a 500 to register the same metadata, over all processes, until events go without.
TRIES_OF_500: Final = 3
#: Answers of a server that has no such endpoint.
NO_ENDPOINT: Final = (404, 405)


class Registration:
    """
    Registers an agent with a server, once in a process; a failure is remembered, and tried again with backoff.

    Args:
        name: The agent's name.
        key: What tells this agent from others: of another server, account or name.
        metadata: What :func:`whyops_trace.exporters.whyops.agent.check_metadata` returned; None: there is nothing to
            register.
        servers: Where to register: the server, then what to ask if that has no such endpoint.
        state: Where what the server says is kept.

    Attributes:
        info: What the server answered; None if it has not.
    """

    def __init__(
        self,
        name: str,
        key: str,
        metadata: AgentMetadata | None,
        servers: Sequence[tuple[Http, str]],
        state: ServerState,
    ) -> None:
        self.info: AgentInfo | None = None
        self._name = name
        self._key = key
        self._servers = servers
        self._state = state
        self._done = metadata is None
        self._body = encoding.encode({"agentName": name, "metadata": metadata})
        self._fingerprint = hashlib.sha256(self._body).hexdigest()
        self._attempt = 0
        self._due = 0.0
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._random = random.Random()  # noqa: S311 - jitter

    @property
    def is_known(self) -> bool:
        """Whether there is nothing to register, or the server was told the same before, by whichever process."""
        return self._done or self._state.agent(self._key).registered == self._fingerprint

    def ensure(self, *, backlog: bool = False) -> None:
        """
        Register the agent, unless that is done.

        Args:
            backlog: Whether the events that wait for it are another process's, which may have had other metadata:
                they go before metadata that is new.

        Raises:
            DeliveryError: if the server has not taken it; events wait until it has.
        """
        if self._done:
            return
        if self._process != os.getpid():  # a thread that this forked child does not have may hold the lock
            self._process, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            if self._done:
                return
            known = self._state.agent(self._key)
            changed = known.registered not in ("", self._fingerprint)
            if backlog and changed:
                return
            if changed:
                self._say_what_changes()
            if time.monotonic() < self._due:
                raise DeliveryError("", self._due - time.monotonic())
            self._register(known)

    def _register(self, known: Agent) -> None:
        said = self._ask()
        info = _info(said)
        if info is not None:
            self.info, self._done, self._attempt = info, True, 0
            self._state.keep_agent(self._key, Agent(registered=self._fingerprint))
        elif isinstance(said, Answer) and said.status == 400 and _words(said):
            self._go_without(f"it refuses the metadata: {_words(said)}")
        elif isinstance(said, Answer) and said.status == 500 and _words(said):
            refusals = known.refusals + 1 if known.refused == self._fingerprint else 1
            self._state.keep_agent(self._key, known._replace(refused=self._fingerprint, refusals=refusals))
            if refusals >= TRIES_OF_500:
                self._go_without(
                    "it fails with a 500 again and again. It does so for metadata that an earlier version of the agent "
                    "had and the latest has not, for example after a rollback; changing the metadata registers a new "
                    "version"
                )
            else:
                self._wait(said)
        else:
            self._wait(said)

    def _ask(self) -> Answer | NoAnswerError:
        said: Answer | NoAnswerError = NoAnswerError("There is no server to ask")
        for http, path in self._servers:
            try:
                said = http.post(path, self._body)
            except NoAnswerError as error:
                return error
            if said.status not in NO_ENDPOINT:
                return said
        return said

    def _wait(self, said: Answer | NoAnswerError) -> None:
        """Raise what keeps the events waiting."""
        self._attempt += 1
        wait = self._decision(said)
        self._due = time.monotonic() + wait.seconds
        raise DeliveryError(f"registering the agent {self._name!r}: {wait.why}", wait.seconds)

    def _decision(self, said: Answer | NoAnswerError) -> Wait:
        chance = self._random.random()
        if isinstance(said, Answer) and said.status == 409:
            return Wait(
                LONG_WAIT,
                f"the account takes no further agent (409: {_words(said)}). Use the name of one it has.",
            )
        decision = decide(said, attempt=self._attempt, events=1, now=datetime.now(UTC), chance=chance)
        if isinstance(decision, Wait):
            return decision
        return Wait(backoff(self._attempt, chance), f"the server refuses it: {decision}.")

    def _go_without(self, why: str) -> None:
        self._done = True
        warn_once(
            f"agent not registered: {self._key}",
            "The agent %r is not registered with this metadata, and its events go to the version the server knows: %s.",
            self._name,
            why,
        )

    def _say_what_changes(self) -> None:
        warn_once(
            f"agent changed: {self._key}: {self._fingerprint}",
            "The agent_metadata of %r is not what it was registered with before: the server makes a new version of the "
            "agent, and refuses further events of traces that are open under the old one. Finish conversations before "
            "changing it, or use another agent_name.",
            self._name,
        )


def _info(said: Answer | NoAnswerError) -> AgentInfo | None:
    if not isinstance(said, Answer) or said.status not in (200, 201):
        return None
    try:
        info = msgspec.json.decode(said.body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return cast("AgentInfo", info) if info.get("agentId") else None


def _words(said: Answer) -> str:
    """Return the words of a refusal: ``{"error": "..."}``, or the issues of a schema that does not fit."""
    try:
        error = msgspec.json.decode(said.body)["error"]
        if isinstance(error, str):
            return error
        return "; ".join(
            f"{'.'.join(map(str, issue['path']))}: {issue['message']}" for issue in error["issues"]
        )
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
        return ""
