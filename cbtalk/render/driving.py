"""The driving video as a stream of square images with time stamps and scenes, gaps filled."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbtalk.media.crop import center_square, crop_resize
from cbtalk.media.scenes import SceneCuts
from cbtalk.media.span import WHOLE, Span
from cbtalk.media.video_reader import BadFrame, VideoInfo, open_video
from cbtalk.options.places import Crop

# The part of a frame (H, W, 3) that is seen, by the number of its scene and its time in seconds; both uint8.
View = Callable[[NDArray[np.uint8], int, float], NDArray[np.uint8]]


@dataclass(frozen=True)
class DrivingFrame:
    """One image of the driving video.

    image (S, S, 3) uint8 RGB; pts in ticks of time_base seconds. Where `held` gives a reason, the frame could not be
    decoded and the image is its neighbour's: the same image gives the same motion, so the motion is held too.
    duration: ticks for which it is shown if it is the last, None where nothing tells it. scene: the number of its
    image's scene, counted from 0.
    """

    image: NDArray[np.uint8]
    pts: int
    time_base: Fraction
    held: str | None = None
    duration: int | None = None
    scene: int = 0


def video_info(path: Path, span: Span = WHOLE) -> VideoInfo:
    """The header of a video, or of a part of it; InputError where there is none, or no video."""
    with open_video(path, span) as reader:
        return reader.info


def square(image: NDArray[np.uint8], crop: Crop, size: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 -> (size, size, 3) of a crop."""
    height, width = image.shape[:2]
    return crop_resize(image, center_square(width, height) if crop == "centre" else crop, size)


def crop_view(crop: Crop, size: int) -> View:
    """The view of a crop, as (size, size, 3)."""
    return lambda image, scene, time: square(image, crop, size)


def whole_view(image: NDArray[np.uint8], scene: int, time: float) -> NDArray[np.uint8]:
    """The view of whole frames."""
    return image


def at_most(frames: int | None, limit: int | None) -> int | None:
    """The number of frames to expect, for a progress bar; None where neither number is known."""
    return min((number for number in (frames, limit) if number is not None), default=None)


def read_driving(
    path: Path, view: View, max_frames: int | None = None, span: Span = WHOLE
) -> Generator[DrivingFrame, None, None]:
    """Stream the frames of a video, at most `max_frames`, as a view shows them.

    Raises InputError where the video, or the part of it that is asked for, holds no frame that can be decoded.
    """
    with open_video(path, span) as reader:
        step = max(1, round(1 / (reader.info.average_rate * reader.info.time_base)))  # ticks from frame to frame

        def images() -> Generator[DrivingFrame | BadFrame, None, None]:
            cuts, scene = SceneCuts(), 0
            for frame in reader:
                if isinstance(frame, BadFrame):
                    yield frame
                    continue
                scene += cuts(frame.image)
                image = view(frame.image, scene, float(frame.pts * frame.time_base))
                yield DrivingFrame(image, frame.pts, frame.time_base, duration=frame.duration, scene=scene)

        yield from islice(fill_gaps(images(), step), max_frames)


def fill_gaps(frames: Iterable[DrivingFrame | BadFrame], step: int) -> Generator[DrivingFrame, None, None]:
    """Put the last good image (at the start of the video: the first) in place of every bad frame.

    Only that image is kept, and the time stamps of a gap until the next good frame. Where the file does not tell them
    they are spread evenly between the neighbours, `step` ticks apart where there is but one neighbour.
    """
    last: DrivingFrame | None = None
    gap: list[BadFrame] = []
    for frame in frames:
        if isinstance(frame, BadFrame):
            gap.append(frame)
            continue
        yield from _held(last or frame, gap, _gap_times(gap, None if last is None else last.pts, frame.pts, step))
        yield frame
        last, gap = frame, []
    if last is not None:
        yield from _held(last, gap, _gap_times(gap, last.pts, None, step))


def _held(good: DrivingFrame, gap: list[BadFrame], times: list[int]) -> Generator[DrivingFrame, None, None]:
    for pts in times:
        yield replace(good, pts=pts, held=gap[0].reason, duration=None)


def _gap_times(gap: list[BadFrame], before: int | None, after: int | None, step: int) -> list[int]:
    """Rising time stamps for a gap, strictly between its neighbours and never negative; fewer where none is free."""
    known = [bad.pts for bad in gap if bad.pts is not None]
    if len(known) < len(gap):
        known = _even_times(len(gap), before, after, step)
    lowest = -1 if before is None else before
    return sorted({pts for pts in known if lowest < pts and (after is None or pts < after)})


def _even_times(missing: int, before: int | None, after: int | None, step: int) -> list[int]:
    if before is not None and after is not None:
        return [before + (after - before) * n // (missing + 1) for n in range(1, missing + 1)]
    if after is not None:
        return [after - step * n for n in range(1, missing + 1)]
    return [(before or 0) + step * n for n in range(1, missing + 1)]
