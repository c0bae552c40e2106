"""What a CGI script loads: exactly these modules beyond those of ``python -c pass`` in a fresh environment.

A classic CGI script pays for each of them on every request. A module that is added here was worth it.
"""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

import pytest

import gateways

PACKAGE_PARENT = Path(gateways.__file__).parents[1]

#: Of ours, what ``from gateways import Request, Response, Reject, Roles, URLMap`` loads.
MODEL = {
    "gateways",
    "gateways._model",
    "gateways._model.environ",
    "gateways._model.errors",
    "gateways._model.handler",
    "gateways._model.headers",
    "gateways._model.limits",
    "gateways._model.quirks",
    "gateways._model.request",
    "gateways._model.response",
    "gateways._model.status",
    "gateways._model.urlmap",
}

#: What a whole CGI script loads on top.
SCRIPT = MODEL | {
    "gateways._model.policy",
    "gateways.cgi",
    "gateways.cgi.guest",
}

#: A sample of what must not come back, for a message that says more than a difference of sets.
HEAVY = {
    "argparse", "asyncio", "attr", "attrs", "collections", "contextlib", "dataclasses", "enum", "functools", "h11",
    "importlib", "inspect", "io", "json", "logging", "operator", "re", "select", "signal", "socket", "threading",
    "traceback", "trio", "types", "typing", "urllib", "warnings", "weakref",
}  # fmt: skip

NAMES = "from gateways import Request, Response, Reject, Roles, URLMap\n"

HELLO = (
    NAMES
    + """
import gateways.cgi

async def hello(request):
    return Response(f"Hello, {request.remote_addr}!\\n")

gateways.cgi.run(URLMap({"": Roles(hello)}))
"""
)

REPORT = "import sys\nsys.stderr.write(' '.join(sys.modules))\n"


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh virtual environment: no ``.pth`` file of ours loads anything before we look."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


def loaded(python: Path, code: str) -> set[str]:
    """The modules that are there after ``code``."""
    path = f"import sys\nsys.path.insert(0, {str(PACKAGE_PARENT)!r})\n"
    done = subprocess.run(
        [python, "-I", "-c", path + code + REPORT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            "REQUEST_METHOD": "GET",
            "REMOTE_ADDR": "::1",
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_PROTOCOL": "HTTP/1.1",
        },
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import gateways\n", {"gateways"}),
        (NAMES, MODEL),
        (NAMES + "import gateways.cgi\ngateways.cgi.run\n", SCRIPT),
        (HELLO, SCRIPT),
    ],
    ids=["the package", "the names of an application", "gateways.cgi", "hello, run as a CGI script"],
)
def test_exactly_these_modules_are_loaded(python: Path, code: str, expected: set[str]) -> None:
    added = loaded(python, code) - loaded(python, "pass\n")
    assert not added & HEAVY
    assert added == expected


def test_the_cgi_script_of_these_tests_answers(python: Path) -> None:
    """Lest a script that died early look light."""
    path = f"import sys\nsys.path.insert(0, {str(PACKAGE_PARENT)!r})\n"
    done = subprocess.run(
        [python, "-I", "-c", path + HELLO],
        capture_output=True,
        timeout=60,
        check=True,
        env={"REQUEST_METHOD": "GET", "REMOTE_ADDR": "::1", "GATEWAY_INTERFACE": "CGI/1.1"},
        stdin=subprocess.DEVNULL,
    )
    assert done.stderr == b""
    assert done.stdout.startswith(b"Status: 200 OK\r\n")
    assert done.stdout.endswith(b"\r\n\r\nHello, ::1!\n")
