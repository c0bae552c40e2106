"""What importing the SCGI package costs, and its public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gateways import scgi


def test_importing_the_protocol_loads_no_trio() -> None:
    program = "import sys, gateways.scgi; sys.exit(any(name.partition('.')[0] == 'trio' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_serve_is_loaded_when_it_is_asked_for() -> None:
    from gateways.scgi import transport

    assert scgi.serve is transport.serve
    assert "serve" in vars(scgi)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'gateways\.scgi' has no attribute 'nonsense'"):
        _ = scgi.nonsense
