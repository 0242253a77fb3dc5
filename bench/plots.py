"""Plots of a run as SVG text: rooflines, shares of the limit, bars against the peers, stages of the model."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench import words
from bench.measure import OURS, ours_beside

Record = dict[str, Any]

COLOURS = {"memory": "#3b76af", "arithmetic": "#c85250", "exponentials": "#6a9f58"}
_GREY, _OURS = "#b5b5b5", "#3b76af"
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "cbtalk", "font.size": 9, "font.family": "sans-serif"}


def roofline(records: Sequence[Record], ceilings: Record) -> str:
    """Operations a second over operations a byte, under the roofs of bandwidth and arithmetic."""
    counted = [record for record in records if record["work"]["operations"]]
    figure = Figure(figsize=(9, 5))
    axes = figure.add_subplot()
    intensity = np.geomspace(0.1, 10_000, 200)
    cached = max([ceilings["copy"], *(rate for _, rate in ceilings["copies"])])
    slopes = {"large copy": ceilings["copy"], "copy in the caches": cached}
    rates = sorted({record["work"]["rate"] for record in counted}) or ["float32"]
    highest = max(ceilings[rate] for rate in rates)
    for (name, slope), line in zip(slopes.items(), ("-", "--"), strict=True):
        label = f"{name}: {slope / 1e9:.0f} GB/s"
        axes.plot(intensity, np.minimum(intensity * slope, highest) / 1e9, line, color=COLOURS["memory"], label=label)
    for rate in rates:
        label = f"{rate}: {ceilings[rate] / 1e9:.0f} GFLOP/s"
        axes.axhline(ceilings[rate] / 1e9, color=COLOURS["arithmetic"], label=label)
    for number, record in enumerate(counted, 1):
        x = record["work"]["operations"] / record["work"]["bytes"]
        y = record["floor"]["GFLOP/s"]
        axes.plot(x, y, "o", color=COLOURS[record["floor"]["by"]])
        axes.annotate(str(number), (x, y), textcoords="offset points", xytext=(4, 3), fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="GFLOP/s", title="Rooflines")
    axes.legend(loc="lower right")
    return _svg(figure)


def roofline_key(records: Sequence[Record]) -> list[str]:
    """The meaning of the numbers in `roofline`, from 1."""
    return [record["case"] for record in records if record["work"]["operations"]]


def shares(records: Sequence[Record]) -> str:
    """The share of its limit that each case reaches."""
    figure = Figure(figsize=(9, 1 + 0.22 * len(records)))
    axes = figure.add_subplot()
    values = [100 * record["floor"]["share"] for record in records]
    colours = [COLOURS[record["floor"]["by"]] for record in records]
    _bars(axes, [record["case"] for record in records], values, colours, [f"{value:.0f} %" for value in values])
    axes.set(xlim=(0, 105), xlabel="% of the limit", title="Share of the limit that is reached")
    axes.legend(handles=[Patch(color=colour, label=f"limit: {name}") for name, colour in COLOURS.items()])
    return _svg(figure)


def against_peers(records: Sequence[Record]) -> str:
    """The time of each peer as a multiple of ours, the cases of one op."""
    names, values, colours = [], [], []
    for record in records:
        names.append(record["case"])
        values.append(1.0)
        colours.append(_OURS)
        for side in words.sides(record):
            if side != ours_beside(side):
                names.append(side)
                values.append(words.ratio(record, side))
                colours.append(_GREY)
    figure = Figure(figsize=(9, 1 + 0.2 * len(names)))
    axes = figure.add_subplot()
    _bars(axes, names, values, colours, [f"{value:.2f}" for value in values])
    axes.axvline(1, color=_OURS, linewidth=0.8)
    axes.set(xlabel=f"times as long as {OURS} (blue)", title=records[0]["op"])
    return _svg(figure)


def stages(model: Record) -> str:
    """Milliseconds a frame of each stage, a bar a batch size."""
    rows = model["stages"]
    batches = sorted({row["batch"] for row in rows})
    names = list(dict.fromkeys(row["stage"] for row in rows))
    figure = Figure(figsize=(9, 1 + 0.35 * len(names)))
    axes = figure.add_subplot()
    height = 0.8 / len(batches)
    for number, batch in enumerate(batches):
        values = [1e3 * row["seconds"] for row in rows if row["batch"] == batch]
        axes.barh(np.arange(len(names)) + number * height, values, height, label=f"batch {batch}")
    axes.set_yticks(np.arange(len(names)) + 0.4 - height / 2, names)
    axes.invert_yaxis()
    axes.set(xlabel="ms a frame", title=f"Stages of the {model['preset']} model")
    axes.legend()
    return _svg(figure)


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str], labels: list[str]) -> None:
    bars = axes.barh(range(len(names)), values, color=colours)
    axes.bar_label(bars, labels, padding=2, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.margins(y=0.01)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
