"""Routes that match the address as sent, since the id of a trace may hold any character, even slashes."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.routing import Match, Route
from starlette.types import Scope


class RawRoute(Route):
    """
    A route whose parameters are unquoted after the path was split.

    So ``/t/x%2Flive`` is the page of the trace ``x/live``, and not the live stream of ``x``.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return the match of the path with this route, and the scope with its parameters."""
        match, child_scope = super().matches({**scope, "path": scope["raw_path"].decode("latin-1")})
        for name, value in child_scope.get("path_params", {}).items():
            child_scope["path_params"][name] = unquote(value) if isinstance(value, str) else value
        return match, child_scope
