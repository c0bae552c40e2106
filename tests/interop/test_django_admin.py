"""Django's admin, used by a person with a browser: Chromium, nginx, FastCGI, and Django behind them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.asgi.tools import needs
from tests.interop.frameworks.running import (
    ADMINISTRATOR,
    MOUNT,
    PASSWORD,
    behind,
    configuration,
    prepare_shelf,
    shelf_files,
    shelf_variables,
)
from tests.interop.servers import PATIENCE, SERVER_NAME, require

#: What a browser would otherwise ask of machines that are not there, and what it asks of ours.
_FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-proxy-server",
    f"--host-resolver-rules=MAP {SERVER_NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1200,1000",
    "--lang=en",
)


class Person:
    """Somebody at a browser: goes to pages, reads them, fills in forms and presses buttons."""

    def __init__(self, driver: Any, site: str) -> None:
        self._driver = driver
        self._site = site

    @property
    def path(self) -> str:
        """Where the browser is."""
        return str(self._driver.current_url).removeprefix(self._site)

    def go(self, path: str) -> None:
        self._driver.get(self._site + path)

    def find(self, selector: str) -> Any:
        """The first element that a CSS selector fits; waits for it."""
        return self._driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return [str(each.text) for each in self._driver.find_elements("css selector", selector)]

    def fill_in(self, **fields: str) -> None:
        for name, text in fields.items():
            self.find(f"[name={name}]").send_keys(text)

    def press(self, selector: str) -> None:
        """Press a button or a link that leads to another page, and wait until the browser has it."""
        before = self.find("html")
        self.find(selector).click()
        self._wait(lambda: self._is_gone(before) and self._script("return document.readyState") == "complete")

    def style(self, selector: str, name: str) -> str:
        """What the style sheets make of an element."""
        return str(self.find(selector).value_of_css_property(name))

    def errors(self) -> list[str]:
        """What the browser has to complain about: missing files, broken scripts."""
        return [str(line["message"]) for line in self._driver.get_log("browser") if line["level"] == "SEVERE"]

    def _script(self, text: str) -> Any:
        return self._driver.execute_script(text)

    def _is_gone(self, element: Any) -> bool:
        from selenium.common.exceptions import StaleElementReferenceException

        try:
            element.is_enabled()
        except StaleElementReferenceException:
            return True
        return False

    def _wait(self, condition: Any) -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self._driver, PATIENCE, 0.02).until(lambda _: condition())


@contextmanager
def person(site: str, profile: Path) -> Generator[Person]:
    """Chromium without a screen, until the block ends."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # which root cannot have
    # By its path: selenium looks for no driver elsewhere then.
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        driver.implicitly_wait(PATIENCE)
        driver.set_page_load_timeout(PATIENCE)
        yield Person(driver, site)
    finally:
        driver.quit()


@pytest.fixture
def somebody(tmp_path: Path) -> Generator[Person]:
    """A browser in front of Django's admin."""
    require("chromium", "chromedriver", "nginx")
    needs("selenium", "django")
    prepare_shelf(tmp_path)
    nginx = configuration("nginx-fastcgi-stock-unix-app", site=shelf_files(tmp_path))
    application = ("tests.interop.frameworks.shelf.wsgi",)
    with (
        behind([nginx], *application, variables=shelf_variables(tmp_path)) as ([web], _),
        person(f"http://{SERVER_NAME}:{web.port}{MOUNT}", tmp_path / "profile") as somebody,
    ):
        yield somebody


def test_the_admin_logs_in_uploads_a_document_sees_it_deletes_it_and_logs_out(somebody: Person, tmp_path: Path) -> None:
    letter = tmp_path / "Brief an Zoë.txt"
    letter.write_text("Grüße\n" * 50_000, encoding="utf-8")

    somebody.go("/admin/")
    assert somebody.path == f"/admin/login/?next={MOUNT}/admin/"
    somebody.fill_in(username=ADMINISTRATOR, password="wrong")
    somebody.press("[type=submit]")
    assert "correct username and password" in somebody.texts(".errornote")[0]
    somebody.fill_in(password=PASSWORD)
    somebody.press("[type=submit]")
    assert somebody.path == "/admin/"
    assert ADMINISTRATOR.upper() in somebody.texts("#user-tools")[0].upper()
    # The style sheets come from the static files.
    assert somebody.style("#header", "display") == "flex"

    somebody.press("a[href$='/shelf/document/add/']")
    somebody.fill_in(title="Ein Brief", file=str(letter))
    somebody.press("[name=_save]")
    assert "was added successfully" in somebody.texts(".messagelist")[0]
    assert somebody.texts("#result_list .field-title") == ["Ein Brief"]
    [kept] = (tmp_path / "media" / "documents").iterdir()
    assert kept.read_bytes() == letter.read_bytes()

    somebody.press("#result_list .field-title a")
    assert somebody.find("[name=title]").get_attribute("value") == "Ein Brief"
    change = somebody.path
    somebody.press(".file-upload a")
    assert somebody.texts("body")[0].startswith("Grüße\nGrüße\n")
    somebody.go(change)

    somebody.press(".deletelink")
    assert "Are you sure" in somebody.texts("#content")[0]
    somebody.press("#content [type=submit]")
    assert "was deleted successfully" in somebody.texts(".messagelist")[0]
    assert somebody.texts(".paginator") == ["0 documents"]

    somebody.press("#logout-form [type=submit]")
    assert "Logged out" in somebody.texts("#content")[0]
    somebody.go(change)
    assert somebody.path == f"/admin/login/?next={MOUNT}{change}"
    assert somebody.errors() == []
