"""Options of a render, in groups. `RenderOptions` and `DrivingOptions` are made of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cbtalk.options.places import Crop, FaceChoice, parse_choice, parse_crop
from cbtalk.options.words import NUMBER, PIXELS, SECONDS, Flag, by_text, shown

Motion = Literal["relative", "absolute"]
Loop = Literal["ping-pong", "cross-fade"]
Encoder = Literal["auto", "libx264", "h264_nvenc"]

STRONGEST = 2.0  # times the motion
MOST_SIDE = 4096  # px of an output's longer side

FaceOfSource = Annotated[
    FaceChoice,
    by_text(parse_choice, "largest|N|X,Y"),
    shown(help="Face of the source: the largest, number N from left to right, or the one near X,Y."),
]
_CROP = by_text(parse_crop, "X,Y,SIZE|centre")


def _watched(text: str) -> FaceChoice | Literal["longest"]:
    return "longest" if text == "longest" else parse_choice(text)


def _sound(text: str) -> Path | Literal["driving", "none"]:
    match text:
        case "driving" | "none":
            return text
    return Path(text)


@dataclass(frozen=True)
class SourceFace:
    """The face that is animated."""

    crop: Annotated[Crop | None, _CROP, shown()] = None
    """Square of the source to animate, in pixels, or the largest one in its centre; that of a face without it."""
    face: FaceOfSource = "largest"


@dataclass(frozen=True)
class DrivingFace:
    """The face that drives."""

    crop: Annotated[Crop | None, _CROP, shown(name="driving-crop")] = None
    """Square of the driving video to watch, in pixels, or the largest one in its centre; that of a face without it."""
    face: Annotated[
        FaceChoice | Literal["longest"], by_text(_watched, "longest|largest|N|X,Y"), shown(name="driving-face")
    ] = "longest"
    """Face to watch: the one longest in view, the largest, number N from left to right, or the one near X,Y."""
    follow: Flag = False
    """Let the square move with the driving face, for people who walk through the image."""


@dataclass(frozen=True)
class Part:
    """The part of the driving video, or motion file, that is used, and how it is taken."""

    start: Annotated[float, SECONDS] = 0.0
    """Seconds to leave out; the sound is cut with it."""
    duration: Annotated[float | None, SECONDS] = None
    """Seconds to take; to its end without it."""
    max_frames: Annotated[int | None, NUMBER] = None
    """Stop after this many frames."""
    smooth: Annotated[float, SECONDS] = 0.0
    """Time constant of a smoothing of the motion that delays nothing; 0.025 takes out shaking."""
    batch_size: Annotated[int, NUMBER] = 4
    """Frames that the model takes at once."""


@dataclass(frozen=True)
class Movement:
    """The way the source moves."""

    motion: Annotated[Motion, shown()] = "relative"
    """Move the source as the driving face moves, or put it where the driving face is."""
    strength: Annotated[
        float, shown("TIMES", help=f"Strength of relative motion, from 0 (none at all) to {STRONGEST:g}.")
    ] = 1.0
    adapt_scale: Flag = False
    """Multiply relative motion by the ratio of the two faces' sizes."""
    best_frame: Flag = False
    """Measure relative motion from the driving frame of each scene most like the source, not its first."""
    loop: Annotated[Loop | None, shown()] = None
    """Make one period to be repeated: forth and back, or its end blended into its beginning; no sound but --audio."""
    fade: Annotated[float, SECONDS] = 0.5
    """Time that the blending of a cross-faded loop takes, at most half of the motion."""


@dataclass(frozen=True)
class Result:
    """The images and the sound of the output."""

    paste: Annotated[
        bool,
        shown(
            help=f"Write the whole source, at its own size (at most {MOST_SIDE} pixels), with the animated square in "
            "its place."
        ),
    ] = False
    output_size: Annotated[int | None, PIXELS] = None
    """Side of the output, even; with --paste that of the longer side."""
    compare: Flag = False
    """Write source, driving and result side by side."""
    audio: Annotated[Path | Literal["driving", "none"], by_text(_sound, "FILE|driving|none"), shown()] = "driving"
    """Sound of the output: that of a file, from --start on and played once; that of the driving video; or none."""
    encoder: Annotated[Encoder, shown()] = "auto"
    """H.264 encoder; auto is libx264. h264_nvenc needs an NVIDIA GPU that can encode (A100, H100 and H200 cannot)."""
