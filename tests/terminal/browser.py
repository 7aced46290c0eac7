"""A page in headless Chromium: how wide it is, what is cut off, what colour it has, what it is on paper."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# The page is in a frame as wide as the screen is to be: a window has a least width.
_FRAME = """<body style="margin:0"><iframe id="f" width="{width}" height="900" style="border:0" srcdoc="{page}">
</iframe><script>
onload = () => {{
  const d = document.getElementById('f').contentDocument, w = {width};
  const cut = [...d.body.querySelectorAll('*')].filter(e => !e.closest('thead, details:not([open]) > *:not(summary)')
    && (e.getBoundingClientRect().right > w + 1 || e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 1));
  const text = [...d.querySelectorAll('h1, h2, h3, .lead, .verdict')].map(e => e.innerText);
  document.body.setAttribute('data-found', JSON.stringify({{
    width: d.documentElement.scrollWidth, cut: cut.map(e => e.outerHTML.slice(0, 120)), text,
    ink: getComputedStyle(d.body).color, paper: getComputedStyle(d.body).backgroundColor }}));
}};
</script>"""


def needs_browser() -> str:
    """Chromium's path. Without one the test is skipped, and in CI, which installs it, fails."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: .ci/run installs it")
        pytest.skip("no Chromium here: apt-get install chromium")
    return CHROMIUM


def look(page: Path, folder: Path, width: int, *, dark: bool = False) -> dict[str, Any]:
    """What is to be seen of a page on a screen of this width."""
    frame = folder / f"frame-{width}.html"
    text = _FRAME.format(width=width, page=html.escape(page.read_text(encoding="utf-8")))
    frame.write_text(text, encoding="utf-8")
    schemes = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    dom = _chromium(folder, *schemes, f"--window-size={max(width, 600)},1000", "--dump-dom", frame.as_uri())
    found = re.search('data-found="([^"]*)"', dom)
    assert found is not None, dom[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


def screenshot(page: Path, folder: Path, width: int) -> tuple[int, int]:
    """A picture of the first screen, kept as page-<width>.png: its width, and its size in bytes."""
    picture = folder / f"page-{width}.png"
    _chromium(folder, f"--window-size={width},1000", f"--screenshot={picture}", page.as_uri())
    content = picture.read_bytes()
    return int.from_bytes(content[16:20], "big"), len(content)


def printed(page: Path, folder: Path) -> str:
    """The text of the page on A4 paper."""
    pdf = folder / "page.pdf"
    _chromium(folder, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri())
    words = shutil.which("pdftotext")
    if words is None:
        if os.environ.get("CI"):
            pytest.fail("no pdftotext: .ci/run installs it")
        pytest.skip("no pdftotext here: apt-get install poppler-utils")
    done = subprocess.run([words, "-layout", str(pdf), "-"], capture_output=True, text=True, check=True)
    return done.stdout


def _chromium(folder: Path, *options: str) -> str:
    command = [
        needs_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}", *options,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
