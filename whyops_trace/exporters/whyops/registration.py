"""
Registers an agent with a server before its first event, which waits for that.

A server binds each trace to the version of the agent that was the latest when the trace began. It refuses events of a
trace that is bound to an older version.
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
from whyops_trace.exporters._http import Answer, Http, NoAnswerError
from whyops_trace.exporters.base import backoff
from whyops_trace.exporters.whyops.retry import LONG_WAIT, Wait, decide
from whyops_trace.exporters.whyops.state import Agent, ServerState
from whyops_trace.types import AgentInfo, AgentMetadata

#: Number of 500s for the same metadata, over all processes, after which events go without a registration.
TRIES_OF_500: Final = 3
#: Statuses of a server that has no such endpoint.
NO_ENDPOINT: Final = (404, 405)


def keep_more(url: str, agent_id: str) -> str:
    """
    Return the way to have a server keep more traces of an agent, as a sentence.

    Args:
        url: The URL of the server.
        agent_id: Its id of the agent, "" if that is not known.
    """
    agent = agent_id or "<the agent's id>"
    return (
        f'Raise the agent\'s sampling rate: PATCH {url}/entities/{agent}/sampling-rate with {{"samplingRate": 1}} '
        "keeps all of its traces, up to the server's limit for an agent."
    )


class Registration:
    """
    Registers an agent with a server, once in a process. After a failure it is tried again with backoff.

    Args:
        name: The agent's name.
        key: A key that no agent of another server, account or name has.
        metadata: The result of :func:`whyops_trace.exporters.whyops.agent.check_metadata`; None if there is nothing to
            register.
        servers: The server with its path, then those to ask if the one before has no such endpoint.
        state: The file that keeps the server's answers.

    Attributes:
        info: The server's answer; None before there is one.
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
        """True if there is nothing to register, or any process has registered the same metadata last."""
        return self._done or self._state.agent(self._key).registered == self._fingerprint

    @property
    def agent_id(self) -> str:
        """The server's id of the agent, "" if no process has been told."""
        return self._state.agent(self._key).id

    def count_sampled_out(self, events: int) -> None:
        """Count events of the agent that the server did not keep."""
        if events:
            self._state.count_sampled_out(self._key, events)

    def ensure(self, *, backlog: bool = False) -> None:
        """
        Register the agent, unless that is done.

        Args:
            backlog: True if the waiting events are another process's, which may have had other metadata. They go
                before new metadata.

        Raises:
            DeliveryError: if the server has not taken it. Events wait until it has.
        """
        if self._done:
            return
        if self._process != os.getpid():  # a thread that this forked child does not have may hold the lock
            self._process, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            if self._done:
                return
            agent = self._state.agent(self._key)
            is_changed = agent.registered not in ("", self._fingerprint)
            if backlog and is_changed:
                return
            if is_changed:
                self._warn_of_new_version()
            if time.monotonic() < self._due:
                raise DeliveryError("", self._due - time.monotonic())
            self._register(agent)

    def _register(self, agent: Agent) -> None:
        answer = self._ask()
        info = _info(answer)
        if info is not None:
            self.info, self._done, self._attempt = info, True, 0
            self._state.keep_agent(self._key, Agent(registered=self._fingerprint, id=str(info["agentId"])))
        elif isinstance(answer, Answer) and answer.status == 400 and _words(answer):
            self._go_without(f"it refuses the metadata: {_words(answer)}")
        elif isinstance(answer, Answer) and answer.status == 500 and _words(answer):
            refusals = agent.refusals + 1 if agent.refused == self._fingerprint else 1
            self._state.keep_agent(self._key, agent._replace(refused=self._fingerprint, refusals=refusals))
            if refusals >= TRIES_OF_500:
                self._go_without(
                    "it fails with a 500 again and again. It does so for metadata that an earlier version of the agent "
                    "had and the latest has not, for example after a rollback; changing the metadata registers a new "
                    "version"
                )
            else:
                self._wait(answer)
        else:
            self._wait(answer)

    def _ask(self) -> Answer | NoAnswerError:
        answer: Answer | NoAnswerError = NoAnswerError("There is no server to ask")
        for http, path in self._servers:
            try:
                answer = http.post(path, self._body)
            except NoAnswerError as error:
                return error
            if answer.status not in NO_ENDPOINT:
                return answer
        return answer

    def _wait(self, answer: Answer | NoAnswerError) -> None:
        """Raise the error that keeps the events waiting."""
        self._attempt += 1
        wait = self._decision(answer)
        self._due = time.monotonic() + wait.seconds
        raise DeliveryError(f"registering the agent {self._name!r}: {wait.why}", wait.seconds)

    def _decision(self, answer: Answer | NoAnswerError) -> Wait:
        chance = self._random.random()
        if isinstance(answer, Answer) and answer.status == 409:
            return Wait(
                LONG_WAIT,
                f"the account takes no further agent (409: {_words(answer)}). Use the name of one it has.",
            )
        decision = decide(answer, attempt=self._attempt, events=1, now=datetime.now(UTC), chance=chance)
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

    def _warn_of_new_version(self) -> None:
        warn_once(
            f"agent changed: {self._key}: {self._fingerprint}",
            "The agent_metadata of %r is not what it was registered with before: the server makes a new version of the "
            "agent, and refuses further events of traces that are open under the old one. Finish conversations before "
            "changing it, or use another agent_name.",
            self._name,
        )


def _info(answer: Answer | NoAnswerError) -> AgentInfo | None:
    if not isinstance(answer, Answer) or answer.status not in (200, 201):
        return None
    try:
        info = msgspec.json.decode(answer.body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return cast("AgentInfo", info) if info.get("agentId") else None


def _words(answer: Answer) -> str:
    """Return the reason of a refusal: the text in ``{"error": "..."}``, or the issues that a schema check found."""
    try:
        error = msgspec.json.decode(answer.body)["error"]
        if isinstance(error, str):
            return error
        return "; ".join(
            f"{'.'.join(map(str, issue['path']))}: {issue['message']}" for issue in error["issues"]
        )
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
        return ""
