"""The measurements of bench/ run, and show what they say they show. What they find is not tested: machines differ."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import accounting, backends, budgets, cgi_start, load, nginx, page, report, web
from bench.backends import BACKENDS, Backend
from bench.budgets import BUDGETS, Budget, Verdict
from bench.load import CASES
from bench.results import US, Figures, Results
from tests.interop.servers import require

ROOT = Path(__file__).parent.parent
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="counts as Linux does")


# --- the start of a CGI script ---------------------------------------------------------------------------------------


def test_the_start_of_a_cgi_script_is_measured(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cgi_start", "--rounds", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    about, heading, *table = done.stdout.splitlines()
    assert about.endswith(f"rounds: 1, {sys.executable}")
    assert heading.split() == ["CPU", "of", "one", "process", "minimum", "times", "median", "times"]
    programs = cgi_start.rows(sys.executable, tmp_path, tmp_path, installed=False)
    assert [line[:26].rstrip() for line in table] == [program.name for program in programs]
    first = table[0].split()
    assert first[first.index("ms") + 1] == "1.00"


# --- what processes used ---------------------------------------------------------------------------------------------


@LINUX
def test_the_cpu_clock_of_a_process_counts_threads_that_have_ended() -> None:
    def work() -> None:
        sum(range(100_000))
        taken.append(time.thread_time_ns())

    taken: list[int] = []
    before = accounting.cpu_clocks([os.getpid()])
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    after = accounting.cpu_clocks([os.getpid()])
    assert accounting.cpu_between(before, after) >= taken[0] > 0


@LINUX
def test_the_cpu_clock_of_a_process_is_the_one_that_it_sees_itself() -> None:
    low = time.process_time_ns()
    [clock] = accounting.cpu_clocks([os.getpid()]).values()
    assert low <= clock <= time.process_time_ns()


@LINUX
def test_the_family_of_a_process_is_its_children_and_theirs() -> None:
    grandchild = "import sys; print('there', flush=True); sys.stdin.read()"
    child = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {grandchild!r}]))"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = accounting.family(process.pid)
        mine = accounting.family(os.getpid())
        memory = accounting.pss(found), accounting.rss(found)
    assert found[0] == process.pid
    assert len(found) == 2
    assert set(found) < set(mine)
    assert 0 < memory[0] <= memory[1]


def test_a_figure_of_other_processes_than_before_is_none() -> None:
    assert accounting.cpu_between({1: 10, 2: 20}, {1: 15, 2: 40}) == 25
    with pytest.raises(accounting.Changed, match=r"were \[1, 2\], and are \[1, 3\]"):
        accounting.cpu_between({1: 10, 2: 20}, {1: 15, 3: 40})


# --- the servers -----------------------------------------------------------------------------------------------------


#: The bench leaves out what is not installed, and so do its tests. The others' servers have to be found by no test.
INSTALLED = [backend for backend in BACKENDS if not backend.compiled and not backend.missing()]


def test_our_own_servers_are_among_those_that_are_measured() -> None:
    ours = {backend.name for backend in INSTALLED if backend.name.startswith("gateways-")}
    assert ours >= {"gateways-fastcgi", "gateways-scgi", "gateways-wsgi", "gateways-asgi"}


@LINUX
@pytest.mark.parametrize("backend", INSTALLED, ids=lambda backend: backend.name)
def test_every_server_that_is_installed_gives_the_right_answers(backend: Backend) -> None:
    require("nginx")
    with backends.scratch() as folder, backends.started(backend, folder, []) as server:
        with nginx.started([server], folder / "nginx", []) as front:
            for case in map(load.smaller, CASES):
                if case.kind in ("requests", "transfers"):
                    load.check(case, front.ports[backend.name])
        if backend.holds_many:
            with load.Idle(backend.protocol, server.socket) as idle:
                idle.add(3)
                idle.check()
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


@LINUX
def test_a_wrong_answer_is_noticed() -> None:
    require("nginx")
    [ours] = [one for one in BACKENDS if one.name == US]
    wrong = load.Case("wrong", "another answer", gets=b"Hello, you!\n")
    with (
        backends.scratch() as folder,
        backends.started(ours, folder, []) as server,
        nginx.started([server], folder / "nginx", []) as front,
        pytest.raises(backends.Failed, match=r"wrong: status 200, b'Hello, world!\\n'"),
    ):
        load.check(wrong, front.ports[US])


@LINUX
def test_a_server_that_does_not_start_says_why() -> None:
    broken = Backend("broken", "broken", "fastcgi", ("{python}", "-c", "raise SystemExit('no, thank you')"))
    fails(broken, r"(?s)ended with status 1.*no, thank you")
    unbuilt = Backend("unbuilt", "", "fastcgi", (), build=("{python}", "-c", "raise SystemExit('no compiler')"))
    fails(unbuilt, r"(?s)status 1.*no compiler")


def fails(backend: Backend, why: str) -> None:
    with (
        backends.scratch() as folder,
        pytest.raises(backends.Failed, match=why),
        backends.started(backend, folder, []),
    ):
        pass


@LINUX
def test_idle_connections_that_do_not_stay_open_are_noticed() -> None:
    def answer_and_close() -> None:
        for _ in range(2):
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nHello, world!\n")

    with backends.scratch() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()
        server = threading.Thread(target=answer_and_close)
        server.start()
        with load.Idle("http", folder / "socket") as idle:
            idle.add(2)
            server.join()
            with pytest.raises(backends.Failed, match="closed 2 of 2 connections"):
                idle.check()


def test_what_a_server_lacks_is_named() -> None:
    there = Backend(
        "there", "", "http", (), distributions=("trio",), modules=("gateways",), programs=("/dev/null", "sh")
    )
    assert there.missing() == []
    gone = Backend(
        "gone", "", "http", (), distributions=("no-such",), modules=("nosuch",), programs=("no-such-1", "/no")
    )
    assert gone.missing() == ["no-such", "nosuch", "no-such-1", "/no"]


def test_nginx_keeps_connections_where_the_server_can_answer_others_meanwhile(tmp_path: Path) -> None:
    def location(protocol: str, *, kept: bool) -> str:
        backend = Backend("one", "", protocol, (), kept=kept)
        return nginx.configuration([backends.Running(backend, tmp_path)], {"one": 8000}, tmp_path)

    for protocol, says in (("fastcgi", "fastcgi_keep_conn on;"), ("http", 'proxy_set_header Connection "";')):
        assert says in location(protocol, kept=True)
        assert "keepalive 512;" in location(protocol, kept=True)
        assert says not in location(protocol, kept=False)
        assert "keepalive 512;" not in location(protocol, kept=False)
    assert "CONTENT_LENGTH" not in location("scgi", kept=False)


# --- a whole run -----------------------------------------------------------------------------------------------------


@LINUX
def test_a_run_measures_every_kind_of_case_and_makes_a_page(tmp_path: Path) -> None:
    require("nginx", "wrk")
    kinds = ("hello", "upload", "idle", "cgi")
    arguments = ["--quick", "--rounds", "1", "--backend", "gateways-scgi", "--json", str(tmp_path / "found.json")]
    for case in kinds:
        arguments += ["--case", case]
    run(["-m", "bench.web", *arguments])
    results = Results.load(tmp_path / "found.json")
    assert results.failed == {}
    assert set(results.cases) == set(kinds)
    assert results.about["command"].startswith("python -m bench.web --quick")
    assert str(tmp_path) not in (tmp_path / "found.json").read_text()
    wanted = {
        "hello": ("cpu", "nginx", "rate", "p50", "p99", "pss"),
        "upload": ("cpu", "nginx", "rate", "pss", "grew"),
    }
    for case, figures in wanted.items():
        assert set(results.measured(case)) == {US, "gateways-scgi"}
        for backend in results.measured(case):
            for figure in figures:
                value = results.median(case, backend, figure)
                assert value is not None
                assert value > 0 or figure == "grew"
    assert results.measured("idle") == [US]
    assert results.median("idle", US, "each") is not None
    assert {"gateways", "python -c pass"} < set(results.measured("cgi"))

    (tmp_path / "docs").mkdir()
    run(["-m", "bench.page", str(tmp_path / "found.json"), "--docs", str(tmp_path / "docs")])
    text = (tmp_path / "docs" / "performance.rst").read_text()
    for title in results.cases.values():
        assert f"\n{title[:1].upper()}{title[1:]}\n---" in text
    picture = ElementTree.parse(tmp_path / "docs" / "_static" / "performance.svg")
    assert {"gateways, FastCGI", "gateways, SCGI"} <= {element.text for element in picture.iter()}


def test_what_there_is_to_measure_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    if sys.platform != "linux":
        pytest.skip("counts as Linux does")
    web.main(["--list"])
    words = capsys.readouterr().out.split()
    assert {case.name for case in CASES} | {one.name for one in BACKENDS} <= set(words)


@LINUX
def test_what_is_not_compiled_is_not_measured_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build" / "gateways").mkdir(parents=True)
    with pytest.raises(SystemExit):
        web.main(["--list", "--compiled", "build"])
    assert "is compiled" in capsys.readouterr().err
    (tmp_path / "build" / "gateways" / "wire.so").touch()
    web.main(["--list", "--compiled", "build"])
    assert "gateways, FastCGI, compiled\n" in capsys.readouterr().out


def test_the_budgets_are_of_servers_and_cases_that_there_are() -> None:
    known = {one.name for one in BACKENDS} | {""}
    for case, names in budgets.wanted().items():
        assert case in {one.name for one in CASES}
        assert case == "cgi" or set(names) <= known


# --- figures ---------------------------------------------------------------------------------------------------------


def results(*figures: Figures) -> Results:
    names = {one.backend: one.backend.title() for one in figures}
    return Results(
        about={"rounds": 3, "seconds": 1, "command": "python -m bench.web", "Python": "3"},
        cases={one.case: f"case {one.case}" for one in figures},
        titles=names,
        versions=dict.fromkeys(names, "1.0"),
        commands=dict.fromkeys(names, "serve {socket}"),
        kept=dict.fromkeys(names, True),
        missing={},
        figures=list(figures),
    )


def cpu(backend: str, *rounds: float, errors: int = 0) -> list[Figures]:
    return [
        Figures("hello", backend, number, requests=10, seconds=2.0, errors=errors, cpu=value, nginx=10.0)
        for number, value in enumerate(rounds, 1)
    ]


def test_a_figure_is_the_median_and_a_ratio_that_of_each_round() -> None:
    # The machine was half as fast in the second round: no ratio of medians would be 2.
    found = results(*cpu(US, 10, 20, 11), *cpu("other", 20, 40, 11))
    assert found.median("hello", US, "cpu") == 11
    assert found.median("hello", US, "rate") == 5
    assert found.ratio("hello", "other", US) == 2
    assert found.ratio("hello", "other", "nobody") is None
    assert found.median("hello", "other", "p99") is None
    assert found.measured("hello") == [US, "other"]


def test_a_server_that_fails_requests_has_no_speed() -> None:
    found = results(*cpu(US, 10), *cpu("quick", 1, errors=3))
    assert found.median("hello", "quick", "cpu") is None
    assert found.measured("hello") == [US, "quick"]
    [table] = report.tables(found)
    assert table.rows[1] == ["Quick, 3 errors", *["-"] * 7]


def test_numbers_stand_at_the_right_of_their_column() -> None:
    table = report.Table("both", ["", "how many", "why"], [["one", "9", "it is"], ["another", "1,000", ""]])
    assert report.text(table).splitlines() == [
        "both",
        "----",
        "         how many  why",
        "one             9  it is",
        "another     1,000",
    ]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = results(*cpu(US, 10, 20), *cpu("other", 1.5))
    found.missing["gone"] = "not installed: gone"
    found.save(tmp_path / "found.json")
    assert Results.load(tmp_path / "found.json") == found


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, "not measured"),
        (1.32, "missed by 10%"),
        (1.2, "met"),
        (1.01, "met"),
        (1.0, "met, and the second"),
    ],
)
def test_a_budget_is_met_or_missed_by_so_much(found: float | None, says: str) -> None:
    assert Verdict(Budget("hello", US, "uvicorn", 1.2, 1.0), found).met == says


def test_the_table_of_budgets_says_what_was_found() -> None:
    found = results(*cpu(US, 9), *cpu("uvicorn", 10), *cpu("go", 10))
    rows = report.budgets(found).rows
    assert len(rows) == len([budget for budget in BUDGETS if budget.case == "hello"])
    assert rows[0] == ["Gateways-Fastcgi: case hello", "Uvicorn", "1.2, then 1", "0.90", "met, and the second"]
    assert rows[1][1:] == ["Go", "0.75", "0.90", "missed by 20%"]


def test_the_picture_has_a_bar_for_the_server_and_one_for_nginx() -> None:
    found = results(*cpu(US, 30), *cpu("other", 70))
    bars = [
        (element.get("class"), float(element.get("width", "")))
        for element in ElementTree.fromstring(page.plot(found)).iter()
        if element.tag.endswith("rect") and element.get("height") == "13"
    ]
    assert [kind for kind, _ in bars] == ["server ours", "nginx", "server", "nginx"]
    widths = [width for _, width in bars]
    assert [round(width / widths[1], 1) for width in widths] == [3, 1, 7, 1]


def run(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
