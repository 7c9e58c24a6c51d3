"""Charts as SVG, coloured by the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 480.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 12.0, 20.0, 26.0
EDGE = 4.0
"""Above a map, which has no names there."""

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart.

    Args:
        kind: its class in the style sheet: "champion", "candidate", "naive", "frozen" or "edge".
        points: x and y; a gap where y is None.
        titles: what is said of each point.
    """

    kind: str
    points: Sequence[Point]
    titles: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened.

    Args:
        at: x.
        text: its name, short.
        title: what is said of it.
        kind: its class in the style sheet: "began", named above the drawing, or "drift" or
            "fired", named within it.
        link: of a page about it; empty without one.
    """

    at: float
    text: str
    title: str = ""
    kind: str = "began"
    link: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values into the drawing."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + min(1.0, max(0.0, share)) * (self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over x.

    Args:
        title: for who cannot see it.
        lines: of which each has its own values.
        marks: what happened, in the order of x for each kind.
        levels: horizontal lines, and what they are.
        band: lower and upper edges over x; None for no bound.
        x_ends: what is written at both ends of the axis.
        zero: whether the axis begins at 0.
    """

    title: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    levels: Sequence[tuple[float, str]] = ()
    band: Sequence[tuple[float, float, float]] = ()
    x_ends: tuple[str, str] = ("", "")
    zero: bool = False
    extent: tuple[float, float] | None = field(default=None)

    def draw(self) -> Markup:
        """The SVG."""
        xs = [x for line in self.lines for x, y in line.points if y is not None]
        if not xs:
            return Markup("")
        x = Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
        low, high = self.extent or self._extent()
        steps = ticks(low, high)
        y = Scale(min(low, steps[0]), max(high, steps[-1]), HEIGHT - BOTTOM, TOP)
        parts = [_axis(y, steps), self._band(x, y), self._levels(y)]
        parts += [_line(line, x, y) for line in self.lines]
        parts += [self._marks(x), self._level_names(y)]
        ends = zip((LEFT, WIDTH - RIGHT), ("start", "end"), self.x_ends, strict=True)
        parts += [_text(place, HEIGHT - 8, text, anchor) for place, anchor, text in ends]
        return _svg(parts, self.title)

    def _extent(self) -> tuple[float, float]:
        values = [y for line in self.lines for _, y in line.points if y is not None]
        values += [value for value, _ in self.levels]
        values += [edge for _, *edges in self.band for edge in edges if math.isfinite(edge)]
        low, high = min(values), max(values)
        if self.zero:
            low = min(0.0, low)
        pad = 0.06 * (high - low) or abs(high) or 1.0
        return (low if self.zero and low == 0.0 else low - pad), high + pad

    def _band(self, x: Scale, y: Scale) -> Markup:
        if len(self.band) < 2:
            return Markup("")
        upper = [f"{x(at):.1f},{y(high):.1f}" for at, _, high in self.band]
        lower = [f"{x(at):.1f},{y(low):.1f}" for at, low, _ in reversed(self.band)]
        return Markup('<polygon class="band" points="{}"/>').format(" ".join(upper + lower))

    def _levels(self, y: Scale) -> Markup:
        return Markup("").join(
            Markup('<line class="level" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, y(value), y(value)
            )
            for value, _ in self.levels
        )

    def _level_names(self, y: Scale) -> Markup:
        return Markup("").join(
            _text(WIDTH - RIGHT - 62.0 * n, y(value) - 6, text, "end", "level")
            for n, (value, text) in enumerate(self.levels)
        )

    def _marks(self, x: Scale) -> Markup:
        made: list[Markup] = []
        free: dict[bool, float] = {}  # a name is left out where it would cover the one before
        for mark in self.marks:
            place, within = x(mark.at), mark.kind != "began"
            line = Markup('<line class="mark {0}" x1="{1:.1f}" x2="{1:.1f}" y1="{2}" y2="{3}"/>')
            parts = [Markup("<title>{}</title>").format(mark.title)]
            parts.append(line.format(mark.kind, place, TOP, HEIGHT - BOTTOM))
            if within:
                parts.append(_diamond(place, HEIGHT - BOTTOM, mark.kind))
            if place >= free.get(within, LEFT - 20.0):
                half = 3.6 * len(mark.text)
                inside = min(max(place, half + 4.0), WIDTH - half - 4.0)
                y = TOP + 12 if within else TOP - 6
                parts.append(_text(inside, y, mark.text, "middle", f"mark {mark.kind}"))
                free[within] = place + 8.0 * len(mark.text) + 6.0
            shape = '<a href="{}">{}</a>' if mark.link else "<g>{1}</g>"
            made.append(Markup(shape).format(mark.link, Markup("").join(parts)))
        return Markup("").join(made)


def bars(title: str, counts: Sequence[int], names: Sequence[str], end: str = "now") -> Markup:
    """A bar for each count; named at both ends."""
    steps = ticks(0.0, float(max(counts, default=0)) or 1.0)
    y = Scale(0.0, max(steps[-1], max(counts)), HEIGHT - BOTTOM, TOP)
    wide = (WIDTH - RIGHT - LEFT) / max(1, len(counts))
    parts = [_axis(y, steps)]
    for n, (count, name) in enumerate(zip(counts, names, strict=True)):
        bar = Markup('<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">')
        tall = HEIGHT - BOTTOM - y(count)
        shape = bar.format(LEFT + n * wide + 1, y(count), max(1.0, wide - 2), tall)
        parts.append(shape + Markup("<title>{}: {:,}</title></rect>").format(name, count))
    parts.append(_text(LEFT, HEIGHT - 8, names[0], "start"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 8, end, "end"))
    return _svg(parts, title)


def facing_bars(
    title: str, names: Sequence[str], up: Sequence[int], down: Sequence[int], words: tuple[str, str]
) -> Markup:
    """Two bars for each name, one above and one below the axis, to one scale.

    Args:
        words: what is counted above, and below.
    """
    most = float(max([1, *up, *down]))
    y = Scale(-most, most, HEIGHT - BOTTOM, TOP)
    wide = (WIDTH - RIGHT - LEFT) / max(1, len(names))
    line = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
    parts = [line.format(LEFT, WIDTH - RIGHT, y(0.0), y(0.0))]
    for value in (most, -most):
        parts.append(_text(LEFT - 6, y(value) + 4, f"{abs(value):,.0f}", "end"))
    shown = max(1, math.ceil((8.0 + 7.0 * max(map(len, names), default=1)) / wide))
    bar = Markup(
        '<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
        "<title>{}: {:,} {}</title></rect>"
    )
    for n, name in enumerate(names):
        x, width = LEFT + n * wide + 0.12 * wide, max(1.0, min(48.0, 0.76 * wide))
        x += max(0.0, 0.76 * wide - width) / 2
        for kind, count, value in (("won", up[n], up[n]), ("lost", down[n], -down[n])):
            top, tall = min(y(0.0), y(value)), abs(y(value) - y(0.0))
            said = words[kind == "lost"]
            parts.append(bar.format(kind, x, top, width, tall, name, count, said))
        if (len(names) - 1 - n) % shown == 0:
            parts.append(_text(LEFT + (n + 0.5) * wide, HEIGHT - 8, name, "middle"))
    return _svg(parts, title)


@dataclass(frozen=True, slots=True)
class Node:
    """A version in the graph.

    Args:
        number, parent: of versions.
        kind: its class in the style sheet.
        title: what is said of it.
        link: of its page.
    """

    number: int
    parent: int | None
    kind: str
    title: str
    link: str


def graph(nodes: Sequence[Node]) -> Markup:
    """Versions from the oldest to the newest, each joined with its parent; a version that goes on
    from another than the last of its lane gets a lane of its own."""
    step, gap, top = 34.0, 30.0, 20.0
    lanes: dict[int, int] = {}
    tips: list[int | None] = []
    for node in nodes:
        lane = next((n for n, tip in enumerate(tips) if tip == node.parent), None)
        if lane is None:
            lane = len(tips)
            tips.append(None)
        tips[lane] = node.number
        lanes[node.number] = lane
    place = {node.number: (24.0 + n * step, top + lanes[node.number] * gap)
             for n, node in enumerate(nodes)}  # fmt: skip
    parts = []
    for node in nodes:
        if node.parent in place:
            (x, y), (a, b) = place[node.number], place[node.parent]
            path = f"M{a:.0f} {b:.0f} C{a + 17:.0f} {b:.0f} {x - 17:.0f} {y:.0f} {x:.0f} {y:.0f}"
            parts.append(Markup('<path class="edge" d="{}"/>').format(path))
    for node in nodes:
        x, y = place[node.number]
        shape = '<a href="{}"><circle class="node {}" cx="{:.0f}" cy="{:.0f}" r="12"/>'
        parts.append(Markup(shape).format(node.link, node.kind, x, y))
        small = "number small" if node.number > 999 else "number"
        parts.append(_text(x, y + 4, str(node.number), "middle", small))
        parts.append(Markup("<title>{}</title></a>").format(node.title))
    wide, tall = 24.0 + len(nodes) * step, top * 2 + max(0, len(tips) - 1) * gap
    shape = Markup(
        '<svg class="graph" role="img" aria-label="Versions and their parents"'
        ' width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}">{2}</svg>'
    )
    return shape.format(wide, tall, Markup("").join(parts))


@dataclass(frozen=True, slots=True)
class Cell:
    """A square of a map.

    Args:
        shade: from 0 (worst) to 1 (best); None where nothing was measured.
        text: written in it, where there is room.
        title: what is said of it.
        own: whether it is set off by a frame.
    """

    shade: float | None
    text: str = ""
    title: str = ""
    own: bool = False


def heat_map(
    title: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]]
) -> Markup:
    """Cells under the names of their columns, beside those of their rows: fuller where better."""
    side = min(52.0, (WIDTH - LEFT - RIGHT) / max(1, len(columns)))
    tall = max(13.0, min(26.0, 300.0 / max(1, len(rows))))
    roomy = side >= 38.0 and tall >= 16.0
    shown_row = max(1, math.ceil(15.0 / tall))
    shown_column = max(1, math.ceil((8.0 + 7.0 * max(map(len, columns), default=1)) / side))
    parts: list[Markup] = []
    for n, (row, name) in enumerate(zip(cells, rows, strict=True)):
        y = EDGE + n * tall
        if (len(rows) - 1 - n) % shown_row == 0:
            parts.append(_text(LEFT - 6, y + tall / 2 + 4, name, "end"))
        for m, cell in enumerate(row):
            if cell.shade is not None:
                parts.append(_cell(cell, LEFT + m * side, y, side, tall, roomy))
    foot = EDGE + len(rows) * tall
    for m, name in enumerate(columns):
        if (len(columns) - 1 - m) % shown_column == 0:
            parts.append(_text(LEFT + (m + 0.5) * side, foot + 16, name, "middle"))
    return _svg(parts, title, foot + BOTTOM)


def _cell(cell: Cell, x: float, y: float, side: float, tall: float, roomy: bool) -> Markup:
    shape = Markup(
        '<g><title>{}</title><rect class="cell{}" x="{:.1f}" y="{:.1f}" width="{:.1f}"'
        ' height="{:.1f}" rx="2" fill-opacity="{:.2f}"/>{}</g>'
    )
    text = Markup("")
    if roomy:
        text = _text(x + side / 2, y + tall / 2 + 4, cell.text, "middle", "cell")
    shade = 0.06 + 0.6 * (cell.shade or 0.0)
    own = " own" if cell.own else ""
    return shape.format(cell.title, own, x + 1, y + 1, side - 2, tall - 2, shade, text)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values within an extent.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(s * power for s in (1, 2, 5, 10) if span / (s * power) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _axis(y: Scale, steps: Sequence[float]) -> Markup:
    line = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
    return Markup("").join(
        line.format(LEFT, WIDTH - RIGHT, y(value), y(value))
        + _text(LEFT - 6, y(value) + 4, f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}", "end")
        for value in steps
    )


def _line(line: Line, x: Scale, y: Scale) -> Markup:
    path, pen = [], "M"
    for at, value in line.points:
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{x(at):.1f} {y(value):.1f}")
        pen = "L"
    made = Markup('<path class="line {}" d="{}"/>').format(line.kind, " ".join(path))
    dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>')
    for (at, value), title in zip(line.points, line.titles, strict=False):
        if value is not None:
            made += dot.format(line.kind, x(at), y(value), title)
    return made


def _diamond(x: float, y: float, kind: str) -> Markup:
    shape = Markup('<path class="mark {}" d="M{:.1f} {:.1f} l6 6 l-6 6 l-6 -6 Z"/>')
    return shape.format(kind, x, y - 6)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> Markup:
    shape = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>')
    return shape.format(x, y, anchor, kind, text)


def _svg(parts: Sequence[Markup], title: str, height: float = HEIGHT) -> Markup:
    shape = Markup(
        '<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {:.0f} {:.0f}">{}</svg>'
    )
    return shape.format(escape(title), WIDTH, height, Markup("").join(parts))
