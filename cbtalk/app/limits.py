"""Limits of what the page takes, so that one upload cannot keep the machine busy for hours."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbtalk.errors import ConfigError, InputError
from cbtalk.media.images import read_image
from cbtalk.media.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from cbtalk.render.motion_changes import cut
from cbtalk.render.motion_file import load_motion
from cbtalk.render.options import RenderOptions
from cbtalk.render.video import MOTION_SUFFIXES, driving_info

IMAGES = tuple(sorted(IMAGE_SUFFIXES))
DRIVINGS = tuple(sorted(VIDEO_SUFFIXES | set(MOTION_SUFFIXES)))


@dataclass(frozen=True)
class Limits:
    """Largest upload in MB (10^6 bytes), most frames of a clip, most millions of pixels of an image, most jobs."""

    upload: int
    frames: int
    megapixels: int
    jobs: int

    def __post_init__(self) -> None:
        """Raise ConfigError for a limit below 1."""
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"--max-{name} {value}: must be 1 or more")

    def read_portrait(self, path: Path) -> NDArray[np.uint8]:
        """A portrait as of `read_image`; InputError where it is larger than the limit."""
        image = read_image(path)
        height, width = image.shape[:2]
        if height * width > self.megapixels * 10**6:
            raise InputError(
                f"{path}: {width} x {height} pixels are more than {self.megapixels} million; make it smaller first, "
                "or start the page with a larger --max-megapixels"
            )
        return image

    def bounded(self, driving: Path, options: RenderOptions) -> RenderOptions:
        """The options with a bound on the frames of `driving`, a video or motion file.

        Raises InputError where it has more than the limit, as far as its header tells.
        """
        most = options.driving.max_frames
        if most is None or most > self.frames:
            info = driving_info(driving, options)
            frames = _frames(driving, options) if info is None else info.frames
            if frames is not None and frames > self.frames:
                raise InputError(
                    f"{driving}: {frames} frames are more than {self.frames}; take a part by --start and --duration, "
                    "or start the page with a larger --max-frames"
                )
            most = self.frames
        return replace(options, driving=replace(options.driving, max_frames=most))


def _frames(driving: Path, options: RenderOptions) -> int:
    """Those of the part of a motion file that is taken."""
    return cut(driving, load_motion(driving, fingerprint=None, num_keypoints=None), options.driving.span).frames
