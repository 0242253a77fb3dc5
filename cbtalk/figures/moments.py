"""The images that figures are made of: the source's, and some moments of a video."""

from itertools import chain
from pathlib import Path
from typing import NamedTuple

from cbtalk.errors import InputError
from cbtalk.media.images import Image8
from cbtalk.media.moments import evenly
from cbtalk.model.talker import Talker
from cbtalk.render.cache import RenderCache
from cbtalk.render.driving import read_driving, video_info, whole_view
from cbtalk.render.driving_view import driving_view
from cbtalk.render.options import RenderOptions
from cbtalk.render.report import Report
from cbtalk.render.source import is_video, open_source


class Inputs(NamedTuple):
    """The model's view, (S, S, 3) uint8 each: the source, the first driving frame, and driving frames to show."""

    source: Image8
    first: Image8
    driving: list[Image8]


def read_inputs(source: Path, driving: Path, talker: Talker, options: RenderOptions, count: int) -> Inputs:
    """The source, and `count` moments spread evenly over the driving video; faces are found as in rendering.

    Raises InputError where one of them cannot be read, or is of another kind.
    """
    if is_video(source):
        raise InputError(f"{source}: figures are drawn of an image; give one as the source")
    report = Report(Path("figures"))
    with open_source(source, options, RenderCache(lambda: talker), report) as opened:
        image = opened.first_image(talker.image_size)
    info = video_info(driving, options.driving.span)
    view = driving_view(driving, info, options.driving, talker.image_size, report)
    frames = read_driving(driving, view, options.driving.max_frames, options.driving.span)
    first = next(frames).image
    return Inputs(image, first, evenly(chain([first], (frame.image for frame in frames)), count))


def moments_of(video: Path, count: int) -> list[Image8]:
    """`count` whole frames, spread evenly over a video."""
    return evenly((frame.image for frame in read_driving(video, whole_view)), count)
