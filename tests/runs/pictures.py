"""
Pictures of what frameworks sent, for the pages about them: ``nox -s pictures``.

Each is the page of the run in ``tests/otel/golden``, received by a server as from the framework itself. That of MCP is
of the program on its page.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "doubles")]

from browser import CHROMIUM, ready, served  # noqa: E402
from playwright.sync_api import ViewportSize, sync_playwright  # noqa: E402
from programs import environment  # noqa: E402

GOLDEN = ROOT / "tests" / "otel" / "golden"
IMAGES = ROOT / "docs" / "images" / "frameworks"
MCP = ROOT / "docs" / "how-to" / "mcp.md"
#: Pixels of a picture.
SIZE: ViewportSize = {"width": 1180, "height": 560}


def take(names: list[str]) -> None:
    """Take the picture of each framework, in 64 colours: a third of the bytes."""
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name in names:
            with tempfile.TemporaryDirectory() as home, served(Path(home)) as url:
                if name == MCP.stem:
                    _run(MCP, Path(home))
                else:
                    _send(GOLDEN / f"{name}.json", url)
                page = browser.new_page(viewport=SIZE)
                page.goto(url)
                page.locator("a[href*='/t/']").first.click()
                picture = Image.open(io.BytesIO(ready(page).screenshot()))
                picture.quantize(64).save(IMAGES / f"{name}.png", optimize=True)
                page.close()
        browser.close()


def _send(file: Path, url: str) -> None:
    kind = {"Content-Type": "application/json"}
    httpx.post(f"{url}/v1/traces", content=file.read_bytes(), headers=kind).raise_for_status()


def _run(page: Path, home: Path) -> None:
    """Run the first program of a page."""
    program = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[0]
    subprocess.run([sys.executable, "-c", program], env=environment(home), check=True)


if __name__ == "__main__":
    take(sys.argv[1:] or [MCP.stem, *sorted(file.stem for file in GOLDEN.glob("*.json"))])
