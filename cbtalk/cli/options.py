"""Options that commands share, in groups; the names are those of `cbtalk.render.parse_options`."""

from dataclasses import dataclass
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Machine:
    """The model and the machine of a command."""

    weights: str = "mini"
    """A bundled model's name, a weights file, or hf:OWNER/NAME[@REVISION] (extra hub)."""
    threads: int | None = None
    """CPU threads for the model."""
    device: Device = "auto"
    """Device of the model; auto takes the GPU if there is one."""
    precision: Precision = "auto"
    """Numbers that the model computes with, but for the keypoints; auto takes bf16 where it is faster, else fp32."""
    quiet: bool = False
    """No progress and no final line; warnings and errors only."""


@dataclass(frozen=True)
class Part:
    """The part of the driving video, or motion file, that is used, and how it is taken."""

    start: float = 0.0
    """Seconds to leave out; the sound is cut with it."""
    duration: float | None = None
    """Seconds to take; to its end without it."""
    max_frames: int | None = None
    """Stop after this many frames."""
    batch_size: int = 4
    """Frames that the model takes at once."""
    smooth: float = 0.0
    """Time constant in seconds of a smoothing of the motion that delays nothing; 0.025 takes out shaking."""
    follow: bool = False
    """Let the square move with the driving face, for people who walk through the picture."""


@dataclass(frozen=True)
class Faces:
    """The faces: that of the source, and that of the driving video."""

    crop: str | None = None
    """Square of the source to animate, x,y,size in pixels, or centre; that of a face without it."""
    face: str = "largest"
    """Face of the source: largest, its number from left to right, or x,y near it."""
    driving_crop: str | None = None
    """Square of the driving video to watch, x,y,size in pixels, or centre; that of a face without it."""
    driving_face: str = "longest"
    """Face to watch: longest (in view), largest, its number from left to right, or x,y near it."""


@dataclass(frozen=True)
class Movement:
    """The way the source moves."""

    motion: Literal["relative", "absolute"] = "relative"
    """Move the source as the driving face moves, or put it where the driving face is."""
    strength: float = 1.0
    """Strength of relative motion: 0 (none at all) to 2 (twice as much as the driving face)."""
    adapt_scale: bool = False
    """Multiply relative motion by the ratio of the two faces' sizes."""
    best_frame: bool = False
    """Measure relative motion from the driving frame of each scene most like the source, not its first."""
    loop: Literal["ping-pong", "cross-fade"] | None = None
    """Make one period that a player can repeat without a jump: forth and back, or its end blended into its beginning.
    It has no sound but that of --audio."""
    fade: float = 0.5
    """Seconds that the blending of a cross-faded loop takes, at most half of the motion."""


@dataclass(frozen=True)
class Result:
    """The pictures and the sound of the output."""

    paste: bool = False
    """Write the whole source, at its own size (at most 4096 pixels), with the animated square in its place."""
    output_size: int | None = None
    """Side of the output in pixels, even; with --paste that of the longer side."""
    compare: bool = False
    """Write source, driving and result side by side."""
    audio: str | None = None
    """A file whose sound is taken instead of the driving video's, from --start on and played once; or none."""
    encoder: Literal["auto", "libx264", "h264_nvenc"] = "auto"
    """H.264 encoder; auto is libx264. h264_nvenc needs an NVIDIA GPU that can encode (A100, H100 and H200 cannot)."""
