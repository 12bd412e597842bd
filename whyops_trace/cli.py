"""
The command line ``whyops-trace``: its commands, and the module of each.

The common parts of commands are in :mod:`whyops_trace.commands.common`.
"""

from __future__ import annotations

from typing import Final

import click

from whyops_trace._version import __version__
from whyops_trace.commands.common import Commands

#: Modules by command, each loaded on demand: all of them take longer to load than most commands to run.
_MODULES: Final = {
    "check": "whyops_trace.commands.check",
    "compare": "whyops_trace.commands.compare",
    "demo": "whyops_trace.demo",
    "diff": "whyops_trace.commands.diff",
    "doctor": "whyops_trace.commands.doctor",
    "export": "whyops_trace.commands.export",
    "import": "whyops_trace.commands.importing",
    "journal": "whyops_trace.commands.journal",
    "ls": "whyops_trace.commands.ls",
    "rm": "whyops_trace.commands.remove",
    "score": "whyops_trace.commands.score",
    "serve": "whyops_trace.commands.serve",
    "show": "whyops_trace.commands.show",
    "stats": "whyops_trace.commands.stats",
    "test-from": "whyops_trace.commands.test_from",
    "verify": "whyops_trace.commands.verify",
    "view": "whyops_trace.commands.serve",
    "whatif": "whyops_trace.commands.whatif",
    "why": "whyops_trace.commands.why",
}


@click.group(
    cls=Commands,
    modules=_MODULES,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: whyops-trace show latest",
)
@click.version_option(__version__, prog_name="whyops-trace")
def main() -> None:
    """Why did my agent do that? Looks at the traces recorded on this machine."""
