"""The command line as a whole: verbs, help, and what it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gateways
from tests.cli.program import HELLO, PATIENCE, environment, run


def test_version(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout == f"gateways {gateways.__version__}\n"


def test_help_names_the_verbs(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "serve" in done.stdout
    assert "dev" in done.stdout
    assert "check" in done.stdout


@pytest.mark.parametrize(("words", "said"), [([], "usage: "), (["swerve"], "there is no verb 'swerve'")])
def test_without_a_verb_it_explains_itself(tmp_path: Path, words: list[str], said: str) -> None:
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def loaded_by(words: list[str], cwd: Path, environ: dict[str, str] | None = None) -> set[str]:
    """The modules in memory once a command line has run."""
    program = (
        "import sys, gateways.cli\ntry:\n    gateways.cli.main()\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=cwd,
        env=environment(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return set(done.stderr.split())


HEAVY = {"trio", "attrs", "attr", "h11", "gateways.events", "gateways._net"}


@pytest.mark.parametrize("words", [["--help"], ["--version"], []])
def test_help_and_version_load_nothing_of_a_verb(tmp_path: Path, words: list[str]) -> None:
    found = loaded_by(words, tmp_path)
    assert found & {*HEAVY, "argparse", "logging", "gateways.launch", "gateways.cli.serve"} == set()


@pytest.mark.parametrize("verb", ["serve", "dev", "check", "env"])
def test_help_of_a_verb_loads_no_server(tmp_path: Path, verb: str) -> None:
    assert loaded_by([verb, "--help"], tmp_path) & HEAVY == set()


def test_a_cgi_script_loads_no_server(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(HELLO)
    variables = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET"}
    found = loaded_by(["serve", "hello.py"], tmp_path, variables)
    assert "gateways.cgi.guest" in found
    assert found & {*HEAVY, "logging"} == set()
