"""The figures as pages of matplotlib: compensation, codes, usage, attention of a place, comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from cbtalk.figures.features import principal_colours
from cbtalk.figures.flow_colours import colour_wheel, flow_colours
from cbtalk.figures.stages import Stage
from cbtalk.figures.usage import BOOKS, Usage
from cbtalk.media.images import Image8

CELL = 1.7  # inches a side of an image
TOP = 8  # codes named for a place
_BARS = {"motion": "#3b76af", "appearance": "#c85250"}


def compensation(source: Image8, driving: Image8, result: Image8, stages: Sequence[Stage]) -> Figure:
    """Flows before and after each scale's compensation, occlusion, features warped and compensated; a row a scale."""
    titles = ("flow before", "flow after", "change of flow", "occlusion", "warped", "compensated")
    figure, axes = _grid(1 + len(stages), len(titles))
    flows = [stage.flow.double().cpu().numpy() for stage in stages]
    before = [stage.flow_before.double().cpu().numpy() for stage in stages]
    longest = float(np.quantile(np.hypot(*np.concatenate(before + flows, axis=1)), 0.99))
    for axis, image, title in zip(axes[0], (source, driving, result), ("source", "driving", "result"), strict=False):
        _show(axis, image, title)
    _show(axes[0, 3], colour_wheel(128), f"flow: {longest:.1f} px at the rim")
    for row, (stage, old, new) in enumerate(zip(stages, before, flows, strict=True), start=1):
        change = new - old
        most = float(np.hypot(*change).max())
        warped, compensated = principal_colours([x.double().cpu().numpy() for x in (stage.warped, stage.compensated)])
        images: list[NDArray[Any]] = [
            flow_colours(old, longest),
            flow_colours(new, longest),
            flow_colours(change, most),
            stage.occlusion.float().cpu().numpy(),
            warped,
            compensated,
        ]
        for axis, image, title in zip(axes[row], images, titles, strict=True):
            _show(axis, image, f"{title}, {most:.2f} px" if title == "change of flow" else title, most=1.0)
        axes[row, 0].set_ylabel(f"{stage.scale} px", fontsize=8)
    return figure


def codes(image: Image8, stages: Sequence[Stage]) -> Figure:
    """The code that each place attends to most, as its number's colour, and how much; a row a scale."""
    figure, axes = _grid(1 + len(stages), 4)
    _show(axes[0, 0], image, "driving")
    for row, stage in enumerate(stages, start=1):
        for column, book in enumerate(BOOKS):
            attention = getattr(stage, f"{book}_attention")
            if attention is None:
                continue
            share, number = _square(attention.max(dim=1).values), _square(attention.argmax(dim=1))
            colours = _code_colours(attention.shape[1])
            _show(axes[row, 2 * column], colours[number], f"{book}, different codes: {len(np.unique(number))}")
            _show(axes[row, 2 * column + 1], share, f"their weight, up to {share.max():.2f}")
        axes[row, 0].set_ylabel(f"{stage.scale} px", fontsize=8)
    return figure


def usage_page(used: Mapping[str, Sequence[Usage]]) -> Figure:
    """The share of the attention that each code gets, largest first; a row a scale, a column a book."""
    rows = max(len(uses) for uses in used.values())
    figure = Figure(figsize=(9, 1 + 1.8 * rows), layout="constrained")
    axes = figure.subplots(rows, len(used), squeeze=False)
    for column, (book, uses) in enumerate(used.items()):
        for axis in axes[len(uses) :, column]:
            axis.set_axis_off()
        for axis, use in zip(axes[:, column], uses, strict=False):
            shares = use.shares.sort(descending=True).values[: use.allowed].cpu().numpy()
            axis.bar(np.arange(len(shares)), 100 * shares, width=1.0, color=_BARS[book])
            axis.axhline(100 / use.allowed, color="black", linewidth=0.6, linestyle="--")
            axis.set_title(
                f"{book} at {use.scale} px: perplexity {use.perplexity:.0f} of {use.allowed}, "
                f"{use.favourites} above the even share",
                fontsize=8,
            )
            axis.tick_params(labelsize=7)
            axis.set_ylabel("% of attention", fontsize=7)
    return figure


def attention_page(image: Image8, stages: Sequence[Stage], place: tuple[int, int]) -> Figure:
    """The codes that one place (x, y in pixels) reads at each scale, and which places read the same."""
    figure, axes = _grid(1 + len(stages), 4, images=False)
    for axis in axes[0]:
        axis.set_axis_off()
    _show(axes[0, 0], image, f"place {place[0]},{place[1]}")
    axes[0, 0].plot(*place, "+", color="red", markersize=12)
    for row, stage in enumerate(stages, start=1):
        for column, book in enumerate(BOOKS):
            attention = getattr(stage, f"{book}_attention")
            if attention is None:
                axes[row, 2 * column].set_axis_off()
                axes[row, 2 * column + 1].set_axis_off()
                continue
            size = round(len(attention) ** 0.5)
            x, y = (min(at * size // image.shape[0], size - 1) for at in place)
            own = attention[y * size + x]
            same = torch.nn.functional.cosine_similarity(attention, own[None], dim=1)
            weights, numbers = own.topk(min(TOP, int((own > 0).sum())))
            bars = axes[row, 2 * column]
            bars.bar([str(number) for number in numbers.tolist()], weights.cpu().numpy(), color=_BARS[book])
            bars.tick_params(labelsize=6)
            bars.set_title(f"{book} codes at {stage.scale} px", fontsize=7)
            _show(axes[row, 2 * column + 1], _square(same.clamp(min=0)), "places that read the same", most=1.0)
            axes[row, 2 * column + 1].plot(x, y, "+", color="red")
    return figure


def comparison(rows: Mapping[str, Sequence[Image8]]) -> Figure:
    """Images of the same moments below each other: a row for each title, a column for each moment."""
    figure, axes = _grid(len(rows), max(len(images) for images in rows.values()), titles=False)
    for row, (title, images) in enumerate(rows.items()):
        for column, image in enumerate(images):
            _show(axes[row, column], image, "")
        axes[row, 0].set_ylabel(title, fontsize=8)
    return figure


def _grid(rows: int, columns: int, *, images: bool = True, titles: bool = True) -> tuple[Figure, NDArray[Any]]:
    figure = Figure(figsize=(CELL * columns, (CELL + 0.25 * titles) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat if images else ():
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    return figure, axes


def _show(axis: Axes, image: NDArray[Any], title: str, *, most: float | None = None) -> None:
    """An image in colours, or one of numbers from 0 to `most`; without that, to its own largest."""
    axis.set(xticks=[], yticks=[])
    if image.ndim == 2:
        most = most or max(1e-9, float(image.max()))
        axis.imshow(image, cmap="viridis", vmin=0, vmax=most, interpolation="nearest")
    else:
        axis.imshow(image, interpolation="nearest")
    if title:
        axis.set_title(title, fontsize=7)


def _square(values: Tensor) -> NDArray[Any]:
    size = round(len(values) ** 0.5)
    return values.reshape(size, size).cpu().numpy()


def _code_colours(count: int) -> NDArray[np.float64]:
    """A colour of each code: (count, 3). Codes of near numbers have unlike colours, for their order means nothing."""
    return np.random.default_rng(0).uniform(0.1, 1, (count, 3))
