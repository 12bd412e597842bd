"""How records are handed to destinations: in part, again, later, and to which first."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from journals import die, names

from whyops_trace import WhyOps
from whyops_trace._delivery import pace
from whyops_trace._delivery import worker as worker_module
from whyops_trace._delivery.worker import Delivery
from whyops_trace._journal.journal import ADOPTED_AT_ONCE
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters.base import Batch, Exporter, Outcome

#: Seconds that a test waits for what must happen at all.
PATIENCE = 30.0
#: Seconds that no test waits.
LONG = 3600.0


class Remote(Exporter):
    """
    A destination on a network, which fails with what is in ``errors`` first, and takes ``at_once`` records of a batch.

    Attributes:
        batches: The texts of each batch taken, and whether another process recorded them.
        asked: How often it was handed a batch.
    """

    name = "remote"
    remote = True

    def __init__(self, *errors: Exception, at_once: int = 1000, outcome: Outcome = Outcome.DELIVERED) -> None:
        self.errors = list(errors)
        self.at_once = at_once
        self.outcome = outcome
        self.batches: list[tuple[list[str], bool]] = []
        self.asked = 0
        self.closed = 0
        self._asked = threading.Condition()

    def export(self, batch: Batch) -> Sequence[Outcome]:
        with self._asked:
            self.asked += 1
            self._asked.notify_all()
        if self.errors:
            raise self.errors.pop(0)
        lines = batch.lines[: self.at_once]
        events = [msgspec.json.decode(line) for line in lines]
        self.batches.append(([event["content"]["message"] for event in events], batch.adopted))
        return [self.outcome] * len(lines)

    def close(self) -> None:
        self.closed += 1

    def wait_until_asked(self, times: int) -> None:
        with self._asked:
            assert self._asked.wait_for(lambda: self.asked >= times, PATIENCE)


def client(home: Path, exporter: Exporter, **options: float) -> WhyOps:
    """A client with one destination."""
    return WhyOps(agent_name="shop", home=home, store=False, exporters=[exporter], **options)  # type: ignore[arg-type]


def say(sdk: WhyOps, *texts: str) -> None:
    """Record some events."""
    for text in texts:
        sdk.trace("t").error_sync(text)


def worker(sdk: WhyOps) -> Delivery:
    """The only worker of a client."""
    (delivery,) = sdk._deliveries
    return delivery


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home that is empty at the end."""
    yield tmp_path / "home"

    assert names(tmp_path / "home") == []


def test_a_destination_may_take_the_first_records_of_a_batch(home: Path) -> None:
    """The others come again at once, in order, each once."""
    exporter = Remote(at_once=2)
    sdk = client(home, exporter)
    with sdk.recorder.lock:  # one batch
        say(sdk, *"abcde")
    ledger = sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert [texts for texts, _ in exporter.batches] == [["a", "b"], ["c", "d"], ["e"]]
    assert ledger["remote"] == (5, 5, 0, 0, 0, 0, {})


def test_what_was_taken_of_a_batch_does_not_come_to_the_next_process(home: Path) -> None:
    """Its place in the journal was passed."""
    sdk = client(home, Remote(at_once=2), exit_timeout=0.0)
    first = sdk._deliveries[0].exporters[0]
    assert isinstance(first, Remote)
    original = first.export

    def once(batch: Batch) -> Sequence[Outcome]:
        if first.batches:
            raise DeliveryError("enough", LONG)
        return original(batch)

    first.export = once  # type: ignore[method-assign]
    with sdk.recorder.lock:
        say(sdk, *"abcde")
    sdk.flush_sync(0.5)
    left = sdk.close_sync()
    second = Remote()
    again = client(home, second)
    say(again, "f")
    again.flush_sync(PATIENCE)
    again.close_sync()

    assert (left["remote"].delivered, left["remote"].pending) == (2, 3)
    assert second.batches == [(["c", "d", "e"], True), (["f"], False)]


@pytest.mark.parametrize(
    ("outcome", "tally"),
    [
        (Outcome.DELIVERED, (2, 2, 0, 0, 0, 0, {})),
        (Outcome.SAMPLED_OUT, (2, 0, 0, 2, 0, 0, {})),
        (Outcome.REJECTED, (2, 0, 0, 0, 2, 0, {})),
        (Outcome.WITHHELD, (0, 0, 0, 0, 0, 0, {})),
    ],
)
def test_every_outcome_is_counted(home: Path, outcome: Outcome, tally: tuple[object, ...]) -> None:
    """What is not meant for the destination does not count as emitted."""
    sdk = client(home, Remote(outcome=outcome))
    say(sdk, "a", "b")
    ledger = sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert ledger["remote"] == tally


def test_a_destination_says_when_it_is_worth_trying_again(home: Path) -> None:
    """Until then new records do not have it asked; somebody who waits does."""
    exporter = Remote(*[DeliveryError("the key is wrong", LONG)] * 2)
    sdk = client(home, exporter)
    say(sdk, "a")
    exporter.wait_until_asked(1)
    say(sdk, *"bcd")
    asked = [exporter.asked]
    ledgers = [sdk.flush_sync(0.3)]
    asked.append(exporter.asked)
    ledgers.append(sdk.flush_sync(PATIENCE))
    sdk.close_sync()

    assert asked == [1, 2]
    assert [ledger["remote"].delivered for ledger in ledgers] == [0, 4]
    assert exporter.asked == 3


def test_a_short_wait_ends_by_itself(home: Path) -> None:
    """Nobody has to ask for it."""
    exporter = Remote(DeliveryError("busy", 0.001), DeliveryError("busy"), ConnectionError("busy"))
    sdk = client(home, exporter)
    say(sdk, "a")
    exporter.wait_until_asked(4)
    sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert exporter.batches == [(["a"], False)]


def test_what_is_wrong_is_said_once_and_nothing_if_nothing_is(
    home: Path, said: Callable[[], list[str]]
) -> None:
    """A destination that it is only too early to ask again is not in trouble."""
    errors = ["", "no route", "", "no route", "no key"]
    exporter = Remote(*[DeliveryError(text, 0.001) for text in errors])
    sdk = client(home, exporter)
    say(sdk, "a")
    exporter.wait_until_asked(6)
    sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert [text.rpartition(": ")[2] for text in said()] == ["no route", "no key"]


def test_a_flush_while_an_attempt_fails_has_it_tried_again(home: Path) -> None:
    """What was mended meanwhile is not waited for."""
    exporter = Remote(at_once=1)
    sdk = client(home, exporter)
    flushing, failed = worker(sdk)._pace._urgent, threading.Event()
    original = exporter.export

    def fail_first(batch: Batch) -> Sequence[Outcome]:
        if not failed.is_set():
            exporter.export = original  # type: ignore[method-assign]
            failed.set()
            assert flushing.wait(PATIENCE)
            raise DeliveryError("the key was wrong", LONG)
        return original(batch)

    exporter.export = fail_first  # type: ignore[method-assign]
    say(sdk, "a")
    assert failed.wait(PATIENCE)
    ledger = sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert ledger["remote"].delivered == 1


def test_a_closing_client_waits_for_a_server_that_is_answering(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past its own time: what was sent would be sent again by the next process."""
    monkeypatch.setattr(worker_module, "STOP_GRACE", 0.0)
    exporter = Remote()
    sdk = client(home, exporter, exit_timeout=0.0, answer_timeout=PATIENCE)
    stop, started = worker(sdk), threading.Event()
    original = exporter.export

    def answer_at_the_end(batch: Batch) -> Sequence[Outcome]:
        started.set()
        assert stop._stop.wait(PATIENCE)
        return original(batch)

    exporter.export = answer_at_the_end  # type: ignore[method-assign]
    say(sdk, "a")
    assert started.wait(PATIENCE)
    say(sdk, "b")
    ledger = sdk.close_sync()
    exporter.export = original  # type: ignore[method-assign]
    again = client(home, Remote())
    say(again, "c")
    again.flush_sync(PATIENCE)
    again.close_sync()

    assert (ledger["remote"].delivered, ledger["remote"].pending) == (1, 1)
    assert exporter.batches == [(["a"], False)]
    assert exporter.closed == 1
    assert worker(again).exporters[0].batches == [(["b"], True), (["c"], False)]  # type: ignore[attr-defined]


def test_a_server_that_never_answers_is_left_alone(home: Path, said: Callable[[], list[str]]) -> None:
    """After the time for answers; what it was sent stays for the next process."""
    exporter = Remote()
    sdk = client(home, exporter, exit_timeout=0.0, answer_timeout=0.0)
    started, release = threading.Event(), threading.Event()

    def hang(batch: Batch) -> Sequence[Outcome]:
        started.set()
        assert release.wait(PATIENCE)
        raise DeliveryError("", LONG)

    exporter.export = hang  # type: ignore[method-assign]
    say(sdk, "a")
    assert started.wait(PATIENCE)
    thread = worker(sdk)._thread
    ledger = sdk.close_sync()
    closed = exporter.closed
    release.set()
    assert thread is not None
    thread.join(PATIENCE)
    again = client(home, second := Remote())
    say(again, "b")
    again.flush_sync(PATIENCE)
    again.close_sync()

    assert ledger["remote"].pending == 1
    assert closed == 0
    assert "1 records are not delivered yet" in said()[0]
    assert second.batches == [(["a"], True), (["b"], False)]


@pytest.mark.parametrize("outage", [False, True], ids=["at once", "after an outage"])
def test_a_server_gets_all_that_others_left_before_what_is_new(home: Path, outage: bool) -> None:
    """However much it is, and though it cannot be taken over all at once."""
    left = ADOPTED_AT_ONCE + 6
    for number in range(left):
        dead = client(home, Remote(DeliveryError("", LONG), DeliveryError("", LONG)), exit_timeout=0.0)
        say(dead, str(number))
        dead.close_sync()
    exporter = Remote(*[DeliveryError("", 0.001)] * (3 if outage else 0))
    sdk = client(home, exporter)
    say(sdk, "new")
    sdk.flush_sync(PATIENCE)
    sdk.close_sync()
    texts = [text for texts, _ in exporter.batches for text in texts]

    assert texts[-1] == "new"
    assert texts[:-1] == [str(number) for number in range(left)]
    assert [adopted for _, adopted in exporter.batches] == [True] * left + [False]


class Here(Remote):
    """
    A destination on this machine.

    Attributes:
        ended: The processes it knows are gone.
    """

    name = "here"
    remote = False

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[str] = []

    def process_ended(self, token: str) -> None:
        self.ended.append(token)


def test_a_destination_learns_of_a_process_that_is_gone_though_another_one_was_faster(tmp_path: Path) -> None:
    """What it had delivered itself may be removed before it looks: the other one had the last of it to deliver."""

    def make(here: Here, remote: Remote) -> tuple[WhyOps, Delivery, Delivery]:
        sdk = WhyOps(agent_name="shop", home=tmp_path / "home", store=False, exporters=[here, remote])
        sdk.recorder.wakeups.clear()  # the workers are told when to work
        first, second = sdk._deliveries
        return sdk, *((first, second) if first.exporters == [here] else (second, first))

    dead, deliver_here, _ = make(Here(), Remote())
    say(dead, "a")
    deliver_here.deliver()
    token = dead.recorder.token
    die(dead._journal)
    here, remote = Here(), Remote()
    _, deliver_here, deliver_there = make(here, remote)
    deliver_there.deliver()
    deliver_here.deliver()
    deliver_here.deliver()

    assert remote.batches == [(["a"], True)]
    assert here.batches == []
    assert here.ended == [token]


class Preparing(Remote):
    """Notes in which threads it is told to prepare, and fails at that."""

    def __init__(self) -> None:
        super().__init__()
        self.prepared: list[str] = []

    def prepare(self) -> None:
        self.prepared.append(threading.current_thread().name)
        raise OSError("not now")


def test_a_worker_prepares_its_destinations_once_and_delivers_whatever_comes_of_it(tmp_path: Path) -> None:
    """In its own thread, before it hands over anything, and again after it was closed."""
    exporter = Preparing()
    sdk = client(tmp_path, exporter)
    before = list(exporter.prepared)
    for _ in range(2):
        say(sdk, "one")
        sdk.flush_sync()
        say(sdk, "two")
        sdk.close_sync()

    assert before == []
    assert exporter.prepared == ["whyops-remote"] * 2
    assert sum(len(texts) for texts, _ in exporter.batches) == 4


# Bursts


class Watching(Remote):
    """A destination that notes at each batch whether the program is still recording."""

    def __init__(self) -> None:
        super().__init__(at_once=10**9)
        self.recording = True
        self.seen: list[bool] = []

    def export(self, batch: Batch) -> Sequence[Outcome]:
        self.seen.append(self.recording)
        return super().export(batch)


def test_a_burst_is_left_alone_as_long_as_it_lasts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker beside it would take the interpreter away from the program time and again."""
    monkeypatch.setattr(pace, "BURST", 1)
    monkeypatch.setattr(pace, "LONGEST_BURST", LONG)
    exporter = Watching()
    sdk = client(home, exporter)
    worker(sdk)._pace.linger = linger = 0.3
    ends = time.monotonic() + 2.5 * linger
    while time.monotonic() < ends:
        say(sdk, "a")
    exporter.recording = False
    sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert set(exporter.seen) == {False}


def test_a_burst_that_does_not_end_is_delivered_meanwhile(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits in the journal must not become too much."""
    monkeypatch.setattr(pace, "BURST", 1)
    monkeypatch.setattr(pace, "LONGEST_BURST", 0.2)
    exporter = Watching()
    sdk = client(home, exporter)
    ends = time.monotonic() + PATIENCE
    while not exporter.seen and time.monotonic() < ends:
        say(sdk, "a")
    exporter.recording = False
    sdk.close_sync()

    assert exporter.seen[0]


class Telling(Watching):
    """A destination that records some events while it takes its first batch, as the program may."""

    def __init__(self, sdk: list[WhyOps]) -> None:
        super().__init__()
        self.sdk = sdk

    def export(self, batch: Batch) -> Sequence[Outcome]:
        if not self.seen:
            worker(self.sdk[0])._pace.linger = LONG
            say(self.sdk[0], "b", "c")
        return super().export(batch)


def test_a_burst_that_begins_while_others_are_delivered_gathers_as_well(home: Path) -> None:
    """What was recorded before it is delivered first."""
    own: list[WhyOps] = []
    exporter = Telling(own)
    sdk = client(home, exporter)
    own.append(sdk)
    say(sdk, "a")
    exporter.wait_until_asked(1)
    ends = time.monotonic() + PATIENCE
    while worker(sdk).wake not in sdk.recorder.wakeups and time.monotonic() < ends:  # until it is done
        pass
    exporter.recording = False
    sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert exporter.seen == [True, False]
    assert [texts for texts, _ in exporter.batches] == [["a"], ["b", "c"]]


# What waits for what was recorded


def test_it_is_no_failure_that_it_is_too_early(home: Path) -> None:
    """An exporter that names no fault is asked again after the time that it gives."""
    exporter = Remote(DeliveryError("", 0.001), DeliveryError("", LONG))
    sdk = client(home, exporter)
    say(sdk, "a")
    exporter.wait_until_asked(2)
    failing = worker(sdk).is_failing
    exporter.errors.clear()
    sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert not failing
    assert exporter.batches == [(["a"], False)]


def test_the_newest_record_is_found_before_it_is_delivered(home: Path) -> None:
    """That of a trace, over all that this process recorded; None once it has passed."""
    exporter = Remote(DeliveryError("", LONG))
    sdk = client(home, exporter)
    delivery = worker(sdk)
    for text, trace in (("a", "t"), ("b", "t"), ("c", "u")):
        sdk.trace(trace).error_sync(text)
    parts = [b'"traceId":"%b",' % trace for trace in (b"t", b"u", b"v")]
    found = [delivery.newest(exporter, part, lambda line: True) for part in parts]
    found.append(delivery.newest(exporter, parts[0], lambda line: b'"b"' not in line))
    exporter.errors.clear()
    sdk.flush_sync(PATIENCE)
    after = delivery.newest(exporter, parts[0], lambda line: True)
    sdk.close_sync()

    assert [line and json.loads(line)["content"]["message"] for line in found] == ["b", "c", None, "a"]
    assert after is None


def test_nothing_lingers_while_somebody_is_in_a_hurry(home: Path) -> None:
    """Bursts gather again when everybody who was has relaxed."""
    exporter = Remote()
    sdk = client(home, exporter)
    delivery = worker(sdk)
    delivery._pace.linger = LONG
    delivery.expedite()
    delivery.expedite()
    say(sdk, "a")
    exporter.wait_until_asked(1)
    delivery.relax()
    sdk.flush_sync(PATIENCE)
    say(sdk, "b")
    exporter.wait_until_asked(2)
    delivery.relax()
    delivery.relax()  # once too often
    sdk.flush_sync(PATIENCE)
    say(sdk, "c")
    say(sdk, "d")
    sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert [texts for texts, _ in exporter.batches] == [["a"], ["b"], ["c", "d"]]


# What a destination has to be told before anything is recorded


class Introducing(Remote):
    """A destination that introduces itself, once it is released; it fails at that if it has an error."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.introduced: list[tuple[str, int]] = []
        self.release = threading.Event()
        self.failures = list(errors)

    def on_start(self) -> None:
        assert self.release.wait(PATIENCE)
        self.introduced.append((threading.current_thread().name, len(self.batches)))
        if self.failures:
            raise self.failures.pop(0)


@pytest.mark.parametrize("errors", [[], [DeliveryError("not now")]], ids=["taken", "refused"])
def test_a_worker_that_starts_before_anything_is_recorded_introduces_its_destinations(
    home: Path, errors: list[Exception]
) -> None:
    """Once, in its own thread, whatever comes of it; nothing is handed over."""
    exporter = Introducing(*errors)
    sdk = client(home, exporter)
    delivery = worker(sdk)
    delivery.start(0.0)
    started = delivery.is_started
    exporter.release.set()
    delivery.start(PATIENCE)
    introduced = (delivery.is_started, exporter.asked)
    delivery.start(LONG)
    say(sdk, "a")
    sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert not started
    assert introduced == (True, 0)
    assert exporter.introduced == [("whyops-remote", 0)]


def test_an_introduction_that_hangs_is_not_waited_for_again(home: Path) -> None:
    """The first wait ends after its time."""
    exporter = Introducing()
    sdk = client(home, exporter)
    worker(sdk).start(0.0)
    worker(sdk).start(0.01)
    worker(sdk).start(LONG)
    introduced = list(exporter.introduced)
    exporter.release.set()
    say(sdk, "a")
    sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert introduced == []
    assert exporter.batches == [(["a"], False)]


def test_a_worker_that_nobody_started_introduces_its_destinations_after_its_first_delivery(
    home: Path,
) -> None:
    """Delivering did all that had to be done."""
    exporter = Introducing()
    exporter.release.set()
    sdk = client(home, exporter)
    say(sdk, "a")
    sdk.flush_sync(PATIENCE)
    worker(sdk).start(PATIENCE)
    sdk.close_sync()

    assert exporter.introduced == [("whyops-remote", 1)]


def test_a_destination_introduces_itself_once_a_delivery_has_not_failed(home: Path) -> None:
    """A destination that was down at first is told all the same."""
    exporter = Introducing()
    exporter.errors.append(DeliveryError("down", 0.01))
    exporter.release.set()
    sdk = client(home, exporter)
    say(sdk, "a")
    exporter.wait_until_asked(1)
    sdk.flush_sync(PATIENCE)
    sdk.close_sync()

    assert exporter.introduced == [("whyops-remote", 1)]
