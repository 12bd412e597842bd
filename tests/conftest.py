"""What every test gets: a home of its own, a clean process, and a look at what was recorded."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from collector import Collector
from hypothesis import HealthCheck, settings
from programs import NOWHERE
from provider import Provider
from recorded import Recorded

from whyops_trace import WhyOps, _guard
from whyops_trace.client import forget_clients
from whyops_trace.context import get_scope, set_scope
from whyops_trace.testing import capture_events

# How long an example takes says how busy the machine is.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known that is obeyed here, and Ctrl-C to the programs of tests that run in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "asyncio_only: the test runs on asyncio, and not on trio as well")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each asynchronous test on both event loops, unless it is marked."""
    # OpenAI's package leaves generators open, which trio complains of, so the tests of its clients are.
    alone = metafunc.definition.get_closest_marker("asyncio_only")
    if "anyio_backend" in metafunc.fixturenames and not alone:
        metafunc.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)


class InternalErrors(logging.Handler):
    """Collects the internal errors that the library reports instead of raising them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what begins with "Internal error", with its exception."""
        if record.getMessage().startswith("Internal error"):
            self.texts.append(logging.Formatter().format(record))


@pytest.fixture(autouse=True)
def hygiene(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """Give each test a process as new, and fail the one that leaves a scope, a thread or an internal error."""
    for variable in [name for name in os.environ if name.startswith("WHYOPS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("WHYOPS_HOME", str(tmp_path / "home"))
    for variable in ("WHYOPS_ANALYSE_URL", "WHYOPS_PROXY_URL"):
        monkeypatch.setenv(variable, NOWHERE)
    forget_clients()
    _guard._warned.clear()
    errors = InternalErrors()
    _guard.logger.addHandler(errors)
    yield
    forget_clients()
    _guard.logger.removeHandler(errors)
    _guard._warned.clear()
    scope = get_scope()
    set_scope(None)
    workers = [thread.name for thread in threading.enumerate() if thread.name.startswith("whyops-")]

    assert scope is None
    assert workers == []
    if request.node.get_closest_marker("internal_errors") is None:
        assert errors.texts == []


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Run an asynchronous test on the event loop it is parametrized with."""
    return getattr(request, "param", "asyncio")


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a WhyOps server for the test, as strict as the real one."""
    with Collector() as collector:
        yield collector


@pytest.fixture
def provider() -> Iterator[Provider]:
    """Run OpenAI and Anthropic for the test."""
    with Provider() as provider:
        yield provider


@pytest.fixture
def sdk(collector: Collector, provider: Provider) -> WhyOps:
    """An agent whose clients go through the proxy to that provider."""
    from hybrid import agent  # which needs the packages of both providers

    return agent(collector, provider)


@pytest.fixture
def events() -> Iterator[Recorded]:
    """Collect what the test records; at its end, check what must hold of any records."""
    with capture_events(local=True) as captured:
        recorded = Recorded(captured)
        yield recorded
    recorded.check()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that tells what the library has logged so far."""
    return lambda: [
        record.getMessage() for record in caplog.records if record.name.startswith("whyops_trace")
    ]
