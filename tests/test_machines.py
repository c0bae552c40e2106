"""The tables of states: each says something of everything that can happen, runs as it stands, and is drawn.

A protocol that has machines is found by its ``state.py``; no test names all of them.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.fastcgi import client, server, state
from tools import drawing, machines
from tools.drawing import Arrow

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FOUND = machines.machines()

every_machine = pytest.mark.parametrize("name", FOUND)


# --- The tables ------------------------------------------------------------------------------------------------------


def test_machines_are_found_in_the_folders_of_the_protocols() -> None:
    assert [*FOUND.values()] == [*state.MACHINES]
    assert {name.partition(": ")[0] for name in FOUND} == {"fastcgi"}


@every_machine
def test_every_state_says_what_becomes_of_every_arrival(name: str) -> None:
    machine = FOUND[name]
    for where, row in machine.steps.items():
        assert row.keys() == machine.arrivals.keys(), where


@every_machine
def test_every_step_leads_to_a_state(name: str) -> None:
    machine = FOUND[name]
    for row in machine.steps.values():
        for step in row.values():
            assert {step.to, *step.others} <= machine.steps.keys()
            assert len({step.to, *step.others}) == 1 + len(step.others), "a state is named twice"


@every_machine
def test_every_state_is_reached(name: str) -> None:
    assert machines.reachable(FOUND[name]) == FOUND[name].states.keys()


@every_machine
def test_every_state_and_every_deed_has_words(name: str) -> None:
    machine = FOUND[name]
    assert machines.faults(machine) == []
    assert machine.about.endswith(".")
    for words in (*machine.states.values(), *machine.deeds.values()):
        assert re.fullmatch(r"[A-Z`].*\.", words), words


def test_every_deed_of_the_application_is_a_method_of_its_connection() -> None:
    for machine in state.INPUT.values():
        bound = state.bind(machine, server.ServerConnection)
        assert all(callable(method) for row in bound.values() for method, _ in row.values())


def test_every_deed_of_the_web_server_is_a_method_of_its_connection() -> None:
    for machine in (*state.OUTPUT.values(), state.RESPONSE):
        bound = state.bind(machine, client.ClientConnection)
        assert all(callable(method) for row in bound.values() for method, _ in row.values())


# --- What is wrong with a table --------------------------------------------------------------------------------------

GOOD = state.Machine(
    title="A door",
    about="It opens.",
    states={"shut": "Nobody passes.", "open": "All pass."},
    arrivals={1: "push", 2: "pull"},
    deeds={"swing": "It moves.", "creak": "It makes a noise."},
    steps={
        "shut": {1: state.Step("swing", "open"), 2: state.Step("creak", "shut")},
        "open": {1: state.Step("creak", "open", ("shut",)), 2: state.Step("swing", "shut")},
    },
)


def test_nothing_is_wrong_with_a_good_table() -> None:
    assert machines.faults(GOOD) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"states": {**GOOD.states, "open": " "}}, "the state 'open' has no words"),
        ({"states": {"shut": "Nobody passes."}}, "the state 'open' has no words"),
        ({"states": {**GOOD.states, "ajar": "Cats pass."}}, "the state 'ajar' is never used"),
        ({"deeds": {"swing": "It moves."}}, "the deed 'creak' has no words"),
        ({"deeds": {**GOOD.deeds, "slam": "It is loud."}}, "the deed 'slam' is never used"),
        ({"arrivals": {**GOOD.arrivals, 3: "kick"}}, "in 'shut' nothing is said of kick"),
        ({"arrivals": {1: "push"}}, "in 'shut' there is an arrival without a name: 2"),
        (
            {"steps": {**GOOD.steps, "open": {**GOOD.steps["open"], 1: state.Step("creak", "open", ("gone",))}}},
            "from 'open' a step leads to 'gone', which is no state",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_told(change: dict[str, Any], fault: str) -> None:
    assert fault in machines.faults(attrs.evolve(GOOD, **change))


def test_arrows_are_the_steps_that_change_the_state() -> None:
    both = {1: state.Step("swing", "open"), 2: state.Step("creak", "shut", ("open",))}
    assert machines.arrows(attrs.evolve(GOOD, steps={**GOOD.steps, "shut": both})) == [
        Arrow("shut", "open", ("push", "pull")),
        Arrow("open", "shut", ("push", "pull")),
    ]


# --- The pictures ----------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], list[Arrow]]:
    states = draw(st.lists(st.text("abcdef", min_size=1, max_size=9), min_size=1, max_size=8, unique=True))
    pairs = [*itertools.permutations(states, 2)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14)) if pairs else []
    label = st.lists(st.sampled_from(["STDIN", "end of PARAMS", "ABORT_REQUEST", "<& of our own"]), min_size=1)
    return states, [Arrow(start, end, tuple(draw(label))) for start, end in chosen]


def check_layout(states: list[str], arrows: list[Arrow]) -> None:
    """Nothing runs through a box or a label, and nothing is outside of the picture."""
    layout = drawing.lay_out(states, arrows)
    edge = drawing.MARGIN + layout.box_width
    assert [*layout.boxes] == states
    assert sorted([*layout.straight, *layout.around], key=arrows.index) == arrows
    boxes = [*layout.boxes.values()]
    assert all(above.bottom < below.top for above, below in itertools.pairwise(boxes))
    assert boxes[-1].bottom < layout.height
    for arrow in layout.straight:
        above, below = layout.boxes[arrow.start], layout.boxes[arrow.end]
        assert states.index(arrow.end) == states.index(arrow.start) + 1
        assert below.top - above.bottom > drawing.LINE * len(arrow.lines), "no room for a label"
    for arrow in layout.around:
        assert layout.lanes[arrow.end] < layout.width
        width = max(len(line) for line in arrow.lines) * drawing.CHARACTER
        assert edge + width < min(layout.lanes.values()), "a lane runs through a label"
    for name, box in layout.boxes.items():
        leaving = {arrow.end: arrow for arrow in layout.around if arrow.start == name}
        assert box.ports.keys() == leaving.keys()
        y = box.entry if name in layout.lanes else box.top
        for end, port in box.ports.items():
            assert port - y > drawing.LINE * len(leaving[end].lines), "a line runs through a label"
            y = port
        assert y < box.bottom
    lanes = sorted(layout.lanes.values())
    assert all(right - left >= drawing.LANE for left, right in itertools.pairwise(lanes))


@given(graphs())
def test_nothing_runs_through_a_box_or_a_label(graph: tuple[list[str], list[Arrow]]) -> None:
    check_layout(*graph)


@given(graphs())
def test_a_picture_is_well_formed_and_always_the_same(graph: tuple[list[str], list[Arrow]]) -> None:
    states, arrows = graph
    addresses = {state: f"#{state}" for state in states}
    picture = drawing.svg("A <door>", "door", addresses, arrows)
    assert drawing.svg("A <door>", "door", addresses, arrows) == picture
    root = ElementTree.fromstring(picture)
    svg = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{svg}title") == "A <door>"
    assert [link.get("href") for link in root.findall(f"{svg}a")] == [*addresses.values()]
    # One label for each arrow, and one point for each arrow or lane, and for the dot where it begins.
    labels = [text.text for text in root.findall(f"{svg}text")]
    assert sorted(filter(None, labels)) == sorted(line for arrow in arrows for line in arrow.lines)
    layout = drawing.lay_out(states, arrows)
    points = [path for path in root.findall(f"{svg}path") if path.get("class") == "head"]
    assert len(points) == 1 + len(layout.straight) + len(layout.lanes)


@every_machine
def test_a_picture_is_narrow_enough_for_a_telephone(name: str) -> None:
    machine = FOUND[name]
    arrows = machines.arrows(machine)
    check_layout([*machine.states], arrows)
    assert drawing.lay_out(machine.states, arrows).width <= 340


def test_a_picture_is_told_in_words_as_well() -> None:
    root = ElementTree.fromstring(drawing.svg("A door", "door", {"shut": "#", "open": "#"}, machines.arrows(GOOD)))
    named = {element.get("id"): element.text for element in root.iter() if element.get("id")}
    assert root.get("role") == "group"  # and not "img", which would hide the links
    assert [named[name] for name in root.get("aria-labelledby", "").split()] == [
        "A door",
        "It begins in shut. From shut to open: push. From open to shut: push, pull.",
    ]


def test_steps_back_are_dashed() -> None:
    arrows = [Arrow("a", "b", ("on",)), Arrow("a", "c", ("far",)), Arrow("c", "a", ("back",))]
    picture = drawing.svg("T", "t", {"a": "#", "b": "#", "c": "#"}, arrows)
    assert picture.count('class="back"') == 1


# --- The documentation -----------------------------------------------------------------------------------------------


def test_every_machine_is_drawn_by_one_page() -> None:
    named: list[str] = []
    for page in DOCS.rglob("*.rst"):
        named += re.findall(r"^\.\. state-machine:: (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(FOUND)


#: What a test puts into conf.py before the tables are read.
WITHOUT_WORDS = """
import attrs, gateways.fastcgi.state as state
first, *others = state.MACHINES
state.MACHINES = (attrs.evolve(first, deeds={**first.deeds, "close": ""}), *others)
"""


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder for pages. Sphinx is not among what tests need, but CI has it."""
    if importlib.util.find_spec("sphinx") is None:
        if os.environ.get("GATEWAYS_REQUIRE_SERVERS") == "1":
            pytest.fail("not installed: sphinx")
        pytest.skip("not installed: sphinx")
    configure(tmp_path)
    return tmp_path


def configure(folder: Path, more: str = "") -> None:
    paths = [str(ROOT), str(DOCS)]
    (folder / "conf.py").write_text(f"import sys\nsys.path[:0] = {paths}\nextensions = ['machines']\n{more}")


def write(folder: Path, names: Iterable[str]) -> None:
    directives = [f".. state-machine:: {name}\n" for name in names]
    (folder / "index.rst").write_text("\n".join(["Machines", "========", "", *directives]))


def build(folder: Path, *options: str) -> tuple[int, list[str]]:
    """The exit status, and the lines of the errors. What Sphinx keeps of a failure stays in the folder."""
    command = [sys.executable, "-m", "sphinx", "-q", *options, "-b", "html", str(folder), str(folder / "out")]
    environment = {**os.environ, "TMPDIR": str(folder)}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    return ended.returncode, [line.strip() for line in ended.stderr.splitlines()]


def test_nothing_builds_while_a_machine_is_not_drawn(pages: Path) -> None:
    first, *others = FOUND
    write(pages, FOUND)
    assert build(pages) == (0, [])
    html = (pages / "out" / "index.html").read_text(encoding="utf-8")
    assert html.count("<svg ") == len(FOUND)
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len({*ids})
    assert {*re.findall(r' href="#([^"]+)"', html)} <= {*ids}

    write(pages, others)
    for _ in range(2):  # and not the next time either, when no page has changed
        status, errors = build(pages)
        assert status != 0
        assert first in errors
        assert others[0] not in errors

    write(pages, FOUND)
    assert build(pages) == (0, [])


def test_nothing_builds_while_a_deed_has_no_words(pages: Path) -> None:
    configure(pages, WITHOUT_WORDS)
    write(pages, FOUND)
    status, errors = build(pages)
    assert status != 0
    assert f"{next(iter(FOUND))}: the deed 'close' has no words" in errors


def test_a_machine_that_there_is_not_is_an_error(pages: Path) -> None:
    write(pages, [*FOUND, "fastcgi: A door"])
    status, errors = build(pages, "-W")
    assert status != 0
    assert any("there is no machine called 'fastcgi: A door'" in line for line in errors)
