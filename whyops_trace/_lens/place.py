"""The address of a trace, taken apart, and the requests that read it."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from whyops_trace._otel.span import Batch
from whyops_trace.exceptions import ConfigurationError

#: Characters of an address, or of a part of it, that an error shows.
_SHOWN = 100


class Request(NamedTuple):
    """
    A request to the API of a product.

    Attributes:
        path: Path below the address of the server, percent-encoded.
        query: Its parameters; one with several values has a list of them.
        is_optional: A refusal is an answer without documents, since not every version of the product has the path.
    """

    path: str
    query: Mapping[str, Any] = {}
    is_optional: bool = False


class Place(NamedTuple):
    """
    The place of a trace.

    Attributes:
        base: Address of the server, with the path below which its pages and API are; no slash at the end.
        trace_id: The id of the trace, as the product writes it in paths.
        within: The project, the table or the like that the trace is in, "" if the product does not need it.
        api: Path of the API that the address names, "" if it is that of a page.
    """

    base: str
    trace_id: str
    within: str = ""
    api: str = ""


#: The reading of a trace: it yields requests, is sent the decoded JSON of their answers, and returns the spans.
Reading: TypeAlias = Generator[Request, list[Any], Batch]


class Address(NamedTuple):
    """
    An address of the web, taken apart.

    Attributes:
        origin: Scheme, host and port.
        host: The name of the host.
        path: The path, with that in the fragment, as some pages have it.
        query: The parameters, with those in the fragment.
    """

    origin: str
    host: str
    path: str
    query: Mapping[str, str]

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Return the match of the whole path with a pattern; its group ``base`` is what stands before."""
        return pattern.fullmatch(self.path)

    def place(self, match: re.Match[str], trace_id: str = "") -> Place:
        """Return the place that a match of the path names by its groups ``base``, ``id``, ``within`` and ``api``."""
        groups = match.groupdict("")
        return Place(
            self.origin + groups["base"],
            trace_id or groups["id"],
            groups.get("within", ""),
            groups.get("api", ""),
        )


def is_address(name: str) -> bool:
    """Tell whether a name of a trace is an address of the web."""
    return name[:8].lower().startswith(("http://", "https://"))


def parse(url: str) -> Address:
    """
    Take an address apart.

    Raises:
        ConfigurationError: if it is none, or has a password in it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigurationError(f"{url[:_SHOWN]!r} is no address: {error}.") from None
    if not host:
        raise ConfigurationError(f"{url[:_SHOWN]!r} is no address: it names no host.")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            "An address with a user or a password in it is not used: it would stay in the history of the shell."
            " Give the address without them, and the key in the environment."
        )
    name = f"[{host}]" if ":" in host else host
    path, _, query = parts.fragment.partition("?")
    return Address(
        origin=f"{parts.scheme.lower()}://{name}" + (f":{port}" if port else ""),
        host=host,
        path=(parts.path + (path if path.startswith("/") else "")).replace("//", "/").rstrip("/"),
        query=dict(parse_qsl(parts.query) + parse_qsl(query)),
    )
