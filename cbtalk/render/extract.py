"""The motion of a whole driving video: one pass, keypoints only."""

from collections.abc import Generator, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from cbtalk import ranges
from cbtalk.errors import WeightsError
from cbtalk.media.video_reader import VideoInfo
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.transfers import Download, download
from cbtalk.render.animation import Animator
from cbtalk.render.driving import DrivingFrame, View, at_most, read_driving
from cbtalk.render.engine import is_finite, last_good
from cbtalk.render.motion_file import Motion
from cbtalk.render.options import DrivingOptions
from cbtalk.render.pipeline import run_pipeline
from cbtalk.render.report import Report


def extract_motion(
    animator: Animator,
    driving: Path,
    info: VideoInfo,
    view: View,
    options: DrivingOptions,
    report: Report,
    *,
    progress: bool = False,
) -> Motion:
    """Keypoints of every frame of a video; they alone (360 bytes a frame) are kept.

    Frames that cannot be decoded, or whose keypoints are not finite, hold the last good motion (at the start: the
    first good one); `report` counts them. Such a frame belongs to the scene whose motion it holds. Raises WeightsError
    where no frame has finite keypoints.
    """
    parts: list[Keypoints] = []
    pts: list[int] = []
    scenes: list[int] = []
    last_duration: int | None = None
    bar = tqdm(
        desc="motion", total=at_most(info.frames, options.max_frames), unit="frame", disable=None if progress else True
    )

    @torch.inference_mode()
    def detect(frames: list[DrivingFrame]) -> tuple[list[DrivingFrame], Download]:
        return frames, download(*(part.float() for part in animator.detect(stack(frames))))

    def collect(result: tuple[list[DrivingFrame], Download]) -> None:
        nonlocal last_duration
        frames, keypoints = result[0], Keypoints(*result[1].wait())
        parts.append(keypoints)
        pts.extend(frame.pts for frame in frames)
        scenes.extend(frame.scene for frame in frames)
        last_duration = frames[-1].duration
        report.count(frames)
        bar.update(len(frames))

    with bar:
        frames = read_driving(driving, view, options.max_frames, options.span)
        run_pipeline(batches(frames, options.batch_size), detect, collect)
    found = Keypoints(*(torch.cat(part) for part in zip(*parts, strict=True)))
    good = is_finite(found)
    if not good.any():
        raise WeightsError("the model finds no finite keypoints in the driving video: its weights are damaged")
    rows = (last_good(good) - 1).clamp(min=int(good.nonzero()[0]))
    report.not_finite += int((~good).sum())
    own_scenes = torch.tensor(scenes)[rows]
    return Motion(
        Keypoints(*(part[rows] for part in found)),
        torch.tensor(pts),
        info.time_base,
        info.average_rate,
        last_duration,
        own_scenes if own_scenes.any() else None,
    )


def batches(frames: Iterable[DrivingFrame], size: int) -> Generator[list[DrivingFrame], None, None]:
    """Groups of `size` frames, the last one smaller."""
    left = iter(frames)
    while True:
        with ranges.range("decode"):
            group = list(islice(left, size))
        if not group:
            return
        yield group


def stack(frames: list[DrivingFrame]) -> NDArray[np.uint8]:
    """(B, S, S, 3) uint8."""
    return np.stack([frame.image for frame in frames])
