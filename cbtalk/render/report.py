"""The report of a finished render or extraction."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from cbtalk.render.driving import DrivingFrame
from cbtalk.render.motion_file import Motion

TOLD_CUTS = 5


@dataclass
class Report:
    """Frames written, seconds it took, and every frame that is not what the driving video showed.

    undecoded: frames that could not be decoded, the first of them being first_undecoded.
    not_finite: frames whose motion or image was not finite. cuts: how often a new scene begins in the driving video,
    the first times at first_cuts (seconds). notes: what was chosen where there was a choice.
    repeated: frames of batches that were computed again in float32, as half precision left an image not finite.
    file_warnings: what is wrong with the driving video as a file. no_graphs: the reason why a GPU got no CUDA graphs.
    """

    output: Path
    frames: int = 0
    seconds: float = 0.0
    undecoded: int = 0
    first_undecoded: DrivingFrame | None = None
    not_finite: int = 0
    repeated: int = 0
    cuts: int = 0
    first_cuts: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    file_warnings: list[str] = field(default_factory=list)
    no_graphs: str | None = None
    _scene: int | None = field(default=None, init=False, repr=False)

    def count(self, frames: Iterable[DrivingFrame]) -> None:
        """Take note of the frames that could not be decoded, and of scenes."""
        for frame in frames:
            self.count_scene(frame.scene, frame.pts * frame.time_base)
            if frame.held is not None:
                self.first_undecoded = self.first_undecoded or frame
                self.undecoded += 1

    def count_scene(self, scene: int, seconds: Fraction) -> None:
        """Take note of the scene of the next frame."""
        if self._scene not in (None, scene):
            self.cuts += 1
            if self.cuts <= TOLD_CUTS:
                self.first_cuts.append(float(seconds))
        self._scene = scene

    def count_scenes(self, motion: Motion) -> None:
        """Take note of the scenes of a whole motion."""
        for scene, pts in zip(motion.scenes_of(slice(None)), motion.pts.tolist(), strict=True):
            self.count_scene(scene, pts * motion.time_base)

    @property
    def lines(self) -> list[str]:
        """The work that was done, one line each."""
        times = ", ".join(f"{seconds:.2f}" for seconds in self.first_cuts) + (", ..." if self.cuts > TOLD_CUTS else "")
        cuts = f"{self.cuts} scene cut{'s' if self.cuts > 1 else ''} in the driving video, at {times} s"
        return [*self.notes, *([cuts] if self.cuts else []), str(self)]

    @property
    def warnings(self) -> list[str]:
        """Warnings for the user, one line each."""
        lines = list(self.file_warnings)
        if self.first_undecoded is not None:
            frame = self.first_undecoded
            first = f"the first at {float(frame.pts * frame.time_base):.2f} s {frame.held}"
            held = f"{_frames(self.undecoded)} of the driving video could not be decoded ({first})"
            lines.append(f"{held}; the last good motion is held")
        if self.repeated:
            lines.append(f"{_frames(self.repeated)} computed again in float32: half precision left some not finite")
        if self.not_finite:
            lines.append(f"{_frames(self.not_finite)} came out not finite; the last good one is repeated")
        if self.no_graphs is not None:
            lines.append(f"without CUDA graphs, and so slower, for none could be captured: {self.no_graphs}")
        return lines

    def __str__(self) -> str:
        held = self.undecoded + self.not_finite
        rate = self.frames / self.seconds if self.seconds > 0 else 0.0
        line = f"{self.output}: {_frames(self.frames)} in {self.seconds:.1f} s, {rate:.1f} a second"
        return f"{line}, {held} held" if held else line


def _frames(count: int) -> str:
    return f"{count} frame" if count == 1 else f"{count} frames"
