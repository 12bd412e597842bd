"""How long a process takes to start: the time of all of it, beside one that does nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from programs import environment

FIRST_EVENT = """
from whyops_trace import traced_tool

@traced_tool
def search(query):
    return query

search("parcel")
"""
PROGRAMS = {
    "nothing": "",
    "import": "import whyops_trace",
    "import of the decorators": "from whyops_trace import traced_tool",
    "import to first event": FIRST_EVENT,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_start(measure: Any, tmp_path: Path, program: str) -> None:
    """A fresh process, from its start until it has done this; how it ends is not part of it."""
    code = f"{PROGRAMS[program]}\nimport os\nos._exit(0)"
    start = [sys.executable, "-c", code]
    variables = environment(tmp_path)

    measure(
        "start of a process", lambda: subprocess.run(start, env=variables, check=True), calls=1, rounds=20
    )
