"""The requests to a product, within limits, and what to do about each answer that is no trace."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from whyops_trace._lens.place import Place, Request
from whyops_trace._lens.products import Product, locate
from whyops_trace._otel.span import Batch
from whyops_trace._reading.excerpt import headline
from whyops_trace._version import __version__
from whyops_trace.exceptions import TraceNotFoundError, WhyOpsError

#: Bytes of all answers, decompressed, requests for a trace, and spans of it.
MAX_BYTES: Final = 128 << 20
MAX_REQUESTS: Final = 1_000
MAX_SPANS: Final = 100_000
#: The statuses with which a server says that it knows no such path, or not such a query.
_UNKNOWN: Final = (404, 405, 422)
#: Seconds for a whole trace, for a connection, and for each part of an answer.
_ALL: Final = 120.0
_CONNECT: Final = 10.0
_PART: Final = 60.0
#: Characters of an answer that an error shows, and bytes of it that are read for that.
_SHOWN: Final = 200
_READ: Final = 4_096


class LensError(WhyOpsError):
    """A trace that another product stores cannot be had; the message says what to do."""


def fetch(url: str, product: str = "", headers: Sequence[tuple[str, str]] = ()) -> tuple[str, Batch]:
    """
    Return a trace that another product stores: its name there, and its spans.

    Args:
        url: The address of its page, or of the API that answers with it.
        product: The name of the product; "" to tell it by the form of the address.
        headers: Further headers of each request. They go before those that have the key of the environment.

    Raises:
        ConfigurationError: if the address is none of a trace, or has a password in it.
        TraceNotFoundError: if the product has no such trace.
        LensError: if it cannot be reached, refuses, or answers with something else or too much.
    """
    kind, place = locate(url, product)
    return place.trace_id, _Fetch(kind, place, headers).run()


class _Fetch:
    """One reading of a trace, with what is left of its limits."""

    def __init__(self, product: Product, place: Place, headers: Sequence[tuple[str, str]]) -> None:
        self._product = product
        self._place = place
        self._origin = "{0.scheme}://{0.netloc}".format(urlsplit(place.base))
        self._key, self._withheld = key_of(product, place.base, os.environ)
        self._headers = {**self._key, **dict(headers)}
        self._deadline = time.monotonic() + _ALL
        self._bytes = MAX_BYTES

    def run(self) -> Batch:
        """Return the spans."""
        reading = self._product.read(self._place)
        own = {"accept": "application/json", "user-agent": f"whyops-trace/{__version__}"}
        timeout = httpx.Timeout(_PART, connect=_CONNECT)
        with httpx.Client(
            headers={**own, **self._headers}, timeout=timeout, follow_redirects=False
        ) as client:
            try:
                request = next(reading)
                for _ in range(MAX_REQUESTS):
                    request = reading.send(self._documents(client, request))
            except StopIteration as end:
                return self._checked(end.value)
        raise self._too_large(f"{MAX_REQUESTS:,} answers")

    def _checked(self, batch: Batch) -> Batch:
        if len(batch.spans) > MAX_SPANS:
            raise self._too_large(f"{MAX_SPANS:,} spans")
        if not batch.spans and batch.refused:
            raise LensError(f"No span of the answer of {self._named} can be read: {batch.refused[0]}")
        if not batch.spans:
            raise self._missing("")
        return batch

    def _documents(self, client: httpx.Client, request: Request) -> list[Any]:
        """Return the decoded JSON of an answer: one document, or one on each line."""
        body = self._body(client, request)
        try:
            return [msgspec.json.decode(body)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        try:
            return [json.loads(line) for line in body.decode(errors="replace").splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise LensError(
                f"{self._named} answered with something else than JSON: {_shown(body)!r}. {self._other_address}"
            ) from None

    def _body(self, client: httpx.Client, request: Request) -> bytes:
        try:
            with client.stream("GET", self._place.base + request.path, params=dict(request.query)) as answer:
                if request.is_optional and answer.status_code in _UNKNOWN:
                    return b""
                self._check(answer)
                pieces = []
                for piece in answer.iter_bytes():
                    pieces.append(piece)
                    self._count(len(piece))
                return b"".join(pieces)
        except httpx.TimeoutException:
            raise self._too_slow() from None
        except httpx.InvalidURL as error:
            raise LensError(f"{self._origin} is no address of a server: {error}") from None
        except httpx.HTTPError as error:
            raise LensError(
                f"{self._named} cannot be reached: {str(error) or type(error).__name__}."
                " Check that it runs, that the address has the right port, and that this machine may reach it."
            ) from None

    def _count(self, size: int) -> None:
        self._bytes -= size
        if self._bytes < 0:
            raise self._too_large(f"{MAX_BYTES >> 20} MiB")
        if time.monotonic() > self._deadline:
            raise self._too_slow()

    def _check(self, answer: httpx.Response) -> None:
        """Raise what an answer means that is no trace."""
        status, form = answer.status_code, answer.headers.get("content-type", "")
        if 300 <= status < 400:
            target = urlsplit(answer.headers.get("location", ""))
            where = f"{target.scheme}://{target.hostname}{target.path}" if target.hostname else target.path
            raise LensError(
                f"{self._named} sends to {where or 'another address'} in place of an answer."
                f" If that is a page to log in: {self._how_to_log_in}. {self._other_address}"
            )
        if status in (401, 403):
            raise LensError(f"{self._named} lets nobody in like that ({status}): {self._how_to_log_in}.")
        if status == 200 and "html" not in form:
            return
        about = _shown(b"".join(_beginning(answer)))
        if "html" in form:
            raise LensError(
                f"{self._named} answered with a page for people ({status}), such as one to log in, and not with a"
                f" trace. {self._other_address} If it wants a key: {self._how_to_log_in}."
            )
        if status == 404:
            raise self._missing(about)
        if status in (429, 503):
            raise LensError(f"{self._named} is busy ({status}): try again in a while. It says: {about!r}")
        raise LensError(f"{self._named} refused the request ({status}), and says: {about!r}")

    @property
    def _named(self) -> str:
        return f"{self._product.title} at {self._origin}"

    @property
    def _other_address(self) -> str:
        return (
            f"If it is no {self._product.title}, or has its API elsewhere, give the address of the API,"
            " and the product with --from."
        )

    @property
    def _how_to_log_in(self) -> str:
        variables = " or ".join(" and ".join(names) for names in self._product.key)
        if self._withheld:
            return (
                f"the key in {variables} was not sent, since {self._product.server[0]} names another server or none;"
                f" set it to {self._origin} if the key is for that one"
            )
        if self._key:
            return f"it does not take the key in {variables}"
        header = "give a header that lets you in with --header 'Authorization: ...'"
        return f"set {variables}, or {header}" if variables else header

    def _missing(self, about: str) -> TraceNotFoundError:
        within = f" in {self._place.within!r}" if self._place.within else ""
        return TraceNotFoundError(
            f"{self._named} has no trace {self._place.trace_id!r}{within}: check the address,"
            " and whether the trace is there already, and still." + (f" It says: {about!r}" if about else "")
        )

    def _too_large(self, limit: str) -> LensError:
        return LensError(f"The trace is larger than {limit}, which is more than is read from {self._named}.")

    def _too_slow(self) -> LensError:
        return LensError(
            f"{self._named} did not answer in time: {_CONNECT:.0f} s for a connection, {_PART:.0f} s for a part of an"
            f" answer, {_ALL:.0f} s in all. Check the address and the port, or try again."
        )


def key_of(product: Product, base: str, environ: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """
    Return the headers with the key of a product that the environment has, and whether a key is kept back.

    A key goes to this machine, to the makers of the product, and to the server that a variable of the product names.
    """
    for names in product.key:
        values = [environ.get(name, "") for name in names]
        if not values[0]:
            continue
        if not _is_trusted(product, base, environ):
            return {}, True
        if product.headers:
            return dict(zip(product.headers, values, strict=True)), False
        if len(values) == 1:
            return {"authorization": f"Bearer {values[0]}"}, False
        token = base64.b64encode(":".join(values).encode()).decode()
        return {"authorization": f"Basic {token}"}, False
    return {}, False


def _is_trusted(product: Product, base: str, environ: Mapping[str, str]) -> bool:
    parts = urlsplit(base)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return True
    if product.domain and parts.scheme == "https" and f".{host}".endswith(f".{product.domain}"):
        return True
    named = (environ.get(name, "") for name in product.server)
    return any(_host(value) == host for value in named if value)


def _host(address: str) -> str:
    """Return the host of an address, with or without a scheme; "" if there is none."""
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""


def _beginning(answer: httpx.Response) -> list[bytes]:
    pieces, size = [], 0
    for piece in answer.iter_bytes(_READ):
        pieces.append(piece)
        size += len(piece)
        if size >= _READ:
            break
    return pieces


def _shown(body: bytes) -> str:
    """Return the beginning of an answer on one line, without what controls a terminal."""
    return headline(body[:_READ].decode(errors="replace"), _SHOWN)
