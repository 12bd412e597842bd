"""Recordings that commands write as files for tests."""

from __future__ import annotations

from pathlib import Path

import click

from whyops_trace._reading.excerpt import clean
from whyops_trace._replay.fixture import save_fixture
from whyops_trace._replay.recording import Recording
from whyops_trace.commands.common import file_size


def save_recording(recording: Recording, path: Path) -> None:
    """Write a recording to a file, and name the calls in it that no replay can answer."""
    size = save_fixture(recording, path)
    click.echo(f"Wrote {clean(str(path))} ({file_size(size)}).", err=True)
    for call in recording.calls:
        reasons = {
            "its result was not captured": not call.is_captured,
            "its result held a secret": call.is_redacted,
            "it never ended": call.outcome == "open",
        }
        for reason in (reason for reason, holds in reasons.items() if holds):
            click.echo(f"{clean(str(call))} cannot be replayed, as {reason}: swap it in the test.", err=True)
