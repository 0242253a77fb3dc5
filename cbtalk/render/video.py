"""From a portrait and a driving video (or motion file) to an animated portrait; and from a video to a motion file."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from cbtalk.errors import InputError
from cbtalk.media.audio_track import check_sound
from cbtalk.media.encoder import check_encoder
from cbtalk.media.video_reader import VideoInfo
from cbtalk.media.video_writer import FORMATS
from cbtalk.model.checkpoint import load
from cbtalk.precision import float32_convolutions
from cbtalk.render.animation import Animator, Repetition, encode_source
from cbtalk.render.cache import RenderCache
from cbtalk.render.destination import check_destination
from cbtalk.render.driving import video_info
from cbtalk.render.driving_side import DrivingSide
from cbtalk.render.driving_view import driving_view
from cbtalk.render.engine import Engine
from cbtalk.render.extract import extract_motion
from cbtalk.render.motion_changes import smoothed
from cbtalk.render.motion_file import save_motion
from cbtalk.render.options import DrivingOptions, RenderOptions
from cbtalk.render.rendering import Rendering
from cbtalk.render.report import Report
from cbtalk.render.source import open_source

VIDEO_SUFFIXES = tuple(FORMATS)
MOTION_SUFFIXES = (".safetensors",)


@float32_convolutions()
def render_video(
    source: Path,
    driving: Path,
    output: Path,
    options: RenderOptions | None = None,
    *,
    weights: str | Path = "mini",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: bool = False,
    cache: RenderCache | None = None,
    told: Callable[[int, int | None], None] | None = None,
) -> Report:
    """Animate the portrait `source` by `driving`, a video or a motion file, into the video `output`.

    `source` is an image, or a video of which every frame is animated at its own time; the output ends with the
    shorter of the two videos. Memory does not depend on the length of the videos, but for the driving's keypoints where
    the motion must be known as a whole: for its best frame, smoothed, or as a loop. The driving video's time stamps and
    sound are kept. `weights` is a name or file for `cbtalk.load`, `dtype` is what it takes; `cache`, where given, has
    the model, and what it keeps is not worked out again. A batch that half precision leaves not finite is computed
    again in float32. Progress goes to standard error where that is a terminal. `told` is called, in another thread,
    with the frames that are written and those to be expected, None where nothing tells it; what it raises ends the
    render.

    Raises InputError, WeightsError, OutputError or SystemFailure; `output` is then as it was before.
    """
    options = options or RenderOptions()
    sounds = [options.audio] if isinstance(options.audio, Path) else []
    check_destination(output, [source, driving, Path(weights), *sounds], VIDEO_SUFFIXES)
    for sound in sounds:
        check_sound(sound)
    check_encoder(options.encoder)
    report = Report(output)
    cache = cache or model_cache(weights, device, dtype)
    with open_source(source, options, cache, report) as opened:
        info = driving_info(driving, options)
        talker = cache.talker
        started = time.monotonic()
        image = opened.first_image(talker.image_size)
        if info is not None:
            report.file_warnings.extend(info.warnings)
        engine = Engine(
            talker,
            image,
            cache.state(source, options, lambda: encode_source(talker, image[None])),
            relative=options.motion == "relative",
            adapt_scale=options.adapt_scale,
            strength=options.strength,
            in_float32=None if cache.in_float32 is None else Repetition(cache.in_float32),
            animator=cache.animator,
        )
        side = DrivingSide(driving, info, options, cache, report, progress)
        Rendering(engine, opened, image, side, options, report, progress, told).run()
    report.no_graphs = cache.animator.failure
    report.seconds = time.monotonic() - started
    return report


def model_cache(
    weights: str | Path, device: str, dtype: torch.dtype, motions: Path | None = None, motion_bytes: int = 0
) -> RenderCache:
    """A cache of renders with the model of `cbtalk.load(weights)`; the rest as in `RenderCache`."""
    in_float32 = partial(load, weights, device=device)
    if dtype == torch.float32:
        return RenderCache(in_float32, motions, motion_bytes)
    return RenderCache(partial(load, weights, device=device, dtype=dtype), motions, motion_bytes, in_float32)


def driving_info(driving: Path, options: RenderOptions) -> VideoInfo | None:
    """Of a driving video; None for a motion file. Raises InputError for options that one has nothing for."""
    if driving.suffix.lower() not in MOTION_SUFFIXES:
        return video_info(driving, options.driving.span)
    if options.compare or options.driving.crop or options.driving.follow:
        raise InputError(
            f"{driving}: a motion file has no images to crop, follow or compare with; drive with the video itself"
        )
    return None


@float32_convolutions()
def write_motion(
    driving: Path,
    output: Path,
    options: DrivingOptions | None = None,
    *,
    weights: str | Path = "mini",
    device: str = "cpu",
    progress: bool = False,
) -> Report:
    """Extract the motion of a video into the motion file `output` (.safetensors); errors as in `render_video`."""
    options = options or DrivingOptions()
    check_destination(output, [driving, Path(weights)], MOTION_SUFFIXES)
    info = video_info(driving, options.span)
    talker = load(weights, device=device)
    animator = Animator(talker)
    started = time.monotonic()
    report = Report(output, file_warnings=list(info.warnings))
    view = driving_view(driving, info, options, talker.image_size, report, progress=progress)
    motion = extract_motion(animator, driving, info, view, options, report, progress=progress)
    save_motion(output, smoothed(motion, options.smooth), fingerprint=talker.motion_fingerprint())
    report.no_graphs = animator.failure
    report.frames, report.seconds = motion.frames, time.monotonic() - started
    return report
