"""The plots of `docs/benchmarks.md`, drawn of what `var/bench` holds."""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.report import PAGE, PLOTTED
from bench.result import Criterion, Result
from bench.several import COUNTS, UNITS

_REACHED = {"goal": "#3c8d5a", "floor": "#1b6ca8", "below the floor": "#d1495b"}
_SCALED = ("µs of CPU an EMM aired", "ms of a claim of 500 boxes", "ms to read 500 changes")
_SHARES = ("gateway", "emmg", "encryptor", "database")


def draw(results: Mapping[str, Result]) -> None:
    """Draw what there are results of."""
    criteria_plot(results)
    plots = {"scale": scale_plot, "several": several_plot}
    for name in PLOTTED.keys() & results.keys():
        plots[name](results[name])


def criteria_plot(results: Mapping[str, Result]) -> None:
    """Each criterion as times its floor, on a logarithmic axis, with its goal."""
    rows = [(f"{name}: {one.what}", one) for name, it in results.items() for one in it.criteria]
    figure = Figure(figsize=(10, 1 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, one) in enumerate(rows):
        axes.barh(place, _times(one, one.value) - 1, left=1, color=_REACHED[one.verdict()])
        axes.plot(_times(one, one.goal), place, "|", color="black", markersize=12)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("times better than the floor (1); a bar | is the goal")
    _save(figure, "benchmarks.svg")


def scale_plot(result: Result) -> None:
    """What an EMM, a claim and a look at the feed cost over the number of boxes."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for what in _SCALED:
        points = sorted(
            (int(key.rpartition(", ")[2].removesuffix(" boxes")), float(value))
            for key, value in result.figures.items()
            if key.startswith(what)
        )
        boxes, values = zip(*points, strict=True)
        axes.plot(boxes, [value / values[0] for value in values], marker="o", label=what)
    axes.axhline(1.3, color="grey", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("boxes")
    axes.set_ylabel("times what it costs at the fewest")
    axes.legend()
    _save(figure, "benchmarks-scale.svg")


def several_plot(result: Result) -> None:
    """What one, two and four processes carry, and who uses the cores."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (what, unit) in zip(figure.subplots(1, len(UNITS)), UNITS.items(), strict=True):
        names = [f"{count} × {what}" for count in COUNTS]
        rates = [f"{result.figures[f'{name}: {unit}']:,}" for name in names]
        labels = [f"{count} ×\n{rate}" for count, rate in zip(COUNTS, rates, strict=True)]
        below = [0.0] * len(names)
        for who in _SHARES:
            key = f"share of the cores, {who}"
            shares = [float(result.figures.get(f"{name}: {key}", 0)) for name in names]
            axes.bar(labels, shares, bottom=below, label=who)
            below = [a + b for a, b in zip(below, shares, strict=True)]
        axes.set_ylim(0, 1)
        axes.set_title(f"{what}, {unit}")
    figure.axes[0].set_ylabel("share of the cores")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper")
    _save(figure, "benchmarks-several.svg")


def _times(one: Criterion, value: float) -> float:
    """How many times better than the floor, a hundred at most: an error may be none at all."""
    if one.less_is_better:
        return one.floor / max(value, one.floor / 100)
    return value / one.floor


def _save(figure: Figure, name: str) -> None:
    path = PAGE.with_name(name)
    # The same figures give the same file: no date, ids of a fixed seed.
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
