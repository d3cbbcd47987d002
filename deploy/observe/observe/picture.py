"""Draws the dashboard from what Prometheus answered, as Grafana would, into an SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .answers import Answered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from .answers import Line
    from .show import Event

# Where the same pictures go for who cannot see an SVG.
PICTURES = Path(__file__).resolve().parents[3] / "target/observe/pictures"

# Inches, at 72 points each.
WIDTH = 17.0
UNIT_WIDTH = WIDTH / 24
UNIT_HEIGHT = 0.4
HEAD = 0.75
GAP = 0.05

GROUND, CARD, EDGE = "#f2f3f5", "#ffffff", "#dfe2e6"
TEXT, QUIET, BAND = "#1f2328", "#656d76", "#fbe3c8"
LINES = (
    "#3274d9",
    "#e0752d",
    "#37872d",
    "#a352cc",
    "#c4162a",
    "#1f9e9e",
    "#b8860b",
    "#e05299",
    "#5b6b7b",
    "#7fae2e",
)
COLOURS = {"green": "#37872d", "orange": "#e0752d", "red": "#c4162a"}
MOST_NAMES = 9


def draw(
    shown: Sequence[Answered | str],
    events: Sequence[Event],
    start: float,
    end: float,
    *,
    file: Path,
    title: str = "otpd",
) -> None:
    """All panels, each where the dashboard has it; a text is the head of a section."""
    mpl.rcParams.update(
        {
            "font.family": "DejaVu Sans",
            "font.size": 7.5,
            "svg.fonttype": "none",
            # The same ids at each run.
            "svg.hashsalt": "otpd",
            "text.color": TEXT,
            "xtick.color": QUIET,
            "ytick.color": QUIET,
            "path.simplify": True,
        }
    )
    places = [one.panel["gridPos"] for one in shown if isinstance(one, Answered)]
    units = max(place["y"] + place["h"] for place in places)
    height = HEAD + units * UNIT_HEIGHT + 0.1
    figure = Figure(figsize=(WIDTH, height), facecolor=GROUND)
    canvas = Canvas(figure, height, events, start, end)
    canvas.head(title)
    top = 0
    for one in shown:
        if isinstance(one, str):
            canvas.section(one, top)
        else:
            canvas.panel(one)
            top = max(top, one.panel["gridPos"]["y"] + one.panel["gridPos"]["h"])
    figure.savefig(file, facecolor=GROUND, metadata={"Date": None})
    look_at = PICTURES / file.with_suffix(".png").name
    look_at.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(look_at, facecolor=GROUND, dpi=80)


class Canvas:
    """The figure, measured in inches from its upper left corner."""

    def __init__(
        self, figure: Figure, height: float, events: Sequence[Event], start: float, end: float
    ) -> None:
        self._figure = figure
        self._height = height
        self._events = events
        self._start = start
        self._end = end

    def head(self, title: str) -> None:
        """The title, and what happened meanwhile."""
        self._text(0.12, 0.34, title, size=17, weight="bold")
        happened = "   ".join(
            f"{clock(event.start - self._start)} {event.name}" for event in self._events
        )
        self._text(
            0.12, 0.6, "Two replicas under load, on shaded ground:   " + happened, colour=QUIET
        )

    def section(self, question: str, top: float) -> None:
        """The question above its panels."""
        self._text(0.12, HEAD + (top + 0.75) * UNIT_HEIGHT, question, size=12, weight="bold")

    def panel(self, one: Answered) -> None:
        """A card with a title, and what was found."""
        place = one.panel["gridPos"]
        left, top = place["x"] * UNIT_WIDTH + GAP, HEAD + place["y"] * UNIT_HEIGHT + GAP
        width, height = place["w"] * UNIT_WIDTH - 2 * GAP, place["h"] * UNIT_HEIGHT - 2 * GAP
        self._card(left, top, width, height)
        self._text(left + 0.12, top + 0.22, one.title, size=9, weight="bold")
        if one.panel["type"] == "stat":
            self._number(one, left + width / 2, top + height / 2 + 0.12)
            return
        states = one.panel["type"] == "state-timeline"
        longest = max((len(line.name) for line in one.lines), default=0) if states else 0
        margin = max(0.62, 0.25 + longest * 0.062)
        axes = self._axes(
            left + margin, top + 0.36, width - margin - 0.18, height - (0.66 if states else 0.98)
        )
        if states:
            self._states(axes, one)
        else:
            self._series(axes, one)
            self._names(axes, one, width)

    def _number(self, one: Answered, x: float, y: float) -> None:
        value = one.lines[0].values[-1][1] if one.lines else float("nan")
        defaults = one.panel["fieldConfig"]["defaults"]
        colour = TEXT
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is None or value >= step["value"]:
                colour = COLOURS[step["color"]]
        unit = defaults["unit"]
        shown = f"{value:.2%}" if unit == "percentunit" else f"{value:g}"
        self._text(x, y + 0.12, shown, size=24, weight="bold", colour=colour, align="center")

    def _series(self, axes: Axes, one: Answered) -> None:
        defaults = one.panel["fieldConfig"]["defaults"]
        lines = ordered(one.lines)
        if defaults["custom"]["stacking"]["mode"] == "normal":
            self._areas(axes, lines)
        else:
            for number, line in enumerate(lines):
                at = [moment - self._start for moment, _ in line.values]
                axes.plot(at, [value for _, value in line.values], lw=1.2, color=colour_of(number))
        if defaults["custom"]["thresholdsStyle"]["mode"] == "line":
            for step in defaults["thresholds"]["steps"][1:]:
                axes.axhline(step["value"], color=COLOURS["red"], lw=0.8, ls=(0, (4, 3)), alpha=0.7)
        _, high = axes.get_ylim()
        axes.set_ylim(0, defaults.get("max", high if high > 0 else 1))
        axes.yaxis.set_major_locator(ticker.MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(formatted(defaults["unit"])))

    def _areas(self, axes: Axes, lines: Sequence[Line]) -> None:
        moments = sorted({moment for line in lines for moment, _ in line.values})
        below = [0.0] * len(moments)
        for number, line in enumerate(lines):
            known = dict(line.values)
            above = [
                low + known.get(moment, 0.0) for low, moment in zip(below, moments, strict=True)
            ]
            at = [moment - self._start for moment in moments]
            axes.fill_between(at, below, above, color=colour_of(number), alpha=0.55, lw=0)
            axes.plot(at, above, color=colour_of(number), lw=0.9)
            below = above

    def _states(self, axes: Axes, one: Answered) -> None:
        [mapping] = one.panel["fieldConfig"]["defaults"]["mappings"]
        lines = sorted(one.lines, key=lambda line: line.name, reverse=True)
        for row, line in enumerate(lines):
            for begin, last, value in spells(line):
                state = mapping["options"][f"{value:g}"]
                axes.barh(
                    row,
                    last - begin + 1,
                    left=begin - self._start,
                    height=0.62,
                    color=COLOURS[state["color"]],
                    alpha=0.85,
                    lw=0,
                )
        axes.set_yticks(range(len(lines)), [line.name for line in lines])
        axes.set_ylim(-0.6, max(len(lines) - 0.4, 1))
        axes.grid(visible=False)

    def _names(self, axes: Axes, one: Answered, width: float) -> None:
        lines = ordered(one.lines)
        # What was nought all the time is there, but says nothing.
        moved = [line for line in lines if any(value for _, value in line.values)]
        lines = moved or lines
        handles = [
            mpl.lines.Line2D([], [], color=colour_of(number), lw=2.2)
            for number in range(min(len(lines), MOST_NAMES))
        ]
        names = [line.name or one.title.lower() for line in lines[:MOST_NAMES]]
        if len(lines) > MOST_NAMES:
            names[-1] += f"  +{len(lines) - MOST_NAMES} more"
        longest = max((len(name) for name in names), default=1)
        columns = max(1, min(len(names), int((width - 0.3) / (0.3 + longest * 0.062))))
        axes.legend(
            handles,
            names,
            loc="upper left",
            bbox_to_anchor=(0, -0.16),
            bbox_transform=axes.transAxes,
            ncols=columns,
            frameon=False,
            fontsize=6.5,
            handlelength=1.0,
            handletextpad=0.4,
            columnspacing=1.0,
            labelspacing=0.2,
            borderpad=0,
            borderaxespad=0,
        )

    def _axes(self, left: float, top: float, width: float, height: float) -> Axes:
        place = (
            left / WIDTH,
            1 - (top + height) / self._height,
            width / WIDTH,
            height / self._height,
        )
        axes = self._figure.add_axes(place)
        axes.set_facecolor("none")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(EDGE)
        axes.tick_params(length=0, labelsize=6.5, pad=3)
        axes.grid(axis="y", color=EDGE, lw=0.6)
        axes.set_axisbelow(True)
        axes.set_xlim(0, self._end - self._start)
        axes.xaxis.set_major_locator(ticker.MultipleLocator(30))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: clock(value)))
        for event in self._events:
            axes.axvspan(
                event.start - self._start, event.end - self._start, color=BAND, alpha=0.75, lw=0
            )
        return axes

    def _card(self, left: float, top: float, width: float, height: float) -> None:
        self._figure.patches.append(
            FancyBboxPatch(
                (left / WIDTH, 1 - (top + height) / self._height),
                width / WIDTH,
                height / self._height,
                boxstyle="square,pad=0",
                facecolor=CARD,
                edgecolor=EDGE,
                linewidth=0.8,
                transform=self._figure.transFigure,
                zorder=-1,
            )
        )

    def _text(self, x: float, y: float, words: str, **style: Any) -> None:
        self._figure.text(
            x / WIDTH,
            1 - y / self._height,
            words,
            fontsize=style.get("size", 8.5),
            fontweight=style.get("weight", "normal"),
            color=style.get("colour", TEXT),
            ha=style.get("align", "left"),
        )


def spells(line: Line) -> list[tuple[float, float, float]]:
    """From when to when a series had which value, at a value each second."""
    found: list[tuple[float, float, float]] = []
    for moment, value in line.values:
        begin, last, held = found[-1] if found else (moment, -1.0, value)
        if found and held == value and moment - last < 1.5:
            found[-1] = (begin, moment, value)
        else:
            found.append((moment, moment, value))
    return found


def ordered(lines: Sequence[Line]) -> list[Line]:
    """The largest first, so that the legend names those that matter."""
    return sorted(lines, key=lambda line: (-sum(value for _, value in line.values), line.name))


def colour_of(number: int) -> str:
    """Of the so-manyth line of a panel."""
    return LINES[number % len(LINES)]


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def formatted(unit: str) -> Any:
    """How the values of a unit are written at an axis."""

    def write(value: float, _: object) -> str:
        if unit == "percentunit":
            return f"{value * 100:.3g} %"
        if unit == "s":
            return f"{value:.3g} s" if value >= 1 or value == 0 else f"{value * 1000:.3g} ms"
        if unit == "bytes":
            return f"{value / 1e6:.4g} MB"
        per_second = "/s" if unit in ("reqps", "cps", "ops") else ""
        return f"{value:.4g}{per_second}"

    return write
