"""Routes that go by the address as it was sent, as the id of a trace may hold anything, slashes too."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.routing import Match, Route
from starlette.types import Scope


class RawRoute(Route):
    """
    A route whose parameters are unquoted after the path was divided.

    So ``/t/x%2Flive`` is the page of the trace ``x/live``, and not what ``x`` grows by.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether the path is one of this route, and what it names."""
        match, found = super().matches({**scope, "path": scope["raw_path"].decode("latin-1")})
        for name, value in found.get("path_params", {}).items():
            found["path_params"][name] = unquote(value) if isinstance(value, str) else value
        return match, found
