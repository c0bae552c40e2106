"""docs/gemini-capsule.rst, followed: its files are saved, served and looked at by clients of both kinds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.program import PACKAGE_FOLDER, Program, command, environment, get
from tests.gemini_client import fetch, identity
from tests.test_docs import blocks

PAGE = Path(PACKAGE_FOLDER) / "docs" / "gemini-capsule.rst"
CAPSULES = [source for caption, source in blocks(PAGE, "python") if caption == "capsule.py"]
SHOWN = dict(blocks(PAGE, "text"))


@contextmanager
def shown(source: str, folder: Path) -> Generator[tuple[Program, str, int]]:
    """The page's own command, on free ports."""
    (folder / "capsule.py").write_text(source, encoding="utf-8")
    [typed] = [line for _, text in blocks(PAGE, "console") for line in text.splitlines() if "--gemini" in line]
    words = [*shlex.split(typed.removeprefix("$ gateways ").replace("1965", "0")), "--port", "0"]
    with Program(command(*words), cwd=folder, env=environment({"XDG_STATE_HOME": str(folder)})) as program:
        program.wait_for("^stop with Ctrl-C$")
        [web] = program.wait_for("^  http://(.*)/$")
        [port] = program.wait_for(r"^  gemini://127\.0\.0\.1:(\d+)/")
        yield program, web, int(port)


def test_the_terminal_shows_what_the_page_says(tmp_path: Path) -> None:
    [printed] = [text.partition("\n")[2] for _, text in blocks(PAGE, "console") if "--gemini" in text]
    with shown(CAPSULES[0], tmp_path) as (program, web, port):
        said = program.text.replace(web, "127.0.0.1:8000").replace(f"127.0.0.1:{port}", "127.0.0.1")
        assert said.replace(str(tmp_path), "/home/you/.local/state") == printed


def test_a_page(tmp_path: Path) -> None:
    with shown(CAPSULES[0], tmp_path) as (_, web, port):
        assert fetch(port, "/").text == SHOWN["gemini://127.0.0.1/"]
        assert "<h1>My capsule</h1>" in get(web, "/").body


def test_a_question(tmp_path: Path) -> None:
    with shown(CAPSULES[1], tmp_path) as (_, web, port):
        [address] = [name for name in SHOWN if "greeting" in name]
        assert "=> /greeting Be greeted" in fetch(port, "/").text
        assert fetch(port, "/greeting").line == "10 What is your name?"
        assert fetch(port, address.removeprefix("gemini://127.0.0.1")).text == SHOWN[address]
        assert '<input name="input"' in get(web, "/greeting").body
        assert "Hello, &lt;b&gt;!" in get(web, "/greeting?input=%3Cb%3E").body


def test_who_are_you(tmp_path: Path) -> None:
    one, other = identity(tmp_path, "bob"), identity(tmp_path, "bob")
    with shown(CAPSULES[2], tmp_path) as (_, _, port):
        assert fetch(port, "/").line == "60 Show a certificate, and I will know you again"
        assert "here 1 times" in fetch(port, "/", one).text
        assert "here 2 times" in fetch(port, "/", one).text
        assert "here 1 times" in fetch(port, "/", other).text


def test_a_test(tmp_path: Path) -> None:
    [test] = [source for caption, source in blocks(PAGE, "python") if caption == "test_capsule.py"]
    (tmp_path / "capsule.py").write_text(CAPSULES[2])
    (tmp_path / "test_capsule.py").write_text(test)
    words = [sys.executable, "-m", "pytest", "-q", "-o", "trio_mode=true", "-p", "no:cacheprovider"]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_what_the_page_says_of_the_front_end_is_so() -> None:
    from gateways.cli import gemini, tls

    text = PAGE.read_text(encoding="utf-8")
    assert f"more than {gemini._MAX_URL} bytes" in text
    assert f"{gemini._MAX_UPLOAD // 2**20} MiB at most" in text
    assert f"``{tls._FILE}``" in text
    assert tls._YEARS.days == 3650
    assert "ten years" in text


@pytest.mark.parametrize("name", re.findall(r"``(examples/\w+\.py)``", PAGE.read_text(encoding="utf-8")))
def test_examples_that_are_named_exist(name: str) -> None:
    assert (Path(PACKAGE_FOLDER) / name).is_file()
