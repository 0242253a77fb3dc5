"""The scenes of a video, and the faces in a few of the frames of each."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cbtalk.faces import Face, FaceDetector, find_faces
from cbtalk.media.scenes import SceneCuts
from cbtalk.media.video_reader import BadFrame, VideoReader

INTERVAL = 0.2  # seconds from look to look
_LOOKED_AT = 640  # px of the longer side of the image in which faces are looked for


@dataclass(frozen=True)
class Look:
    """The faces of one frame, shown from `time` (seconds) on."""

    time: float
    faces: list[Face]


@dataclass
class Scene:
    """The looks between two cuts, at the first and the last frame among them; `end` is the next cut's time."""

    looks: list[Look] = field(default_factory=list)
    end: float = 0.0


def scenes_of(reader: VideoReader, detector: FaceDetector = find_faces) -> Iterator[Scene | float]:
    """The scenes of a video, one after another; between them how far it is read, in seconds.

    Memory grows with the looks of a scene, boxes and points alone.
    """
    is_cut = SceneCuts()
    scene = Scene()
    last: tuple[float, NDArray[np.uint8]] | None = None
    for frame in reader:
        if isinstance(frame, BadFrame):
            continue
        time = float(frame.pts * frame.time_base)
        if is_cut(frame.image) and last is not None:
            yield _ended(scene, *last, time, detector)
            scene = Scene()
        if not scene.looks or time >= scene.looks[-1].time + INTERVAL:
            scene.looks.append(Look(time, _faces(frame.image, detector)))
            yield time
        last = time, frame.image
        end = time + float(frame.duration * frame.time_base)
    if last is not None:
        yield _ended(scene, *last, end, detector)


def _ended(scene: Scene, time: float, image: NDArray[np.uint8], end: float, detector: FaceDetector) -> Scene:
    """A scene with its last frame looked at."""
    if scene.looks[-1].time < time:
        scene.looks.append(Look(time, _faces(image, detector)))
    scene.end = end
    return scene


def _faces(image: NDArray[np.uint8], detector: FaceDetector) -> list[Face]:
    """The faces of an image (H, W, 3), looked for in a smaller copy, which takes half of the time."""
    height, width = image.shape[:2]
    scale = min(1.0, _LOOKED_AT / max(height, width))
    small = Image.fromarray(image)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = small.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    found = detector(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    stretch = torch.tensor([width / small.width, height / small.height])
    return [Face(face.box * stretch.repeat(2), face.score, face.points * stretch) for face in found]
