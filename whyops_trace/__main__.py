"""The command ``whyops-trace``, also as ``python -m whyops_trace``."""

from __future__ import annotations

import io
import sys
from importlib.util import find_spec

from whyops_trace._extras import install_hint


def main() -> None:
    """Run the command line. If its extra is missing, print how to install it and exit with 1."""
    try:
        from whyops_trace.cli import main as command

        if find_spec("rich") is None:  # which commands load when they need it
            raise ModuleNotFoundError("No module named 'rich'", name="rich")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        sys.stderr.write(f"The command line is not installed: {install_hint('cli')}\n")
        raise SystemExit(1) from None
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a trace may hold characters that a terminal cannot show
    command(prog_name="whyops-trace")


if __name__ == "__main__":
    main()
