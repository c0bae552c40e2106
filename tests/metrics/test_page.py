"""The page docs/metrics.rst: its configuration of nginx as it stands there, and the names that it tells."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateways import Tally
from gateways._process.scoreboard import Alone
from gateways.metrics import GatewaysCollector
from gateways.status import describe
from tests.cli.program import Answer, get, serving
from tests.interop.servers import SOCKET_MODE, check_generated, free_port, private_folder, running_generated
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "metrics.rst"
TEXT = PAGE.read_text(encoding="utf-8")

APP = "from gateways import Response\n\nasync def app(request):\n    return Response('the application')\n"


@contextmanager
def behind_nginx(tmp_path: Path, allowed: str) -> Generator[str]:
    """The configuration of the page in front of the command of the page; where it listens."""
    [(_, site)] = blocks(PAGE, "nginx")
    (tmp_path / "app.py").write_text(APP)
    with private_folder() as folder:
        port = free_port()
        site = site.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("/run/app.sock", f"{folder}/app.sock")
        site = site.replace("include fastcgi_params;", "include /etc/nginx/fastcgi_params;")
        assert "allow 127.0.0.1;" in site
        verdict = check_generated("nginx", site.replace("allow 127.0.0.1;", f"allow {allowed};"), folder)
        assert verdict.status == 0, verdict.text
        flags = ["--bind", f"fastcgi:unix:{folder}/app.sock", "--socket-mode", f"{SOCKET_MODE:o}"]
        with (
            serving("app.py", *flags, "--ping-path", "/ping", "--status-path", "/status", cwd=tmp_path),
            running_generated("nginx", folder, port),
        ):
            yield f"127.0.0.1:{port}"


def test_the_status_is_there_for_those_who_are_allowed(tmp_path: Path) -> None:
    with behind_nginx(tmp_path, "127.0.0.1") as where:
        assert get(where, "/ping") == Answer(200, "pong\n")
        assert get(where, "/status").body.startswith("process manager:     none\n")
        assert get(where, "/status?json").status == 200
        assert get(where, "/other") == Answer(200, "the application")


def test_nobody_else_gets_at_it_however_the_path_is_spelt(tmp_path: Path) -> None:
    spellings = ["/status", "/status?full", "//status", "/%73tatus", "/x/../status", "/./status", "/x/%2e%2e/status"]
    others = ["/status/", "/status/x", "/STATUS", "/status%00", "/status;x", "/status%3Fjson", "/status%20", "/status."]
    with behind_nginx(tmp_path, "192.0.2.1") as where:
        assert {path: get(where, path).status for path in spellings} == dict.fromkeys(spellings, 403)
        answers = {path: get(where, path) for path in others}
        assert {answer.body for answer in answers.values() if answer.status == 200} == {"the application"}


def test_every_metric_is_on_the_page_and_no_other() -> None:
    told = {
        sample.name + "_total" * (family.type == "counter" and not sample.name.endswith("_total"))
        for family in GatewaysCollector(Alone(Tally())).collect()
        for sample in family.samples
        if family.type != "histogram"
    }
    told.add("gateways_request_duration_seconds")
    table = TEXT.partition("What Prometheus is told")[2].partition("``worker`` is a place")[0]
    assert set(re.findall(r"``(gateways_\w+)", table)) == told


@pytest.mark.parametrize("name", ["process manager", "start since", "accepted conn", "refused requests"])
def test_names_of_the_status_on_the_page_exist(name: str) -> None:
    assert f"``{name}``" in TEXT
    assert name in describe(Alone(Tally()))
