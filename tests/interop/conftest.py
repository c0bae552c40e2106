"""Fixtures that start real web servers, and their error logs beside the failures of the tests that used them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import pytest

from tests.interop.configurations import CONFIGURATIONS, Configuration
from tests.interop.servers import FrontEnd, front_end, python_script

ScriptFor = Callable[[Configuration], str]

#: A backend that hangs up on everyone; as a CGI script, whose fd 0 nobody can accept from, it fails at once.
_SILENT = """
import socket
listener = socket.socket(fileno=0)
while True:
    listener.accept()[0].close()
"""


@pytest.fixture(scope="module")
def script_for() -> ScriptFor:
    """The text of what a web server runs that starts its backend itself; override it in a module to get answers."""
    return lambda _configuration: python_script(_SILENT)


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def web(request: pytest.FixtureRequest, script_for: ScriptFor) -> Iterator[FrontEnd]:
    """A running web server in each configuration in turn, for all tests of the module."""
    configuration: Configuration = request.param
    script = script_for(configuration) if configuration.script else None
    with front_end(configuration, script) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the error log of the web server beside the failure of a test that uses it."""
    report = yield
    web = item.funcargs.get("web") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(web, FrontEnd):
        report.sections.append((f"error log of {web.configuration}", web.error_log()))
    return report
