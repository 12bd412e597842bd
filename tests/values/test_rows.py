"""Rows of databases are recorded as their data, and no database is asked for them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from types import SimpleNamespace, new_class
from typing import Any

import pytest

from whyops_trace._values.encoding import encoder
from whyops_trace._values.processor import REDACTED, Redactor

encode = encoder(Redactor().hides)


def decoded(value: object) -> Any:
    return json.loads(encode(value))


def imported(name: str) -> Any:
    """Return a package, or skip the test where it is missing."""
    return pytest.importorskip(name, reason="the session `frameworks` of nox installs it")


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    yield connection
    connection.close()


def test_rows_of_sqlite(database: sqlite3.Connection) -> None:
    """By name, of which a second one has its number added; secrets by the names of their columns."""
    rows = database.execute("select 1 as id, 2 as id, 'p' as password, x'00ff' as raw").fetchall()

    assert decoded({"rows": rows}) == {
        "rows": [{"id": 1, "id (2)": 2, "password": REDACTED, "raw": {"base64": "AP8=", "bytes": 2}}]
    }


def test_a_cursor_keeps_its_rows(database: sqlite3.Connection) -> None:
    """It is only named."""
    cursor = database.execute("select 1 as id")

    assert decoded(cursor) == "<sqlite3.Cursor>"
    assert [tuple(row) for row in cursor] == [(1,)]


class Alchemy:
    """
    A database of SQLAlchemy with a user and their order.

    Attributes:
        statements: The statements that it was asked so far.
    """

    def __init__(self) -> None:
        import sqlalchemy as sa
        from sqlalchemy import orm

        class Base(orm.DeclarativeBase):
            pass

        class User(Base):
            __tablename__ = "users"
            id = orm.mapped_column(sa.Integer, primary_key=True)
            name = orm.mapped_column(sa.String)
            password = orm.mapped_column(sa.String)
            orders = orm.relationship("Order", back_populates="user")

        class Order(Base):
            __tablename__ = "orders"
            id = orm.mapped_column(sa.Integer, primary_key=True)
            item = orm.mapped_column(sa.String)
            user_id = orm.mapped_column(sa.ForeignKey("users.id"))
            user = orm.relationship("User", back_populates="orders")

        self.sa, self.User, self.Order = sa, User, Order
        self.engine = sa.create_engine("sqlite://")
        Base.metadata.create_all(self.engine)
        with orm.Session(self.engine) as session:
            session.add(User(id=1, name="Ann", password="p", orders=[Order(id=5, item="teapot")]))
            session.commit()
        self.session = orm.Session(self.engine)
        self.statements: list[str] = []
        sa.event.listen(self.engine, "before_cursor_execute", lambda *args: self.statements.append(args[2]))

    def close(self) -> None:
        self.session.close()
        self.engine.dispose()


@pytest.fixture
def alchemy() -> Iterator[Alchemy]:
    imported("sqlalchemy")
    made = Alchemy()
    yield made
    made.close()


USER = {"$type": f"{__name__}.Alchemy.__init__.<locals>.User", "id": 1, "name": "Ann", "password": REDACTED}
ORDER = {"$type": f"{__name__}.Alchemy.__init__.<locals>.Order", "id": 5, "item": "teapot", "user_id": 1}


def test_rows_of_sqlalchemy(alchemy: Alchemy) -> None:
    """Of text and of mapped classes, and their mappings."""
    text = "select 'teapot' as item, 1 as id, 2 as id"
    rows = alchemy.session.execute(alchemy.sa.text(text)).fetchall()
    pairs = alchemy.session.execute(
        alchemy.sa.select(alchemy.User, alchemy.Order.item).join(alchemy.Order)
    ).all()

    assert decoded(rows) == [{"item": "teapot", "id": 1, "id (2)": 2}]
    assert decoded(rows[0]._mapping) == {"item": "teapot", "id": 1, "id (2)": 2}
    assert decoded(pairs) == [{"User": USER, "item": "teapot"}]


def test_a_result_of_sqlalchemy_is_not_consumed(alchemy: Alchemy) -> None:
    """Nor is a query run."""
    result = alchemy.session.execute(alchemy.sa.select(alchemy.User.name))
    scalars = alchemy.session.scalars(alchemy.sa.select(alchemy.User.name))
    asked = len(alchemy.statements)
    for thing in (result, scalars, alchemy.session.query(alchemy.User), alchemy.session, alchemy.engine):
        assert decoded(thing).startswith("<sqlalchemy.")

    assert len(alchemy.statements) == asked
    assert (result.all(), scalars.all()) == ([("Ann",)], ["Ann"])


def test_an_object_of_sqlalchemy_is_what_was_loaded_of_it(alchemy: Alchemy) -> None:
    """What was not is not asked for, and what a commit has expired neither."""
    user = alchemy.session.scalars(alchemy.sa.select(alchemy.User)).one()
    asked = len(alchemy.statements)
    assert decoded({"users": [user]}) == {"users": [USER]}
    assert len(alchemy.statements) == asked

    assert len(user.orders) == 1
    assert decoded(user) == {**USER, "orders": [ORDER]}
    assert user.orders[0].user is user
    assert decoded(user) == {**USER, "orders": [{**ORDER, "user": "[circular]"}]}

    alchemy.session.commit()
    asked = len(alchemy.statements)
    assert decoded(user) == {"$type": USER["$type"], "identity": [1]}
    assert decoded(alchemy.User()) == {"$type": USER["$type"]}
    assert len(alchemy.statements) == asked


def test_a_table_of_sqlmodel_is_its_fields() -> None:
    """A model of pydantic and a mapped class in one."""
    sqlmodel = imported("sqlmodel")

    fields = {"id": sqlmodel.Field(default=None, primary_key=True), "name": sqlmodel.Field()}
    body = {"__module__": __name__, "__annotations__": {"id": int | None, "name": str}, **fields}
    Hero = new_class("Hero", (sqlmodel.SQLModel,), {"table": True}, lambda space: space.update(body))
    hero = Hero(id=1, name="Ann")

    assert {name: item for name, item in decoded(hero).items() if name != "$type"} == {"id": 1, "name": "Ann"}


def test_rows_of_asyncpg() -> None:
    """Records of its own kind."""
    protocol = imported("asyncpg.protocol.protocol")
    record = protocol._create_record({"id": 0, "password": 1}, (5, "p"))

    assert decoded([record]) == [{"id": 5, "password": REDACTED}]


def test_rows_of_psycopg2() -> None:
    """A list that knows names."""
    extras = imported("psycopg2.extras")

    cursor = SimpleNamespace(index={"id": 0, "password": 1}, description=("id", "password"))
    row = extras.DictRow(cursor)
    row[:] = [5, "p"]

    assert decoded([row]) == [{"id": 5, "password": REDACTED}]


def test_documents_and_models_of_other_packages() -> None:
    """Ids of MongoDB, and objects of Peewee."""
    bson, peewee = imported("bson"), imported("peewee")

    Item: Any = new_class("Item", (peewee.Model,), {}, lambda space: space.update(name=peewee.CharField()))

    assert decoded({"_id": bson.ObjectId("0123456789abcdef01234567")}) == {"_id": "0123456789abcdef01234567"}
    assert decoded(Item(name="teapot"))["name"] == "teapot"
    assert decoded(Item.select()) == "<peewee.ModelSelect>"


@pytest.fixture(scope="module")
def shop() -> Any:
    """Return the models of a shop in Django, with one sale of one item, and the connection to its database."""
    imported("django")
    from django.db import connection, models
    from djangos import set_up

    set_up()

    class Item(models.Model):  # type: ignore[misc]
        name = models.CharField(max_length=10)

        class Meta:
            app_label = "shop"

    class Sale(models.Model):  # type: ignore[misc]
        item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="sales")

        class Meta:
            app_label = "shop"

    with connection.schema_editor() as editor:
        editor.create_model(Item)
        editor.create_model(Sale)
    Sale.objects.create(item=Item.objects.create(name="teapot"))
    yield Item, Sale, connection
    connection.close()


def test_querysets_of_django_are_their_results_if_they_have_them(shop: Any) -> None:
    """One that was not evaluated stays so."""
    from django.test.utils import CaptureQueriesContext

    Item, _, connection = shop
    lazy, read, values = Item.objects.all(), Item.objects.all(), Item.objects.values("name")
    raw = Item.objects.raw("select * from shop_item")
    for query in (read, values):
        assert len(query) == 1
    with CaptureQueriesContext(connection) as asked:
        told = [decoded(query) for query in (lazy, read, values, raw)]

    item = {"$type": f"{__name__}.shop.<locals>.Item", "id": 1, "name": "teapot"}
    assert told[1:3] == [[item], [{"name": "teapot"}]]
    assert told[0] == f"<django.db.models.query.QuerySet of {item['$type']}, not evaluated>"
    assert told[3] == f"<django.db.models.query.RawQuerySet of {item['$type']}, not evaluated>"
    assert len(asked) == 0
    assert lazy._result_cache is None


def test_objects_of_django_are_what_was_loaded_of_them(shop: Any) -> None:
    """With the related ones that were loaded as well."""
    from django.test.utils import CaptureQueriesContext

    Item, Sale, connection = shop
    sale, whole = Sale.objects.get(), Sale.objects.select_related("item").get()
    item = Item.objects.prefetch_related("sales").get()
    deferred = Item.objects.defer("name").get()
    with CaptureQueriesContext(connection) as asked:
        told = [decoded(thing) for thing in (sale, whole, item, deferred)]
    for thing in told:
        assert thing.pop("$type").startswith(f"{__name__}.shop")

    assert len(asked) == 0
    assert (told[0], told[3]) == ({"id": 1, "item_id": 1}, {"id": 1})
    assert told[1]["item"]["name"] == "teapot"
    assert [each["id"] for each in told[2]["sales"]] == [1]
