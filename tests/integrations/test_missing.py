"""A framework that is not installed is named when it is attached to."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import run_code


@pytest.mark.parametrize(
    ("module", "framework", "package"),
    [
        ("celery", "celery", "celery"),
        ("langchain", "langchain_core", "langchain-core"),
        ("litellm", "litellm", "litellm"),
        ("mcp", "mcp", "mcp"),
        ("openai_agents", "agents", "openai-agents"),
        ("rq", "rq", "rq"),
    ],
)
def test_a_framework_that_is_missing_is_named(
    tmp_path: Path, module: str, framework: str, package: str
) -> None:
    """With the extra that installs it; the module itself can be imported."""
    program = f"""
        import sys
        sys.modules["{framework}"] = None
        from whyops_trace import ConfigurationError
        from whyops_trace.integrations import {module}
        try:
            {module}.attach()
        except ConfigurationError as error:
            print(error)
    """
    done = run_code(program, tmp_path)

    assert done.stdout.startswith(f"{package} cannot be imported")
    assert f"pip install '.[{module.replace('_', '-')}]'" in done.stdout
