"""The tutorial, followed word for word: its files are saved, its commands typed, and what they print is compared.

A console is the second terminal unless it says that it is the first, where servers run. Prompts of Python are run with
those of the other pages, by test_docs.py.
"""

from __future__ import annotations

import doctest
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest

from tests.cli.program import PACKAGE_FOLDER, environment
from tests.interop.servers import free_port, require

DOCS = Path(PACKAGE_FOLDER) / "docs"
EXAMPLES = Path(PACKAGE_FOLDER) / "examples" / "tutorial"
#: In the order in which they are read.
PAGES = [
    DOCS / f"{name}.rst"
    for name in re.findall(r"^   (tutorial/\w+)$", (DOCS / "tutorial.rst").read_text(encoding="utf-8"), re.MULTILINE)
]
FIRST = "in the first terminal"
#: Seconds until a test gives up.
PATIENCE = 30.0

#: What is different each time, or on each machine -> what is compared.
VARYING = {
    r"Date: .*": "Date:",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+": "TIME",
    r"\b\d+ms\b": "N ms",
    r"\[\w+-\d+\]": "[ID]",
    r"\bin \d+\.\d+s": "in N s",
    r"nginx/[\d.]+": "nginx",
    r"^[0-9a-f]{8}  (\w+) +id (\d+) +\d+\+\d+ +": r"\1 \2 ",
    r"^(PARAMS \d+) \d+": r"\1 N",
}


@attrs.frozen
class Saved:
    """A file that the reader saves."""

    name: str
    text: str


@attrs.frozen
class Typed:
    """A command, and what is shown below it."""

    command: str
    shown: str
    first: bool  #: in the first terminal, where it goes on running


@attrs.frozen
class Seen:
    """What has appeared in the first terminal."""

    shown: str


Step = Saved | Typed | Seen


def steps(page: Path) -> Iterator[Step]:
    """What a reader does, in order."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(
        r"^\.\. (literalinclude|code-block):: (.*)\n((?:   :.*\n)*)((?:   .*\n|\n)*)", text, re.MULTILINE
    ):
        kind, what, options, content = found.groups()
        caption = re.search(r":caption: (.*)", options)
        first = caption is not None and caption[1] == FIRST
        content = textwrap.dedent(content).strip("\n")
        if kind == "literalinclude":
            assert caption is not None, f"{page.name} includes {what} without saying what to call it"
            yield Saved(caption[1], (page.parent / what).read_text(encoding="utf-8"))
        elif what == "console":
            for typed in re.finditer(r"^\$ (.*)\n?((?:(?!\$ ).*(?:\n|\Z))*)", content, re.MULTILINE):
                yield Typed(typed[1], typed[2].rstrip("\n"), first)
        else:
            assert first, f"{page.name} has a block of {what} that nobody runs"
            yield Seen(content)


def test_the_tutorial_is_found() -> None:
    assert len(PAGES) == 9
    for page in PAGES:
        assert any(isinstance(step, Typed) for step in steps(page)), page.name


def test_every_file_of_the_tutorial_is_shown_in_it() -> None:
    shown = {
        re.sub(r".*/", "", name) for page in PAGES for name in re.findall(r"literalinclude:: (.*)", page.read_text())
    }
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == shown


def same_each_time(text: str) -> str:
    for pattern, stand_in in VARYING.items():
        text = re.sub(pattern, stand_in, text, flags=re.MULTILINE)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines()).rstrip("\n") + "\n"


def agrees(shown: str, printed: str) -> bool:
    """Whether this was printed; three dots stand for anything, on a line of their own for any lines."""
    shown = shown.replace("\n...\n", "\n...")
    return doctest.OutputChecker().check_output(same_each_time(shown), same_each_time(printed), doctest.ELLIPSIS)


class Command:
    """A command that runs on; what it prints is read as it comes."""

    def __init__(self, command: str, folder: Path, env: Mapping[str, str]) -> None:
        self.command = command
        self.text = ""
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if "curl" not in command else subprocess.DEVNULL,
        )

    def wait_for(self, shown: str) -> None:
        """Wait until these lines have been printed, in this order; others may be between them."""
        assert self.process.stdout is not None
        pattern = "(?:.*\n)*?".join(f"{re.escape(line)}\n" for line in same_each_time(shown).splitlines())
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            deadline = time.monotonic() + PATIENCE
            while not re.search(pattern, same_each_time(self.text), re.MULTILINE):
                assert selector.select(deadline - time.monotonic()), f"no {shown!r} in:\n{self.text}"
                data = os.read(self.process.stdout.fileno(), 65536)
                assert data, f"{self.command} ended without {shown!r}:\n{self.text}"
                self.text += data.decode()

    def end(self) -> int:
        """Press Ctrl-C, unless it ends by itself; its exit status."""
        assert self.process.stdout is not None
        if "look.py" not in self.command:
            self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.stdout.close()
        return status


class Reader:
    """Somebody with a folder and two terminals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first: Command | None = None
        self._reloaded = False
        self._ports = {port: str(free_port()) for port in ("4000", "8000", "8080", "9000")}
        self._env = environment({"PATH": f"{folder}/env/bin:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"})
        (folder / "env" / "bin").mkdir(parents=True)
        for name, command in (("gateways", "-m gateways "), ("python", ""), ("python3", "")):
            program = folder / "env" / "bin" / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command}"$@"\n')
            program.chmod(0o755)

    def here(self, text: str) -> str:
        """With ports that are free."""
        text = re.sub(r"^gateways dev ", "gateways dev --port 8000 ", text)
        return re.sub(r"\b(4000|8000|8080|9000)\b", lambda found: self._ports[found[1]], text)

    def save(self, step: Saved) -> None:
        (self.folder / step.name).write_text(self.here(step.text), encoding="utf-8")

    def follow(self, step: Step) -> None:
        match step:
            case Saved():
                self.save(step)
            case Typed(first=True):
                self.stop_first()
                self.first = Command(self.here(step.command), self.folder, self._env)
                self.first.wait_for(self.here(step.shown))
            case Typed():
                self._type(self.here(step.command), self.here(step.shown))
            case Seen():
                assert self.first is not None
                self.first.wait_for(self.here(step.shown))

    def _type(self, command: str, shown: str) -> None:
        if shown.endswith("^C"):
            running = Command(command, self.folder, self._env)
            running.wait_for(shown.removesuffix("^C"))
            running.end()
            return
        printed = self._run(command)
        deadline = time.monotonic() + PATIENCE
        while self._reloaded and not agrees(shown, printed) and time.monotonic() < deadline:
            printed = self._run(command)  # for a moment the workers of nginx are still the old ones
        self._reloaded = command.endswith("-s reload")
        assert agrees(shown, printed), f"$ {command}\n{printed}\nis not what is shown:\n{shown}"

    def _run(self, command: str) -> str:
        # To files: a daemon would keep a pipe open.
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            shell = ["bash", "-c", command]
            done = subprocess.run(
                shell, cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
                timeout=PATIENCE, check=False,
            )  # fmt: skip
            output.seek(0)
            errors.seek(0)
            assert done.returncode == 0, f"$ {command}\n{errors.read().decode()}"
            return output.read().decode().replace("\r\n", "\n")

    def stop_first(self) -> None:
        if self.first is not None:
            running, self.first = self.first, None
            assert running.end() == 0, running.text

    def leave(self) -> None:
        """End what a page has left running."""
        with suppress(FileNotFoundError, ProcessLookupError):  # it has been told to stop, mostly
            os.kill(int((self.folder / "nginx.pid").read_text()), signal.SIGTERM)
        self.stop_first()


@contextmanager
def reader() -> Generator[Reader]:
    # Not pytest's folder: started as root, the workers of nginx are another user.
    with tempfile.TemporaryDirectory(prefix="gw", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        somebody = Reader(Path(name))
        try:
            yield somebody
        finally:
            somebody.leave()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_of_the_tutorial_can_be_followed(page: Path) -> None:
    wanted = [*steps(page)]
    require("bash", "curl")
    if any(isinstance(step, Typed) and "nginx -p" in step.command for step in wanted):
        require("/usr/sbin/nginx", "/etc/nginx/fastcgi_params", "/etc/nginx/scgi_params")
    with reader() as somebody:
        for before in PAGES[: PAGES.index(page)]:
            for step in steps(before):
                if isinstance(step, Saved):
                    somebody.save(step)
        for step in wanted:
            somebody.follow(step)
