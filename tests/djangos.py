"""Django as tests have it: set up once a process, with a database in memory."""

from __future__ import annotations

import django
from django.conf import settings


def set_up() -> None:
    """Set Django up, unless a test has done so."""
    if not settings.configured:
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        settings.configure(
            ALLOWED_HOSTS=["*"],
            DATABASES={"default": database},
            INSTALLED_APPS=[],
            SECRET_KEY="none",
            USE_TZ=True,
        )
        django.setup()
