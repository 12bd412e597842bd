"""Frameworks that run agents, traced with one line each: every module here attaches to one of them."""

from __future__ import annotations

from whyops_trace.integrations._attachment import Attachment

__all__ = ["Attachment"]
