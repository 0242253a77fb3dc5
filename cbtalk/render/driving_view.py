"""The square of a driving video that the model sees: given, or found by its faces in a look beforehand."""

from pathlib import Path

from tqdm import tqdm

from cbtalk.faces import cut, following
from cbtalk.media.video_reader import VideoInfo
from cbtalk.render.driving import View, at_most, crop_view, read_driving, whole_view
from cbtalk.render.options import DrivingOptions
from cbtalk.render.report import Report
from cbtalk.render.scene_squares import Search, at_rest, scene_squares

# `Looks` of each scene.
RESTING_SECONDS, RESTING_LOOKS = 0.2, 32
FOLLOWING_SECONDS, FOLLOWING_LOOKS = 0.1, 4096


def driving_view(
    path: Path, info: VideoInfo, options: DrivingOptions, size: int, report: Report, *, progress: bool = False
) -> View:
    """The view of a driving video as (size, size, 3): of the crop that is given, or of a face, scene by scene.

    A face is looked for in one pass over the video. Its square rests in each scene, or follows it. `report` and errors
    as of `scene_squares`.
    """
    if options.crop is not None:
        return crop_view(options.crop, size)
    expected = at_most(info.frames, options.max_frames)
    frames = read_driving(path, whole_view, options.max_frames, options.span)
    looked_at = tqdm(frames, desc="faces", total=expected, unit="frame", disable=None if progress else True)
    paths = scene_squares(path, looked_at, _search(options), report)
    return lambda image, scene, time: cut(image, paths[scene].at(time), size)


def _search(options: DrivingOptions) -> Search:
    seconds, limit = (FOLLOWING_SECONDS, FOLLOWING_LOOKS) if options.follow else (RESTING_SECONDS, RESTING_LOOKS)
    return Search(
        options.face,
        seconds,
        limit,
        following if options.follow else at_rest,
        use="watched",
        option="--driving-face",
        instead="give its square, x,y,size or centre, by --driving-crop (--crop of cbtalk motion)",
    )
