"""The figures of a source and a driving clip, as PNG files in a folder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cbtalk.atomic import atomic_path
from cbtalk.errors import ConfigError
from cbtalk.figures import pages
from cbtalk.figures.moments import Inputs, moments_of, read_inputs
from cbtalk.figures.stages import Stage, stages
from cbtalk.figures.usage import Usage, usage
from cbtalk.media.images import Image8
from cbtalk.model.checkpoint import load
from cbtalk.model.images import to_frames, to_images
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.relative_motion import relative_keypoints
from cbtalk.model.talker import SourceState, Talker
from cbtalk.options.figures import Moments
from cbtalk.options.machine import Weights
from cbtalk.precision import float32_convolutions
from cbtalk.render.options import RenderOptions


@float32_convolutions()
def draw_figures(
    source: Path,
    driving: Path,
    output: Path,
    options: RenderOptions | None = None,
    *,
    weights: Sequence[str] = (Weights.weights,),
    peers: Sequence[Path] = (),
    moment: float = Moments.moment,
    place: tuple[int, int] | None = Moments.place,
    count: int = Moments.count,
    device: str = "cpu",
) -> list[str]:
    """Draws compensation, codes, usage, attention and comparison, each a PNG; returns lines that name them.

    Args:
        output: folder, which is made.
        options: as for rendering; what belongs to the output alone does not matter.
        weights: of the models to compare; the inner values are those of the first.
        peers: videos that others made of the same source and driving clip, shown beside the results.
        moment, place, count: as `cbtalk.options.figures.Moments` explains them.

    Raises:
        ConfigError: a number out of its range. InputError, WeightsError: a file cannot be used.
    """
    options = options or RenderOptions()
    talkers = {name: load(name, device=device) for name in weights}
    talker = talkers[weights[0]]
    place = place or (talker.image_size // 2, talker.image_size // 2)
    _check(moment, place, count, talker)
    seen = read_inputs(source, driving, talker, options, count)
    relative = options.motion == "relative"
    inner, images = _looked_at(talker, seen, relative)
    chosen = round(moment * (len(inner) - 1))
    rows = {"driving": seen.driving, weights[0]: images}
    for name, other in list(talkers.items())[1:]:
        theirs = read_inputs(source, driving, other, options, count)
        rows[name] = _looked_at(other, theirs, relative)[1]
    rows |= {peer.stem: moments_of(peer, count) for peer in peers}
    used = usage(inner)
    output.mkdir(parents=True, exist_ok=True)
    drawn = {
        "compensation": pages.compensation(seen.source, seen.driving[chosen], images[chosen], inner[chosen]),
        "attention": pages.attention_page(images[chosen], inner[chosen], place),
        "comparison": pages.comparison(rows),
    }
    if used:
        drawn |= {"codes": pages.codes(seen.driving[chosen], inner[chosen]), "usage": pages.usage_page(used)}
    for name, figure in drawn.items():
        with atomic_path(output / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=150)
    return [f"{output / name}.png" for name in drawn] + _lines(used)


def _check(moment: float, place: tuple[int, int], count: int, talker: Talker) -> None:
    if not 0 <= moment <= 1:
        raise ConfigError(f"moment {moment}: must be 0 to 1")
    if count < 1:
        raise ConfigError(f"count {count}: must be 1 or more")
    if not all(0 <= at < talker.image_size for at in place):
        raise ConfigError(f"place {place[0]},{place[1]}: outside of an image of {talker.image_size} pixels")


@torch.inference_mode()
def _looked_at(talker: Talker, seen: Inputs, relative: bool) -> tuple[list[list[Stage]], list[Image8]]:
    """The inner values and the result of each driving frame."""
    source = talker.encode_source(_on(talker, seen.source))
    first = talker.keypoints(_on(talker, seen.first)) if relative else None
    inner, images = [], []
    for image in seen.driving:
        keypoints = _placed(source, talker.keypoints(_on(talker, image)), first)
        inner.append(stages(talker, source, keypoints))
        images.append(to_frames(talker.animate_keypoints(source, keypoints))[0])
    return inner, images


def _placed(source: SourceState, driving: Keypoints, first: Keypoints | None) -> Keypoints:
    return driving if first is None else relative_keypoints(source.keypoints, driving, first)


def _on(talker: Talker, image: Image8) -> Tensor:
    return to_images(torch.from_numpy(image)[None].to(next(talker.parameters()).device))


def _lines(used: dict[str, list[Usage]]) -> list[str]:
    return [
        f"{book} codes at {use.scale} px: perplexity {use.perplexity:.1f} of {use.allowed}, "
        f"{use.favourites} above the even share"
        for book, uses in used.items()
        for use in uses
    ]
