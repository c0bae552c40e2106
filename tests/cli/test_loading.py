"""APP on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gateways import Request
from gateways.cli.loading import LoadError, folder_of, load


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with sys.path and sys.modules restored in the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "loading_one.py").write_text("app = 'the app'\nother = 'another'\nclass part:\n    inner = 'inside'\n")
    (tmp_path / "script").write_text("app = 'of a script'")
    (tmp_path / "loading_four.py").write_text("application = 'of a WSGI module'")
    below = tmp_path / "below"
    below.mkdir()
    (below / "loading_two.py").write_text("import loading_helper\napp = loading_helper.value\n")
    (below / "loading_helper.py").write_text("value = 'helped'")
    (below / "__init__.py").write_text("app = 'of a package'")
    (below / "json.py").write_text("app = 'not the json everybody knows'")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("loading_one", "the app"),
        ("loading_one:other", "another"),
        ("loading_one:part.inner", "inside"),
        ("loading_one.py", "the app"),
        ("loading_one.py:other", "another"),
        ("./loading_one.py", "the app"),
        ("{folder}/loading_one.py:other", "another"),
        ("./script", "of a script"),
        ("below", "of a package"),
        ("below/loading_two.py", "helped"),
        ("below/json.py", "not the json everybody knows"),
        ("loading_four", "of a WSGI module"),
    ],
)
def test_an_application_is_found(folder: Path, name: str, found: str) -> None:
    application: object = load(name.format(folder=folder))
    assert application == found


def test_a_file_does_not_take_the_place_of_a_module(folder: Path) -> None:
    load("below/json.py")
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "there is no module 'nowhere'"),
        ("below.nowhere", "there is no module 'below.nowhere'"),
        ("nowhere.py", "there is no file"),
        ("below/", "there is no file"),
        ("loading_one:nothing", "loading_one has no 'nothing'; it has part: write loading_one:part"),
        ("script.py", "there is no file"),
        ("below/loading_helper.py", "has no 'app'"),
        (":app", "names no application"),
        ("", "names no application"),
        ("loading_one:", "names no application"),
        ("loading_one:app()", "names no application"),
    ],
)
def test_what_is_missing_is_named(folder: Path, name: str, said: str) -> None:
    with pytest.raises(LoadError, match=r".*") as raised:
        load(name)
    assert said in str(raised.value)


@pytest.mark.parametrize("name", ["cgi-bin", "cgi-bin/", "./cgi-bin", "scripts/", "{folder}/scripts", "."])
async def test_a_folder_is_its_cgi_programs(folder: Path, name: str) -> None:
    for each in ("cgi-bin", "scripts"):
        (folder / each).mkdir()
    where = folder / name.format(folder=folder)
    (where / "hello").write_text("#!/bin/sh\nprintf 'Status: 418\\n\\n'")
    (where / "hello").chmod(0o755)
    handler: Any = load(name.format(folder=folder))
    response = await handler(Request({"REQUEST_METHOD": "GET", "PATH_INFO": "/hello"}))
    assert response.status == 418
    await response.body.aclose()
    assert folder_of(name.format(folder=folder)) == str(where)


def test_a_folder_that_might_be_a_module_is_one(folder: Path) -> None:
    (folder / "scripts").mkdir()
    with pytest.raises(LoadError, match=r"if it is a folder of CGI programs, write scripts/$"):
        load("scripts")


def test_app_dir_comes_before_everything(folder: Path) -> None:
    for where in ("below", "first"):
        (folder / where).mkdir(exist_ok=True)
        (folder / where / "loading_helper.py").write_text(f"value = 'from {where}'")
    sys.path.append(str(folder / "first"))
    assert load("below/loading_two.py", app_dir=str(folder / "first")) == "from first"
    assert sys.path[:2] == [str(folder / "first"), str(folder / "below")]


def test_app_dir_takes_the_place_of_the_working_directory(folder: Path) -> None:
    assert load("loading_two", app_dir=str(folder / "below")) == "helped"
    assert str(folder) not in sys.path
    with pytest.raises(LoadError, match=r"there is no module 'nowhere' in .*/below or on the path"):
        load("nowhere", app_dir=str(folder / "below"))


def test_a_forgotten_suffix_is_guessed(folder: Path) -> None:
    with pytest.raises(LoadError, match=r"did you mean .*below/loading_two.py\?"):
        load("below/loading_two")


def test_what_an_application_lacks_is_its_own_error(folder: Path) -> None:
    (folder / "loading_three.py").write_text("import nowhere_to_be_found")
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        load("loading_three")


def test_the_folder_of_an_application(folder: Path) -> None:
    assert folder_of("below/loading_two.py:app") == f"{folder}/below"
    assert folder_of("below.loading_two") == str(folder)
    assert folder_of("loading_two", f"{folder}/below") == f"{folder}/below"
