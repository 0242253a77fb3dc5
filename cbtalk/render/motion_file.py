"""Motion files: what a model sees of a driving video, and none of its images, in safetensors."""

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cbtalk import __version__
from cbtalk.atomic import atomic_path
from cbtalk.errors import InputError
from cbtalk.file_names import utf8_name
from cbtalk.media.files import check_readable
from cbtalk.model.keypoints import Keypoints

FORMAT = "cbtalk-motion"
# A file of several scenes is of version 2, so that a reader that knows of none refuses it; any other is of version 1.
VERSIONS = ("1", "2")
LONGEST = 10**6  # seconds


@dataclass(frozen=True)
class Motion:
    """The keypoints of T driving frames.

    keypoints: value (T, K, 2) and jacobian (T, K, 2, 2), float32, on the CPU; pts (T,) int64, rising, in `time_base`
    seconds; average_rate: frames per second. last_duration: ticks for which the last frame is shown, None where nothing
    tells it. scenes (T,) int64: the number of each frame's scene, None where all are of one. notes: what was chosen
    or held when it was extracted.
    """

    keypoints: Keypoints
    pts: Tensor
    time_base: Fraction
    average_rate: Fraction
    last_duration: int | None = None
    scenes: Tensor | None = None
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """T."""
        return len(self.pts)

    def __getitem__(self, rows: slice) -> Keypoints:
        """The keypoints of some frames."""
        return Keypoints(*(part[rows] for part in self.keypoints))

    def scenes_of(self, rows: slice) -> list[int]:
        """The scenes of some frames."""
        return [0] * len(self.pts[rows]) if self.scenes is None else self.scenes[rows].tolist()

    def first(self, frames: int | None) -> "Motion":
        """The first `frames` frames; all of them where None."""
        if frames is None or frames >= self.frames:
            return self
        scenes = None if self.scenes is None else self.scenes[:frames]
        return replace(self, keypoints=self[slice(frames)], pts=self.pts[:frames], last_duration=None, scenes=scenes)


def save_motion(path: Path, motion: Motion, *, fingerprint: str) -> None:
    """Write a motion file, complete or not at all. `fingerprint` is the talker's `motion_fingerprint()`."""
    tensors = {
        "value": motion.keypoints.value.float().contiguous(),
        "jacobian": motion.keypoints.jacobian.float().contiguous(),
        "pts": motion.pts,
    }
    if motion.scenes is not None:
        tensors["scene"] = motion.scenes
    metadata = {
        "format": FORMAT,
        "version": VERSIONS[motion.scenes is not None],
        "creator": f"cbtalk {__version__}",
        "motion_fingerprint": fingerprint,
        "time_base": str(motion.time_base),
        "average_rate": str(motion.average_rate),
        "frames": str(motion.frames),
    }
    if motion.last_duration is not None:
        metadata["last_duration"] = str(motion.last_duration)
    if motion.notes:
        metadata["notes"] = json.dumps(motion.notes)
    with atomic_path(path) as temporary:
        # save_file would go through a temporary file of its own, private and under a name that nobody recognises.
        temporary.write_bytes(save(tensors, metadata))


def load_motion(path: Path, *, fingerprint: str | None, num_keypoints: int | None) -> Motion:
    """Read and check a motion file of the model with this fingerprint and so many keypoints; None: of any.

    Raises InputError where the file is missing, damaged, not a motion file, or of a model whose keypoints mean
    something else.
    """
    check_readable(path, "motion file")
    try:
        with utf8_name(path) as name, safe_open(name, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_header(path, metadata, fingerprint)
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            _check_shapes(path, slices, num_keypoints)
            value, jacobian, pts = (file.get_tensor(name) for name in ("value", "jacobian", "pts"))
            scenes = file.get_tensor("scene") if "scene" in slices else None
    except (SafetensorError, OSError) as failure:
        raise InputError(
            f"{path}: not a readable motion file ({failure}); write it again with `cbtalk motion`"
        ) from failure
    if not (value.isfinite().all() and jacobian.isfinite().all()):
        raise InputError(f"{path}: the motion holds values that are not finite")
    times = {key: _fraction(path, metadata, key) for key in ("time_base", "average_rate")}
    if pts[0] < 0 or not (pts.diff() > 0).all() or int(pts[-1]) * times["time_base"] > LONGEST:
        raise InputError(f"{path}: the time stamps of the motion do not rise from 0, or not within {LONGEST} seconds")
    stated = metadata.get("last_duration", "")
    last_duration = int(stated) if stated.isdecimal() and 0 < int(stated) * times["time_base"] <= LONGEST else None
    return Motion(
        Keypoints(value, jacobian),
        pts,
        times["time_base"],
        times["average_rate"],
        last_duration,
        scenes,
        _notes(metadata),
    )


def _check_header(path: Path, metadata: dict[str, str], fingerprint: str | None) -> None:
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: not a motion file; write one with `cbtalk motion`")
    if metadata.get("version") not in VERSIONS:
        raise InputError(
            f"{path}: motion format version {metadata.get('version')}, this cbtalk reads {' and '.join(VERSIONS)}"
        )
    if fingerprint is not None and metadata.get("motion_fingerprint") != fingerprint:
        raise InputError(
            f"{path}: this motion is of another model; write it again with `cbtalk motion` and the same --weights"
        )


def _check_shapes(path: Path, slices: dict[str, Any], num_keypoints: int | None) -> None:
    """Compare shapes and types with what the format says before any data is read."""
    found = {name: (list(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    frames = found["pts"][0][0] if "pts" in found and found["pts"][0] else 0
    if num_keypoints is None:
        num_keypoints = (found["value"][0][1:2] or [0])[0] if "value" in found else 0
    expected = {
        "value": ([frames, num_keypoints, 2], "F32"),
        "jacobian": ([frames, num_keypoints, 2, 2], "F32"),
        "pts": ([frames], "I64"),
    }
    if "scene" in found:
        expected["scene"] = ([frames], "I64")
    if found != expected or frames == 0:
        raise InputError(f"{path}: the motion is not that of one or more frames with {num_keypoints} keypoints")


def _notes(metadata: dict[str, str]) -> tuple[str, ...]:
    try:
        return tuple(str(note) for note in json.loads(metadata.get("notes", "[]")))
    except (ValueError, TypeError):
        return ()


def _fraction(path: Path, metadata: dict[str, str], key: str) -> Fraction:
    try:
        numerator, _, denominator = metadata[key].partition("/")
        fraction = Fraction(int(numerator), int(denominator or 1))
    except (KeyError, ValueError, ZeroDivisionError) as failure:
        raise InputError(f"{path}: the motion's {key} is not a fraction") from failure
    # FFmpeg keeps rates and time bases as pairs of 32 bit integers.
    if fraction <= 0 or max(fraction.numerator, fraction.denominator) >= 2**31:
        raise InputError(f"{path}: the motion's {key} is out of range")
    return fraction
