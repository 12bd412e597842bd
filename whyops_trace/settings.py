"""Settings of a client: from its arguments, or else from the environment, which is read when it is made."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast, get_args
from urllib.parse import urlsplit

import msgspec

from whyops_trace._checks import MAX_NAME, size
from whyops_trace._guard import warn_once
from whyops_trace._home import home_directory
from whyops_trace._shapes import is_number
from whyops_trace._values.encoding import identifier
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.sampling import TailSampling
from whyops_trace.sampling import tail_sampling as choice_of
from whyops_trace.types import Fsync, JournalMode

C = TypeVar("C", bound=str)

#: The hosted WhyOps proxy.
DEFAULT_PROXY_URL: Final = "https://proxy.whyops.com"
#: The hosted WhyOps server.
DEFAULT_ANALYSE_URL: Final = "https://a.whyops.com/api"

#: The receiver of spans of OpenTelemetry, unless told otherwise.
DEFAULT_OTLP_URL: Final = "http://localhost:4318"

#: Bytes of a record unless told otherwise: servers, and the load balancers before them, refuse larger bodies.
MAX_EVENT_BYTES: Final = 1_000_000
#: The least ``max_event_bytes``.
MIN_EVENT_BYTES: Final = 10_000
#: Bytes of the messages of earlier requests to models that are kept in memory, unless told otherwise.
MAX_HISTORY_BYTES: Final = 16 << 20
#: Bytes of the records that wait on disk, of one client, unless told otherwise.
MAX_JOURNAL_BYTES: Final = 256 << 20
#: The least ``max_journal_bytes``.
MIN_JOURNAL_BYTES: Final = 1 << 20
#: Days that the local store keeps a trace after it was last written to, unless told otherwise.
MAX_STORE_DAYS: Final = 7.0
#: Bytes that all traces in the local store may take together, unless told otherwise.
MAX_STORE_BYTES: Final = 512 << 20
#: The least ``max_store_bytes``: an empty store takes some of it.
MIN_STORE_BYTES: Final = 1 << 20

#: Seconds that a request through the proxy waits at most, unless told otherwise.
PROXY_WAIT: Final = 1.0

#: The environment variables that are read.
VARIABLES: Final = frozenset(
    {
        "WHYOPS_AGENT_NAME",
        "WHYOPS_ANALYSE_URL",
        "WHYOPS_API_KEY",
        "WHYOPS_CONSOLE",
        "WHYOPS_FSYNC",
        "WHYOPS_HOME",
        "WHYOPS_JOURNAL",
        "WHYOPS_LINK",
        "WHYOPS_MAX_EVENT_BYTES",
        "WHYOPS_MAX_HISTORY_BYTES",
        "WHYOPS_MAX_JOURNAL_BYTES",
        "WHYOPS_MAX_STORE_BYTES",
        "WHYOPS_MAX_STORE_DAYS",
        "WHYOPS_OTLP",
        "WHYOPS_OTLP_CONTENT",
        "WHYOPS_OTLP_OPENINFERENCE",
        "WHYOPS_PROXY_URL",
        "WHYOPS_PROXY_WAIT",
        "WHYOPS_SAMPLE_RATE",
        "WHYOPS_SEND_RAW_RESPONSES",
        "WHYOPS_STORE",
        "WHYOPS_TAIL_SAMPLING",
        "WHYOPS_TRACING",
    }
)

#: The modes of tracing: "on"; "off", where nothing is recorded; "local", where nothing leaves the machine.
Tracing = Literal["on", "off", "local"]


class Retention(NamedTuple):
    """
    Bounds of the local store; the arguments of :meth:`whyops_trace.store.Store.prune`.

    Attributes:
        max_age_seconds: Seconds after its last record that a trace is deleted.
        max_bytes: Size of the store above which the oldest traces are deleted.
    """

    max_age_seconds: float = MAX_STORE_DAYS * 86_400
    max_bytes: int = MAX_STORE_BYTES


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Settings of a client, each from an argument or else from an environment variable.

    Attributes:
        api_key: ``WHYOPS_API_KEY``; "" records to the local store.
        agent_name: ``WHYOPS_AGENT_NAME``, else the name of the program; 1 to 255 characters.
        proxy_url: ``WHYOPS_PROXY_URL``, without ``/v1`` or a slash at its end.
        analyse_url: ``WHYOPS_ANALYSE_URL``, without a slash at its end.
        home: ``WHYOPS_HOME``, else ``~/.whyops``: directory of the journal and the local store.
        tracing: ``WHYOPS_TRACING``: "on", "off" or "local".
        store: ``WHYOPS_STORE``: True to keep records in the local store; by default if they go to no server.
        console: ``WHYOPS_CONSOLE=tree``: True to print finished traces.
        otlp: ``WHYOPS_OTLP=on|URL``: the URL that spans of OpenTelemetry are posted to, "" for none.
        max_event_bytes: ``WHYOPS_MAX_EVENT_BYTES``: bytes of a record at most.
        journal: ``WHYOPS_JOURNAL``: "map", "write", "checked" or "write-checked": how a record is written to the disk.
        fsync: ``WHYOPS_FSYNC``: "never", "interval" or "always": when the journal waits for the disk.
        max_history_bytes: ``WHYOPS_MAX_HISTORY_BYTES``: bytes of earlier messages that are kept in memory at most.
        max_journal_bytes: ``WHYOPS_MAX_JOURNAL_BYTES``: bytes of the records that wait on disk at most.
        sample_rate: ``WHYOPS_SAMPLE_RATE``: the share of traces that are recorded, 0 to 1.
        tail_sampling: ``WHYOPS_TAIL_SAMPLING``: the choice of traces that remote destinations get; None for all.
        max_store_days: ``WHYOPS_MAX_STORE_DAYS``: days that the local store keeps a trace.
        max_store_bytes: ``WHYOPS_MAX_STORE_BYTES``: bytes of the local store at most.
        proxy_wait: ``WHYOPS_PROXY_WAIT``: seconds at most that a request to a model, on its way through the WhyOps
            proxy, waits for the server to store the newest record before it; 0 does not wait.
        send_raw_responses: ``WHYOPS_SEND_RAW_RESPONSES=on``: True to send a WhyOps server the responses of models as
            the provider had them, which are for the local destinations otherwise.
        link: ``WHYOPS_LINK=off``: False to ignore what the headers of requests tell of the traces of others.
    """

    api_key: str
    agent_name: str
    proxy_url: str
    analyse_url: str
    home: Path
    tracing: Tracing
    store: bool
    console: bool
    otlp: str
    journal: JournalMode
    fsync: Fsync
    max_event_bytes: int
    max_history_bytes: int
    max_journal_bytes: int
    sample_rate: float
    tail_sampling: TailSampling | None
    max_store_days: float
    max_store_bytes: int
    proxy_wait: float
    send_raw_responses: bool
    link: bool

    @property
    def retention(self) -> Retention:
        """Bounds of the local store."""
        return Retention(self.max_store_days * 86_400, self.max_store_bytes)

    @property
    def server(self) -> bool:
        """True if records go to a WhyOps server."""
        return bool(self.api_key) and self.tracing == "on"

    def stream(self, destinations: Sequence[str]) -> str:
        """
        Return the name under which records may be delivered together: same server, key, agent and destinations.

        The key itself is never written to disk; what tells keys apart is its SHA-256.
        """
        key = hashlib.sha256(self.api_key.encode("utf-8", "surrogatepass")).hexdigest()
        parts = "\0".join([self.analyse_url, key, self.agent_name, *destinations, *filter(None, [self.otlp])])
        return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def resolve(
    *,
    api_key: str | None,
    agent_name: str | None,
    proxy_base_url: str | None,
    analyse_base_url: str | None,
    home: str | os.PathLike[str] | None,
    tracing: Tracing | bool | None,
    store: bool | None,
    console: bool | None,
    otlp: bool | str | None = None,
    journal: JournalMode | None = None,
    fsync: Fsync | None = None,
    max_event_bytes: int | None = None,
    max_history_bytes: int | None = None,
    max_journal_bytes: int | None = None,
    sample_rate: float | None = None,
    tail_sampling: TailSampling | float | None = None,
    max_store_days: float | None = None,
    max_store_bytes: int | None = None,
    proxy_wait: float | None = None,
    send_raw_responses: bool | None = None,
    link: bool | None = None,
) -> Settings:
    """
    Return the settings of a client, each from its argument or, where that is None, from the environment.

    Raises:
        ConfigurationError: if one cannot be obeyed.
    """
    if store is None:
        store = switch("WHYOPS_STORE")
    if console is None:
        console = switch("WHYOPS_CONSOLE", {"tree": True, "off": False})
    if send_raw_responses is None:
        send_raw_responses = switch("WHYOPS_SEND_RAW_RESPONSES")
    if link is None:
        link = switch("WHYOPS_LINK")
    key = _key(api_key)
    mode = _tracing(tracing)
    return Settings(
        api_key=key,
        agent_name=_agent_name(agent_name),
        proxy_url=_url("proxy_base_url", proxy_base_url, "WHYOPS_PROXY_URL", DEFAULT_PROXY_URL).removesuffix(
            "/v1"
        ),
        analyse_url=_url("analyse_base_url", analyse_base_url, "WHYOPS_ANALYSE_URL", DEFAULT_ANALYSE_URL),
        home=home_directory(home),
        tracing=mode,
        store=not key or mode == "local" if store is None else store,
        console=bool(console),
        otlp=_otlp(otlp) if mode == "on" else "",
        journal=_choice("journal", journal, JournalMode),
        fsync=_choice("fsync", fsync, Fsync),
        max_event_bytes=_size("max_event_bytes", max_event_bytes, MIN_EVENT_BYTES, MAX_EVENT_BYTES),
        max_history_bytes=_size("max_history_bytes", max_history_bytes, 0, MAX_HISTORY_BYTES),
        max_journal_bytes=_size("max_journal_bytes", max_journal_bytes, MIN_JOURNAL_BYTES, MAX_JOURNAL_BYTES),
        sample_rate=_sample_rate(sample_rate),
        tail_sampling=choice_of(tail_sampling),
        max_store_days=_days(max_store_days),
        max_store_bytes=_size("max_store_bytes", max_store_bytes, MIN_STORE_BYTES, MAX_STORE_BYTES),
        proxy_wait=_proxy_wait(proxy_wait),
        send_raw_responses=bool(send_raw_responses),
        link=link is not False,
    )


def at_hand(home: Path) -> Settings:
    """
    Return the settings that the environment gives for a home.

    Raises:
        ConfigurationError: if one cannot be obeyed.
    """
    return resolve(
        api_key=None,
        agent_name=None,
        proxy_base_url=None,
        analyse_base_url=None,
        home=home,
        tracing=None,
        store=None,
        console=None,
    )


def as_agent(settings: Settings, agent: str) -> Settings:
    """Return settings under the name of another agent."""
    return msgspec.structs.replace(settings, agent_name=agent)


def _key(value: str | None) -> str:
    key = _text("api_key", value, "WHYOPS_API_KEY").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError("api_key (WHYOPS_API_KEY) has characters that no key has; copy it again.")
    if key and not key.startswith(("whyops_", "YOPS-")):
        warn_once(
            "api_key",
            "api_key (WHYOPS_API_KEY) does not begin with whyops_ or YOPS-, as the keys of WhyOps do.",
        )
    return key


def _agent_name(value: str | None) -> str:
    name = _text("agent_name", value, "WHYOPS_AGENT_NAME")
    if size(name) > MAX_NAME:
        raise ConfigurationError(f"agent_name has {size(name)} characters; at most {MAX_NAME} are possible.")
    return identifier(name or Path(sys.argv[0] if sys.argv else "").stem[:MAX_NAME] or "agent")


def _tracing(value: Tracing | bool | None) -> Tracing:
    if isinstance(value, bool):
        return "on" if value else "off"
    tracing = value or os.environ.get("WHYOPS_TRACING", "").lower() or "on"
    if tracing not in get_args(Tracing):
        raise ConfigurationError(f"tracing (WHYOPS_TRACING) is {tracing!r}; it must be on, off or local.")
    return cast("Tracing", tracing)


def _choice(name: str, value: C | None, choices: Any) -> C:
    """Return one of a few words, the first if none is given."""
    variable = f"WHYOPS_{name.upper()}"
    words: tuple[C, ...] = get_args(choices)
    word: object = value or os.environ.get(variable, "").lower() or words[0]
    if word not in words:
        raise ConfigurationError(
            f"{name} ({variable}) is {word!r}; it must be {', '.join(map(str, words[:-1]))} or {words[-1]}."
        )
    return next(each for each in words if each == word)


def _size(name: str, value: int | None, least: int, default: int) -> int:
    variable = f"WHYOPS_{name.upper()}"
    number: object = value
    if value is None:
        text = os.environ.get(variable, "").replace("_", "")
        number = int(text) if text.isdecimal() else text or default
    if type(number) is not int or number < least:
        raise ConfigurationError(f"{name} ({variable}) is {number!r}; it must be an int of {least} or more.")
    return number


def _sample_rate(value: float | None) -> float:
    rate = _number(value, "WHYOPS_SAMPLE_RATE", 1.0)
    if rate is None or not 0 <= rate <= 1:
        raise ConfigurationError(
            f"sample_rate (WHYOPS_SAMPLE_RATE) is {_given(value, 'WHYOPS_SAMPLE_RATE')}; "
            "it must be a number from 0 to 1, such as 0.1."
        )
    return rate


def _days(value: float | None) -> float:
    days = _number(value, "WHYOPS_MAX_STORE_DAYS", MAX_STORE_DAYS)
    if days is None or not 0 < days < math.inf:
        raise ConfigurationError(
            f"max_store_days (WHYOPS_MAX_STORE_DAYS) is {_given(value, 'WHYOPS_MAX_STORE_DAYS')}; "
            "it must be a number above 0, such as 30 or 0.5."
        )
    return days


def _proxy_wait(value: float | None) -> float:
    seconds = _number(value, "WHYOPS_PROXY_WAIT", PROXY_WAIT)
    if seconds is None or not 0 <= seconds < math.inf:
        raise ConfigurationError(
            f"proxy_wait (WHYOPS_PROXY_WAIT) is {_given(value, 'WHYOPS_PROXY_WAIT')}; "
            "it must be a number of seconds, 0 or more, such as 0.5."
        )
    return seconds


def _number(value: object, variable: str, default: float) -> float | None:
    """Return a number that was given, or else stands in the environment; None if it is none."""
    if value is None:
        value = os.environ.get(variable, "") or default
        with contextlib.suppress(ValueError):
            value = float(value)
    return float(value) if is_number(value) else None


def _given(value: object, variable: str) -> str:
    """Return how to name a setting that cannot be obeyed."""
    return repr(os.environ.get(variable) if value is None else value)


def _text(name: str, value: str | None, variable: str) -> str:
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{name} is {value!r:.80}; it must be text.")
    return (os.environ.get(variable) or "") if value is None else value


def _url(name: str, value: str | None, variable: str, default: str) -> str:
    url = _text(name, value, variable).rstrip("/") or default
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"{name} ({variable}) is {shown_url(url)!r}; it must begin with http:// or https://."
        )
    return url


def _otlp(value: bool | str | None) -> str:
    """Return the URL that spans are posted to, "" if they are not wanted."""
    word: bool | str = os.environ.get("WHYOPS_OTLP", "") if value is None else value
    if isinstance(word, str) and word.lower() in ("on", "off", ""):
        word = word.lower() == "on"
    if word is False or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    return otlp_endpoint(word)


def otlp_endpoint(url: Literal[True] | str, name: str = "otlp (WHYOPS_OTLP)") -> str:
    """
    Return the URL that spans of OpenTelemetry are posted to.

    Args:
        url: The URL of a receiver, to whose path ``/v1/traces`` is added unless it ends so; True for the one that the
            variables of OpenTelemetry name.
        name: What the URL is the value of, for an error.

    Raises:
        ConfigurationError: if it is no URL.
    """
    if url is True:
        if traces := os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
            return _http_url("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traces)
        name = "OTEL_EXPORTER_OTLP_ENDPOINT"
    base = url if url is not True else os.environ.get(name) or DEFAULT_OTLP_URL
    base, mark, query = _http_url(name, base).partition("?")
    base = base.rstrip("/")
    path = "" if url is not True and base.endswith("/v1/traces") else "/v1/traces"
    return f"{base}{path}{mark}{query}"


def _http_url(name: str, url: object) -> str:
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        told = shown_url(url) if isinstance(url, str) else url
        raise ConfigurationError(f"{name} is {told!r:.200}; it must begin with http:// or https://.")
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number, or an address that is none
        is_whole = False
    if not is_whole:
        raise ConfigurationError(
            f"{name} is {shown_url(url)!r:.200}; it must have a host, and a port from 1 to 65535 if any, "
            "such as http://localhost:4318."
        )
    return url


def shown_url(url: str) -> str:
    """Return a URL as it may be told: without its login and its query, as either may be a key."""
    scheme, separator, rest = re.split(r"[?#]", url, maxsplit=1)[0].rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def switch(variable: str, values: Mapping[str, bool] = {"on": True, "off": False}) -> bool | None:
    """
    Return what a variable says, None if it is not set.

    Raises:
        ConfigurationError: if it is no word that it may be.
    """
    value = os.environ.get(variable, "").lower()
    if value and value not in values:
        raise ConfigurationError(f"{variable} is {value!r}; it must be {' or '.join(values)}.")
    return values.get(value)
