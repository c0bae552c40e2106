"""Draw a state machine as SVG: a column of boxes, and arrows between them. docs/machines.py puts it into a page.

What is next to each other in time stands below each other, so a step to the next state is a straight arrow. All other
arrows leave a box at its right, where each has a line of its own with its label above it. They turn into a *lane*, one
for each state that they lead to: arrows to the same state join. So nothing ever runs through a label or a box, the
picture is narrow enough for a telephone, and the same machine always gives the same picture. Steps back are dashed.

Colours are those of the page (docs/_static/custom.css), light or dark.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from html import escape

import attrs

# All lengths are in pixels. Text is monospaced, and so its width is known without measuring it.
CHARACTER = 6.7
LINE = 13
#: A label is broken into lines of about this many characters.
LABEL = 16
#: Between a line and the label above it, and between a label and what is beside it.
GAP = 5
MARGIN = 4
LANE = 13
CORNER = 6
ARROW = 7


@attrs.frozen
class Arrow:
    """From one state to another one, when one of several things happens."""

    start: str
    end: str
    labels: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The label, broken into lines; each name begins one."""
        names = [f"{name}," for name in self.labels[:-1]] + [*self.labels[-1:]]
        return [line for name in names for line in textwrap.wrap(name, LABEL, break_long_words=False)]


@attrs.define
class Box:
    """Where a state is drawn. ``ports`` tells the height of each line that leaves it, by the state it leads to."""

    top: float
    height: float
    entry: float
    ports: dict[str, float]

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height


@attrs.frozen
class Layout:
    """Where everything is. ``straight`` are the arrows from a box to the one below it, ``lanes`` end -> x."""

    boxes: dict[str, Box]
    box_width: float
    lanes: dict[str, float]
    straight: list[Arrow]
    around: list[Arrow]
    width: float
    height: float


def lay_out(states: Iterable[str], arrows: Iterable[Arrow]) -> Layout:
    """Find a place for everything."""
    order = {state: number for number, state in enumerate(states)}
    straight = [arrow for arrow in arrows if order[arrow.end] == order[arrow.start] + 1]
    around = [arrow for arrow in arrows if order[arrow.end] != order[arrow.start] + 1]

    # The shorter the way of a lane, the further in it runs: it crosses fewer lines then.
    reach: dict[str, set[int]] = {}
    for arrow in around:
        reach.setdefault(arrow.end, {order[arrow.end]}).add(order[arrow.start])
    inwards = sorted(reach, key=lambda end: (max(reach[end]) - min(reach[end]), order[end]))

    box_width = max(len(state) for state in order) * CHARACTER * 1.1 + 4 * GAP
    label_width = max((len(line) for arrow in [*straight, *around] for line in arrow.lines), default=0) * CHARACTER
    first_lane = MARGIN + box_width + ARROW + label_width + 3 * GAP
    lanes = {end: first_lane + LANE * number for number, end in enumerate(inwards)}

    boxes: dict[str, Box] = {}
    y = MARGIN + 22.0
    for state in order:
        # Going up, the inner lanes leave first; going down, the outer ones. So lines that leave together never cross.
        leaving = sorted(
            (arrow for arrow in around if arrow.start == state),
            key=lambda arrow: (order[arrow.end] > order[state], _up_or_down(arrow, order, inwards)),
        )
        entry = y + 15
        at = entry if state in lanes else y
        ports: dict[str, float] = {}
        for arrow in leaving:
            at += LINE * len(arrow.lines) + 2 * GAP
            ports[arrow.end] = at
        boxes[state] = Box(y, max(30.0, at - y + 2 * GAP), entry, ports)
        below = [arrow for arrow in straight if arrow.start == state]
        y = boxes[state].bottom + sum(LINE * len(arrow.lines) + 4 * GAP for arrow in below)
        if not below:
            y += 4 * GAP
    last = boxes[[*order][-1]]
    right = max([first_lane if straight or around else MARGIN + box_width, *lanes.values()])
    return Layout(boxes, box_width, lanes, straight, around, right + MARGIN, last.bottom + MARGIN)


def _up_or_down(arrow: Arrow, order: Mapping[str, int], inwards: list[str]) -> int:
    lane = inwards.index(arrow.end)
    return lane if order[arrow.end] < order[arrow.start] else -lane


def svg(title: str, name: str, states: Mapping[str, str], arrows: Iterable[Arrow]) -> str:
    """The picture. ``states`` tells each state with the address that it links to, ``name`` is for the picture's ids."""
    arrows = list(arrows)
    layout = lay_out(states, arrows)
    edge = MARGIN + layout.box_width
    middle = MARGIN + layout.box_width / 2
    drawn: list[str] = []

    first = next(iter(layout.boxes.values()))
    drawn.append(f'<circle cx="{middle:g}" cy="{MARGIN + 4:g}" r="4"/>')
    drawn += _down(middle, MARGIN + 4, first.top)
    for arrow in layout.straight:
        start, end = layout.boxes[arrow.start], layout.boxes[arrow.end]
        drawn += _down(middle, start.bottom, end.top)
        drawn += _text(arrow.lines, middle + 2 * GAP, (start.bottom + end.top + LINE * len(arrow.lines)) / 2 - GAP)
    back = {(arrow.start, arrow.end) for arrow in layout.around if _is_above(layout, arrow)}
    # Each line is drawn from its point back to where it comes from: so the dashes of lines that have joined agree.
    for arrow in sorted(layout.around, key=lambda arrow: (arrow.start, arrow.end) not in back):
        lane, entry = layout.lanes[arrow.end], layout.boxes[arrow.end].entry
        port = layout.boxes[arrow.start].ports[arrow.end]
        turn = CORNER if port > entry else -CORNER
        kind = ' class="back"' if (arrow.start, arrow.end) in back else ""
        drawn.append(
            f'<path{kind} d="M{edge + ARROW:g} {entry:g}H{lane - CORNER:g}q{CORNER} 0 {CORNER} {turn}'
            f'V{port - turn:g}q0 {turn} {-CORNER} {turn}H{edge:g}"/>'
        )
        drawn += _text(arrow.lines, edge + ARROW + GAP, port - GAP)
    for target in layout.lanes:
        drawn.append(f'<path class="head" d="M{edge:g} {layout.boxes[target].entry:g}l{ARROW} -4v8z"/>')
    for state, address in states.items():
        box = layout.boxes[state]
        drawn.append(
            f'<a href="{escape(address)}"><rect x="{MARGIN}" y="{box.top:g}" width="{layout.box_width:g}" '
            f'height="{box.height:g}" rx="6"/><text class="state" x="{middle:g}" '
            f'y="{box.top + box.height / 2 + 4:g}">{escape(state)}</text></a>'
        )
    return (
        f'<svg class="state-machine" role="group" aria-labelledby="{name}-title {name}-desc" '
        f'viewBox="0 0 {layout.width:g} {layout.height:g}" width="{layout.width:g}" height="{layout.height:g}" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(in_words(states, arrows))}</desc>{"".join(drawn)}</svg>'
    )


def in_words(states: Iterable[str], arrows: Iterable[Arrow]) -> str:
    """The picture for those who do not see it.

    >>> in_words(["open", "shut"], [Arrow("open", "shut", ("push", "wind"))])
    'It begins in open. From open to shut: push, wind.'
    """
    steps = [f"From {arrow.start} to {arrow.end}: {', '.join(arrow.labels)}." for arrow in arrows]
    return " ".join([f"It begins in {next(iter(states))}.", *steps])


def _is_above(layout: Layout, arrow: Arrow) -> bool:
    return layout.boxes[arrow.end].top < layout.boxes[arrow.start].top


def _down(x: float, start: float, end: float) -> list[str]:
    return [
        f'<path d="M{x:g} {start:g}V{end - ARROW:g}"/>',
        f'<path class="head" d="M{x:g} {end:g}l-4 {-ARROW}h8z"/>',
    ]


def _text(lines: list[str], x: float, bottom: float) -> list[str]:
    """Lines of text whose last one stands on ``bottom``."""
    top = bottom - LINE * (len(lines) - 1)
    return [f'<text x="{x:g}" y="{top + LINE * number:g}">{escape(line)}</text>' for number, line in enumerate(lines)]
