"""The settings of an OTLP destination: from its arguments, or else from the variables of OpenTelemetry."""

from __future__ import annotations

import base64
import os
import re
import ssl
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args
from urllib.parse import unquote

import msgspec

from whyops_trace.exceptions import ConfigurationError
from whyops_trace.settings import otlp_endpoint, shown_url, switch

Protocol: TypeAlias = Literal["http/protobuf", "http/json"]

#: Seconds to wait for an answer, unless told otherwise.
TIMEOUT: Final = 10.0
#: Largest number that a timeout has in seconds, as the SDK of Python counts; the specification counts milliseconds.
_SECONDS: Final = 120
#: The name of a header.
_NAME: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)


class OtlpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Settings of an OTLP destination.

    Attributes:
        endpoint: The URL that spans are posted to.
        headers: Headers of each request.
        protocol: ``http/protobuf`` or ``http/json``.
        compressed: True to send bodies compressed by gzip.
        timeout: Seconds to wait for an answer.
        certificate: File of the certificates that are trusted, "" for the usual ones.
        client_certificate: File of the certificate that the server is shown, "" for none.
        client_key: File of the key to it, "" if that is in the same file.
        resource: Attributes of the program.
        content: True to export messages, arguments and results.
        openinference: True to add the attributes of OpenInference.
    """

    endpoint: str
    headers: dict[str, str]
    protocol: Protocol
    compressed: bool
    timeout: float
    certificate: str
    client_certificate: str
    client_key: str
    resource: dict[str, str]
    content: bool
    openinference: bool

    @property
    def shown(self) -> str:
        """The URL as it may be told."""
        return shown_url(self.endpoint)

    def trust(self) -> ssl.SSLContext | None:
        """
        Return what is trusted and shown if that is not the usual, else None.

        Raises:
            ConfigurationError: if a file cannot be read.
        """
        if not (self.certificate or self.client_certificate):
            return None
        try:
            context = ssl.create_default_context(cafile=self.certificate or None)
            if self.client_certificate:
                context.load_cert_chain(self.client_certificate, self.client_key or None)
        except OSError as error:  # of SSL too
            raise ConfigurationError(
                f"A certificate of OTEL_EXPORTER_OTLP_CERTIFICATE or its client's cannot be used: {error}"
            ) from error
        return context


def resolve(
    endpoint: str | None, headers: Mapping[str, str] | None, content: bool | None, openinference: bool | None
) -> OtlpSettings:
    """
    Return the settings of a destination, each from its argument or, where that is None, from the environment.

    Raises:
        ConfigurationError: if one cannot be obeyed.
    """
    resource = _pairs("OTEL_RESOURCE_ATTRIBUTES", os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    if name := os.environ.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = name
    url, login = _without_login(otlp_endpoint(True if endpoint is None else endpoint))
    sent = _headers(headers)
    if login and "authorization" not in map(str.lower, sent):
        sent["Authorization"] = login
    return OtlpSettings(
        endpoint=url,
        headers=sent,
        protocol=_protocol(given=endpoint is not None),
        compressed=_compressed(),
        timeout=_timeout(),
        certificate=_variable("CERTIFICATE"),
        client_certificate=_variable("CLIENT_CERTIFICATE"),
        client_key=_variable("CLIENT_KEY"),
        resource=resource,
        content=bool(switch("WHYOPS_OTLP_CONTENT") if content is None else content),
        openinference=bool(switch("WHYOPS_OTLP_OPENINFERENCE") if openinference is None else openinference),
    )


def _without_login(url: str) -> tuple[str, str]:
    """Return a URL without the name and password in it, and these as a header says them, "" if there are none."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    login, at, host = host.rpartition("@")
    basic = base64.b64encode(unquote(login).encode()).decode()
    return f"{scheme}://{host}{slash}{path}", f"Basic {basic}" if at else ""


def _headers(given: Mapping[str, str] | None) -> dict[str, str]:
    """
    Return the headers, without blanks around their values, such as the end of the line in a file with a key.

    Raises:
        ConfigurationError: if one cannot be sent. The HTTP library would tell its value, which may be a key.
    """
    headers = _pairs("OTEL_EXPORTER_OTLP_HEADERS", _variable("HEADERS")) if given is None else given
    headers = {name: value.strip() for name, value in headers.items()}
    for name, value in headers.items():
        if not (_NAME.fullmatch(name) and value.isascii() and value.isprintable()):
            raise ConfigurationError(
                f"The header {name!r} of OTEL_EXPORTER_OTLP_HEADERS or headers= cannot be sent: its name must be a"
                " word, and its value printable ASCII on one line."
            )
    return headers


def _variable(name: str) -> str:
    """Return a variable for traces, or else the one for all signals."""
    return (
        os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}")
        or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}")
        or ""
    )


def _protocol(*, given: bool) -> Protocol:
    """Return the protocol; gRPC, if an endpoint that was given by itself is hardly one of it."""
    word = _variable("PROTOCOL").strip().lower() or "http/protobuf"
    if word == "grpc" and given:
        word = "http/protobuf"
    for protocol in get_args(Protocol):
        if word == protocol:
            return protocol  # type: ignore[no-any-return]
    raise ConfigurationError(
        f"OTEL_EXPORTER_OTLP_PROTOCOL is {word!r}; spans are exported by http/protobuf and http/json. Set"
        " OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf, and OTEL_EXPORTER_OTLP_TRACES_ENDPOINT to the address for"
        " HTTP, such as http://localhost:4318/v1/traces."
    )


def _compressed() -> bool:
    word = _variable("COMPRESSION").strip().lower() or "none"
    if word not in ("none", "gzip"):
        raise ConfigurationError(f"OTEL_EXPORTER_OTLP_COMPRESSION is {word!r}; it must be gzip or none.")
    return word == "gzip"


def _timeout() -> float:
    text = _variable("TIMEOUT").strip()
    try:
        number = float(text or TIMEOUT)
        if 0 < number < float("inf"):
            return number if number <= _SECONDS else number / 1_000
    except ValueError:
        pass
    raise ConfigurationError(
        f"OTEL_EXPORTER_OTLP_TIMEOUT is {text!r}; it must be a number of milliseconds above 0."
    )


def _pairs(variable: str, text: str) -> dict[str, str]:
    """Return ``name=value,...``, percent-decoded."""
    pairs = {}
    for pair in filter(None, (each.strip() for each in text.split(","))):
        name, equals, value = pair.partition("=")
        if not (equals and name.strip()):
            # It may be a key, so it is not told.
            raise ConfigurationError(
                f"{variable} has a part that is not name=value; commas separate the parts."
            )
        pairs[unquote(name.strip())] = unquote(value.strip())
    return pairs
