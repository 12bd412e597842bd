"""The products whose traces can be read, and the place of a trace by its address."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from whyops_trace._lens import clickhouse, jaeger, langfuse, mlflow, phoenix, tempo
from whyops_trace._lens.place import Address, Place, Reading, parse
from whyops_trace.exceptions import ConfigurationError


class Product(NamedTuple):
    """
    A product that stores traces.

    Attributes:
        title: Its name.
        example: Address of a trace.
        find: Function that returns the place of a trace that an address names, None if it is none of this product.
        read: Function that returns the requests that read a trace.
        key: The variables with its key: that of a bearer, or those of a user and a password.
        server: Variables that name the server that the key is for.
        domain: The domain of its makers, where keys go as well; "" if they host none.
        headers: The headers for a user and a password, in place of those of Basic authentication.
    """

    title: str
    example: str
    find: Callable[[Address], Place | None]
    read: Callable[[Place], Reading]
    key: tuple[tuple[str, ...], ...] = ()
    server: tuple[str, ...] = ()
    domain: str = ""
    headers: tuple[str, ...] = ()


#: By the name that ``--from`` takes. Of those that know an address the first one is asked.
PRODUCTS: Final[Mapping[str, Product]] = {
    "langfuse": Product(
        langfuse.TITLE,
        langfuse.EXAMPLE,
        langfuse.find,
        langfuse.read,
        (("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"),),
        ("LANGFUSE_BASE_URL", "LANGFUSE_HOST"),
        "langfuse.com",
    ),
    "phoenix": Product(
        phoenix.TITLE,
        phoenix.EXAMPLE,
        phoenix.find,
        phoenix.read,
        (("PHOENIX_API_KEY",),),
        ("PHOENIX_COLLECTOR_ENDPOINT", "PHOENIX_HOST"),
        "arize.com",
    ),
    "mlflow": Product(
        mlflow.TITLE,
        mlflow.EXAMPLE,
        mlflow.find,
        mlflow.read,
        (("MLFLOW_TRACKING_TOKEN",), ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")),
        ("MLFLOW_TRACKING_URI",),
    ),
    "clickhouse": Product(
        clickhouse.TITLE,
        clickhouse.EXAMPLE,
        clickhouse.find,
        clickhouse.read,
        (("CLICKHOUSE_USER", "CLICKHOUSE_PASSWORD"),),
        ("CLICKHOUSE_HOST",),
        headers=("X-ClickHouse-User", "X-ClickHouse-Key"),
    ),
    "jaeger": Product(jaeger.TITLE, jaeger.EXAMPLE, jaeger.find, jaeger.read),
    "tempo": Product(tempo.TITLE, tempo.EXAMPLE, tempo.find, tempo.read),
}


def locate(url: str, name: str = "") -> tuple[Product, Place]:
    """
    Return the product and the place of a trace by its address.

    Args:
        url: The address of its page, or of the API that answers with it.
        name: The name of the product; "" to tell it by the form of the address.

    Raises:
        ConfigurationError: if the address is none, or none that is known.
    """
    address = parse(url)
    for product in [PRODUCTS[name]] if name else PRODUCTS.values():
        place = product.find(address)
        if place is not None:
            return product, place
    raise ConfigurationError(
        f"{address.origin}{address.path} is no address of a trace that is known here. Known are:\n"
        + "\n".join(_examples(name))
        + ("\nGrafana's own pages cannot be read: give the address of Tempo's API." if not name else "")
    )


def _examples(name: str) -> Iterator[str]:
    for product in [PRODUCTS[name]] if name else PRODUCTS.values():
        yield f"  {product.title}: {product.example}"
