"""Pictures and files in what models were sent and tools gave back, in a real browser."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from agent_runs import Agent, stored
from axe_playwright_python.sync_playwright import Axe
from browser import Tab, browser, ready, served, tab
from playwright.sync_api import Browser, expect

from whyops_trace.server.attachments import MAX_PIXELS, Attachment, attached, shown
from whyops_trace.server.offline import offline_page

__all__ = ["browser"]


def png(width: int, height: int, color: bytes = b"\x20\x60\xc0") -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + color * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def encoded(content: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(content).decode()


PICTURE = png(40, 30)
DATA = encoded(PICTURE)
URL = f"data:image/png;base64,{DATA}"
PDF = b"%PDF-1.7 a document of some length"
#: The smallest pictures of other forms that have a size.
GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
JPEG = b"\xff\xd8\xff\xe0\x00\x04AB\xff\xc0\x00\x11\x08\x00\x1e\x00\x28\x03" + b"\0" * 12
WEBP = {
    "lossy": b"RIFF\x30\0\0\0WEBPVP8 \x18\0\0\0\x30\x01\0\x9d\x01\x2a\x28\0\x1e\0\0\0\0\0",
    "lossless": b"RIFF\x30\0\0\0WEBPVP8L\x18\0\0\0\x2f\x27\x40\x07\0\0\0\0\0\0\0\0\0",
    "extended": b"RIFF\x30\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x27\0\0\x1d\0\0\0\0\0\0",
}
BLOCKS: dict[str, Any] = {
    "openai chat": {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
    "openai responses": {"type": "input_image", "image_url": URL},
    "anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
    "gemini": {"inline_data": {"mime_type": "image/png", "data": DATA}},
    "gemini rest": {"inlineData": {"mimeType": "image/png", "data": DATA}},
    "langchain": {"type": "image", "source_type": "base64", "mime_type": "image/png", "data": DATA},
    "langchain 1": {"type": "image", "base64": DATA, "mime_type": "image/png"},
    "mcp": {"type": "image", "data": DATA, "mimeType": "image/png"},
    "opentelemetry": {"type": "blob", "modality": "image", "mime_type": "image/png", "content": DATA},
    "bytes": {"base64": DATA, "bytes": len(PICTURE)},
    "named otherwise": {"type": "image", "source": {"media_type": "text/html", "data": DATA}},
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_a_picture_is_known_in_every_dialect(block: Any) -> None:
    """By its bytes and not by its name, and the value says where it was."""
    (one,) = attached([block])

    assert (one.media_type, one.width, one.height, one.content) == ("image/png", 40, 30, PICTURE)
    assert one.digest == hashlib.sha256(PICTURE).hexdigest()
    assert DATA not in str(shown(block).value)
    assert "(PNG, 40 " in str(shown(block).value)


@pytest.mark.parametrize(
    ("content", "media_type"),
    [(GIF, "image/gif"), (JPEG, "image/jpeg"), *((one, "image/webp") for one in WEBP.values())],
)
def test_other_forms_of_pictures_are_measured(content: bytes, media_type: str) -> None:
    """So that the page has room for them before they come."""
    (one,) = shown({"data": encoded(content)}).attachments

    size = (1, 1) if media_type == "image/gif" else (40, 30)
    assert (one.media_type, one.width, one.height) == (media_type, *size)


@pytest.mark.parametrize(
    "content",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"<html><script>alert(1)</script></html>",
        b"\x89PNG\r\n\x1a\n broken, and no picture at all",
        b"\xff\xd8\xff" + b"\xff\xe0\x00\x00" * 10,
        png(1, 1)[:16] + struct.pack(">II", MAX_PIXELS, 2) + png(1, 1)[24:],
        b"RIFF\x30\0\0\0WEBPVP8X",
    ],
    ids=["svg", "html", "broken png", "broken jpeg", "too many pixels", "cut webp"],
)
def test_what_is_no_picture_is_never_shown_as_one(content: bytes) -> None:
    """Whatever it says of itself: it is a file to be saved."""
    (one,) = shown(f"data:image/svg+xml;base64,{encoded(content)}").attachments

    assert (one.width, one.media_type) == (0, "application/octet-stream")


@pytest.mark.parametrize(
    "value",
    [
        "a text", "data:text/plain,hello", {"data": "abcdefghijklmnopqrstuvwxyz0123456789"}, {"data": [1, 2]},
        {"sha256": "ab" * 32, "bytes": 12, "path": "/srv/a.bin"}, {"name": DATA}, None, 12, '{"data": "x"}', "{base64",
        {"data": "abcdefghijklmnopqrstuvwxyz", "format": "csv"},
    ],
)  # fmt: skip
def test_what_holds_no_attachment_stays_as_it_is(value: Any) -> None:
    """Words that could be base64 are words."""
    assert shown(value) == (value, [])


def test_what_was_not_recorded_or_is_elsewhere_is_named() -> None:
    """With its size, its hash or its address; nothing of it is loaded."""
    gone = {"mediaType": "image/png", "bytes": 123_456, "sha256": "ab" * 32}
    blocks = [
        {"type": "image_url", "image_url": {"url": gone}},
        {"type": "file", "file": {"filename": "bill.pdf", "file_data": {"bytes": 900, "sha256": "cd" * 32}}},
        {"type": "image_url", "image_url": {"url": "https://a.example/cat.png"}},
        {"type": "document", "source": {"type": "url", "url": "https://a.example/bill.pdf"}},
        {"file_data": {"file_uri": "gs://bucket/film.mp4", "mime_type": "video/mp4"}},
    ]

    assert attached(blocks) == [
        Attachment("image/png, 123 KB, not recorded: SHA-256 abababababab…"),
        Attachment("attachment, 900 bytes, not recorded: SHA-256 cdcdcdcdcdcd…", "bill.pdf"),
        Attachment("picture at https://a.example/cat.png, not loaded"),
        Attachment("file at https://a.example/bill.pdf, not loaded"),
        Attachment("file at gs://bucket/film.mp4, not loaded"),
    ]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a run that looks at pictures and reads a document."""
    agent = Agent("looks", "")
    document = {
        "type": "file",
        "file": {"filename": "bill <b>.pdf", "file_data": f"data:application/pdf;base64,{encoded(PDF)}"},
    }
    agent.messages[-1]["content"] = [
        {"type": "text", "text": "What is this?"},
        BLOCKS["openai chat"],
        document,
    ]
    asked = agent.turn("", ("screenshot", {}))
    result = {"content": [{"type": "text", "text": "the screen"}, BLOCKS["mcp"]], "isError": False}
    agent.tool("screenshot", {}, result, by=asked)
    agent.turn("A blue square.")
    agent.end()
    stored(tmp_path, agent).close()
    return tmp_path


def test_a_message_of_google_shows_its_text_and_its_picture(tmp_path: Path, browser: Browser) -> None:
    """Its parts have no type."""
    agent = Agent("google", "")
    agent.messages[-1] = {
        "role": "user",
        "content": None,
        "parts": [{"text": "What is this?"}, BLOCKS["gemini"]],
    }
    agent.turn("A square.")
    stored(tmp_path, agent).close()
    with served(tmp_path) as url, tab(browser, url) as opened:
        message = ready(opened.open("/t/google")).locator(".message.user")

        expect(message).to_contain_text("What is this?")
        expect(message.locator("img")).to_have_js_property("naturalWidth", 40)


@pytest.fixture
def page_of(home: Path, browser: Browser) -> Iterator[Tab]:
    """A tab of a server of that home."""
    with served(home) as url, tab(browser, url) as opened:
        yield opened


def test_pictures_are_shown_where_they_were_sent_and_given_back(page_of: Tab) -> None:
    """In bounds, with a text instead; what is no picture is saved under its name."""
    page = ready(page_of.open("/t/looks"))
    pictures = page.locator("#transcript img:visible")

    expect(pictures).to_have_count(2)
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        expect(picture).to_have_js_property("naturalWidth", 40)
        expect(picture).to_have_attribute("alt", "Picture ")
    expect(page.locator(".result")).to_contain_text("(PNG, 40")
    with page.expect_download() as coming:
        page.get_by_role("link", name="bill <b>.pdf").click()
    assert coming.value.path().read_bytes() == PDF
    assert Axe().run(page).violations_count == 0


def test_a_file_is_served_to_be_saved_and_never_to_be_opened(home: Path) -> None:
    """Only a picture has a type of its own."""
    with served(home) as url:
        picture, document, other = (
            httpx.get(f"{url}/t/looks/attachments/{digest}")
            for digest in (hashlib.sha256(PICTURE).hexdigest(), hashlib.sha256(PDF).hexdigest(), "ab" * 32)
        )

    assert (picture.headers["content-type"], picture.content) == ("image/png", PICTURE)
    assert document.headers["content-type"] == "application/octet-stream"
    assert document.headers["content-disposition"] == "attachment"
    assert (other.status_code, picture.headers["x-content-type-options"]) == (404, "nosniff")


def test_a_file_of_a_trace_has_its_pictures_inside(home: Path, browser: Browser) -> None:
    """They are shown without a server."""
    file = home / "looks.html"
    file.write_text(offline_page(stored(home), "looks"), "utf-8")
    with tab(browser, "file://") as opened:
        page = ready(opened.open(str(file)))
        pictures = page.locator("#transcript img:visible")

        expect(pictures).to_have_count(2)
        expect(pictures.first).to_have_js_property("naturalWidth", 40)
