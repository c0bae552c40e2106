"""Look at the documentation as built, in a real browser: does anything stand out of the page?

    python -m tools.look docs/_build/html                  # every page, as wide as a telephone and as a desk
    python -m tools.look docs/_build/html --shots FOLDER   # and a picture of each, light and dark

An element is too wide if it reaches beyond the page and nothing around it scrolls or cuts. Takes chromium, chromedriver
and selenium. The pages are read as files; nothing is asked of any network.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import shutil
import sys
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

#: A telephone, and a desk.
WIDTHS = (390, 1280)
THEMES = ("light", "dark")

_FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
)

#: What is wider than the page, by its tag, class and first words. What scrolls or cuts by itself hides what is in it.
_TOO_WIDE = """
const width = document.documentElement.clientWidth;
const found = [];
const wide = new Set();
const hidden = (element) => {
  for (let up = element.parentElement; up && up !== document.body; up = up.parentElement) {
    if (up.matches(".content")) return false;  // the column of text: it should not have to scroll
    const style = getComputedStyle(up);
    if (style.overflowX !== "visible" || style.position === "fixed" || style.visibility === "hidden") return true;
  }
  return false;
};
for (const element of document.querySelectorAll("body *")) {
  const box = element.getBoundingClientRect();
  const style = getComputedStyle(element);
  if (!box.width || style.position === "fixed" || style.visibility === "hidden" || hidden(element)) continue;
  if (box.right > width + 1) {
    wide.add(element);
    if (wide.has(element.parentElement)) continue;  // said once, of what is around it
    const words = (element.textContent || "").trim().slice(0, 60).replace(/\\s+/g, " ");
    const name = `${element.tagName.toLowerCase()}.${element.getAttribute("class") || ""}`;
    found.push(`${name} (${Math.round(box.right)}): ${words}`);
  }
}
for (const column of document.querySelectorAll(".content"))
  if (column.scrollWidth > column.clientWidth + 1)
    found.push(`the text is ${column.scrollWidth} wide in ${column.clientWidth}`);
const whole = document.documentElement.scrollWidth;
if (whole > width) found.push(`the page is ${whole} wide`);
for (const cell of document.querySelectorAll("td, th")) {
  const box = cell.getBoundingClientRect();
  for (const inside of cell.querySelectorAll("code, a, p")) {
    const own = inside.getBoundingClientRect();
    if (own.right > box.right + 2 && getComputedStyle(cell).overflowX === "visible")
      found.push(`in a cell (${Math.round(own.right - box.right)} too wide): ${inside.textContent.slice(0, 60)}`);
  }
}
return found;
"""


@attrs.frozen
class Fault:
    """Something that is too wide."""

    page: str
    width: int
    what: str

    def __str__(self) -> str:
        return f"{self.page} at {self.width} pixels: {self.what}"


class Browser:
    """A chromium without a window."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def be(self, width: int, theme: str = "light") -> None:
        """Have a page of this width, in the scheme of colours that the system prefers."""
        self._do("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self._do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def open(self, page: Path) -> None:
        """Go to a file."""
        self._driver.get(page.resolve().as_uri())

    def too_wide(self) -> list[str]:
        """What stands out of the page."""
        found: list[str] = self._driver.execute_script(_TOO_WIDE)
        return found

    def shot(self, *, most: int = 6000) -> bytes:
        """A picture of the whole page, down to so many pixels."""
        size = self._do("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], most), "scale": 1}
        taken = self._do("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(taken["data"])

    def _do(self, command: str, **arguments: Any) -> Any:
        return self._driver.execute_cdp_cmd(command, arguments)


@contextlib.contextmanager
def browser(folder: Path) -> Generator[Browser]:
    """A browser that leaves nothing behind but in ``folder``."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    service = webdriver.ChromeService(
        executable_path=shutil.which("chromedriver"), env={**os.environ, "HOME": str(folder)}
    )
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def pages(site: Path) -> list[Path]:
    """Every page but those of the source code, which is wide by itself."""
    return sorted(path for path in site.rglob("*.html") if "_modules" not in path.parts)


def faults(seen: Browser, site: Path, widths: Iterable[int] = WIDTHS) -> Iterator[Fault]:
    """What is too wide, on every page."""
    for page in pages(site):
        seen.open(page)
        for width in widths:
            seen.be(width)
            for what in seen.too_wide():
                yield Fault(str(page.relative_to(site)), width, what)


def main() -> int:
    """Look, and say what is wrong: status 1 if anything is."""
    import tempfile

    parser = argparse.ArgumentParser(prog="python -m tools.look", description="Look at the documentation in a browser.")
    parser.add_argument("site", type=Path, help="the folder with index.html")
    parser.add_argument("--shots", type=Path, help="put pictures there")
    parser.add_argument(
        "--page", action="append", help="take pictures of this page alone, such as internals; repeatable"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as seen:
        found = [*faults(seen, options.site)]
        for fault in found:
            print(fault)
        if options.shots:
            options.shots.mkdir(parents=True, exist_ok=True)
            for page in pages(options.site):
                name = str(page.relative_to(options.site).with_suffix(""))
                if options.page and name not in options.page:
                    continue
                for width in WIDTHS:
                    for theme in THEMES:
                        seen.be(width, theme)
                        seen.open(page)
                        file = options.shots / f"{name.replace('/', '-')}-{width}-{theme}.png"
                        file.write_bytes(seen.shot())
    print(f"{len(pages(options.site))} pages, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
