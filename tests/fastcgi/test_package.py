"""The public names of gateways.fastcgi."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gateways import fastcgi


def run(program: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-c", program, *arguments], check=False).returncode


@pytest.mark.parametrize("module", ["gateways.fastcgi", "gateways.fastcgi.dissecting"])
def test_examples_in_docstrings_hold(module: str) -> None:
    # In a process of its own: doctest and coverage both trace.
    program = "import sys, doctest, importlib; r = doctest.testmod(importlib.import_module(sys.argv[1])); "
    program += "sys.exit(r.failed or not r.attempted)"
    assert run(program, module) == 0


def test_the_protocol_loads_no_trio() -> None:
    program = "import sys; from gateways import fastcgi; fastcgi.ServerConnection(); fastcgi.ClientConnection();"
    assert run(program + "sys.exit('trio' in sys.modules)") == 0


def test_serve_is_loaded_when_it_is_asked_for() -> None:
    from gateways.fastcgi import transport

    assert fastcgi.serve is transport.serve
    assert vars(fastcgi)["serve"] is transport.serve


def test_every_public_name_is_here_or_lazy() -> None:
    assert set(fastcgi.__all__) == {"ClientConnection", "ServerConnection", "dissect"} | set(fastcgi._LAZY)


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match=r"module 'gateways\.fastcgi' has no attribute 'nonsense'"):
        _ = fastcgi.nonsense
