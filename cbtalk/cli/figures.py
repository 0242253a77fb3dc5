"""The command figures."""

from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from cbtalk.cli.machine import use
from cbtalk.cli.options import Device, Faces
from cbtalk.errors import ConfigError

PLACE = "--place is x,y in pixels of the picture, for example 128,160"


def figures(
    source: Annotated[Path, arg(aliases=["-s"])],
    driving: Annotated[Path, arg(aliases=["-d"])],
    output: Annotated[Path, arg(aliases=["-o"])],
    weights: tuple[str, ...] = ("mini",),
    peers: tuple[Path, ...] = (),
    moment: float = 0.5,
    place: str | None = None,
    count: int = 6,
    absolute: bool = False,
    faces: OmitArgPrefixes[Faces] = Faces(),
    threads: int | None = None,
    device: Device = "auto",
) -> None:
    """Draw what the model does inside for a portrait and a driving clip, as PNG files in a folder.

    compensation: flows before and after each scale, occlusion, features warped and compensated. codes: the code that
    each place reads most. usage: how much each code is used. attention: what one place reads. comparison: results of
    several weights, and of other programs, side by side.

    Args:
        source: The portrait: a picture.
        driving: The driving video.
        output: Folder for the figures; it is made.
        weights: Bundled models' names, weights files or hf:OWNER/NAME[@REVISION] (extra hub); the inner values are
            those of the first.
        peers: Videos of the same source and driving clip that other programs made.
        moment: Moment of the driving clip whose inner values are shown, from 0 (first frame) to 1 (last frame).
        place: Place of the picture whose attention is shown, x,y in pixels; its centre without it.
        count: Moments of the driving clip in the comparison, and for the usage.
        absolute: Put the source where the driving face is, instead of moving it as that moves.
        faces: The faces of the source and of the driving video.
        threads: CPU threads for the model.
        device: Where the model runs; auto takes the GPU if there is one.
    """
    try:
        from cbtalk.figures import run
    except ModuleNotFoundError as missing:
        raise ConfigError(f"figures need {missing.name}: pip install 'cbtalk[figures]'") from missing
    from cbtalk.render.parse_options import parse_options

    options = parse_options({**vars(faces), "motion": "absolute" if absolute else "relative"})
    lines = run(
        source,
        driving,
        output,
        options,
        weights=weights,
        peers=peers,
        moment=moment,
        place=None if place is None else _place(place),
        count=count,
        device=use(device, threads),
    )
    print(*lines, sep="\n")


def _place(text: str) -> tuple[int, int]:
    x, comma, y = text.partition(",")
    if not (comma and x.strip().isdecimal() and y.strip().isdecimal()):
        raise ConfigError(f"{text!r} is no place; {PLACE}")
    return int(x), int(y)
