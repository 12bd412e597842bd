"""
Pictures of what frameworks sent, for the pages about them: ``nox -s pictures``.

Each is the page of the run in ``tests/otel/golden``, received by a server as from the framework itself.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import httpx
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "doubles")]

from browser import CHROMIUM, ready, served  # noqa: E402
from playwright.sync_api import ViewportSize, sync_playwright  # noqa: E402

GOLDEN = ROOT / "tests" / "otel" / "golden"
IMAGES = ROOT / "docs" / "images" / "frameworks"
#: Pixels of a picture.
SIZE: ViewportSize = {"width": 1180, "height": 560}


def take(names: list[str]) -> None:
    """Take the picture of each framework, in 64 colours: a third of the bytes."""
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name in names:
            with tempfile.TemporaryDirectory() as home, served(Path(home)) as url:
                sent = (GOLDEN / f"{name}.json").read_bytes()
                httpx.post(
                    f"{url}/v1/traces", content=sent, headers={"Content-Type": "application/json"}
                ).raise_for_status()
                page = browser.new_page(viewport=SIZE)
                page.goto(url)
                page.locator("a[href*='/t/']").first.click()
                picture = Image.open(io.BytesIO(ready(page).screenshot()))
                picture.quantize(64).save(IMAGES / f"{name}.png", optimize=True)
                page.close()
        browser.close()


if __name__ == "__main__":
    take(sys.argv[1:] or sorted(file.stem for file in GOLDEN.glob("*.json")))
