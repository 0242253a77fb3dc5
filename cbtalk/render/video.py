"""From a portrait and a driving video (or motion file) to an animated portrait; and from a video to a motion file."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cbtalk import ranges
from cbtalk.errors import InputError, WeightsError
from cbtalk.media.video_reader import VideoInfo
from cbtalk.media.video_writer import FORMATS, VideoWriter
from cbtalk.model.checkpoint import load
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import Talker
from cbtalk.precision import float32_convolutions
from cbtalk.render.best_frame import best_frame
from cbtalk.render.compare import side_by_side
from cbtalk.render.destination import check_destination
from cbtalk.render.driving import DrivingFrame, at_most, read_driving, video_info
from cbtalk.render.engine import Engine
from cbtalk.render.extract import batches, extract_motion, stack
from cbtalk.render.framing import with_crop
from cbtalk.render.known import Known
from cbtalk.render.motion_file import Motion, load_motion, save_motion
from cbtalk.render.options import DrivingOptions, RenderOptions
from cbtalk.render.pipeline import run_pipeline
from cbtalk.render.report import Report

VIDEO_SUFFIXES = tuple(FORMATS)
MOTION_SUFFIXES = (".safetensors",)


class Batch(NamedTuple):
    """Driving frames on their way to the engine: pictures, or keypoints that are known already, or both."""

    pts: list[int]
    frames: list[DrivingFrame]  # empty where the pictures are not needed
    keypoints: Keypoints | None
    duration: int | None  # ticks for which the last of them is shown if nothing follows


class Picture(NamedTuple):
    """Finished frames on their way to the encoder: images (B, S, W, 3) uint8."""

    images: NDArray[np.uint8]
    pts: list[int]
    duration: int | None  # as in Batch


@float32_convolutions()
def render_video(
    source: Path,
    driving: Path,
    output: Path,
    options: RenderOptions | None = None,
    *,
    weights: str | Path = "mini",
    device: str = "cpu",
    progress: bool = False,
    known: Known | None = None,
) -> Report:
    """Animate the portrait `source` by `driving`, a video or a motion file, into the video `output`.

    Memory does not depend on the length of the driving video. The driving video's time stamps and sound are kept.
    `weights` is a name or file for `cbtalk.load`; `known`, where given, has the model, and what it keeps is not worked
    out again. Progress goes to standard error where that is a terminal.

    Raises InputError, WeightsError, OutputError or SystemFailure; `output` is then as it was before.
    """
    options = options or RenderOptions()
    check_destination(output, [source, driving, Path(weights)], VIDEO_SUFFIXES)
    info = None if driving.suffix.lower() in MOTION_SUFFIXES else video_info(driving)
    if info is None and (options.compare or options.driving.crop):
        raise InputError(
            f"{driving}: a motion file has no pictures to crop or to compare with; drive with the video itself"
        )
    report = Report(output)
    known = known or Known(partial(load, weights, device=device))
    portrait = known.portrait(source, options, report)
    started = time.monotonic()
    motion = None
    if info is not None:
        report.file_warnings.extend(info.warnings)
        if not options.compare:
            extract = partial(_extract, known.talker, driving, info, options.driving)
            motion = known.motion(driving, options.driving, report, extract)
        if motion is None:
            options = replace(options, driving=with_crop(driving, options.driving, report))
    relative = options.motion == "relative"
    engine = Engine(
        known.talker, portrait.picture, relative=relative, adapt_scale=options.adapt_scale, state=portrait.state
    )
    job = _Job(engine, portrait.picture, driving, info, options, report, progress, motion)
    job.run()
    job.report.seconds = time.monotonic() - started
    return job.report


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
    check_destination(output, [driving, Path(weights)], MOTION_SUFFIXES)
    info = video_info(driving)
    talker = load(weights, device=device)
    started = time.monotonic()
    report = Report(output, file_warnings=list(info.warnings))
    motion = _extract(talker, driving, info, options or DrivingOptions(), report, progress=progress)
    save_motion(output, motion, fingerprint=talker.motion_fingerprint())
    report.frames, report.seconds = motion.frames, time.monotonic() - started
    return report


def _extract(
    talker: Talker, driving: Path, info: VideoInfo, options: DrivingOptions, report: Report, *, progress: bool = False
) -> Motion:
    """The motion of a video, in the square that is given or that of a face."""
    return extract_motion(talker, driving, info, with_crop(driving, options, report), report, progress=progress)


@dataclass
class _Job:
    """One render under way: the driving frames through the engine into the writer."""

    engine: Engine
    picture: NDArray[np.uint8]  # the source as the model sees it, (S, S, 3)
    driving: Path
    info: VideoInfo | None  # None where a motion file drives
    options: RenderOptions
    report: Report
    progress: bool
    motion: Motion | None = None  # of the driving video, where it is known already

    def run(self) -> None:
        motion = self.motion or self._known_motion()
        if motion is not None and self.options.best_frame:
            # Every output frame depends on its own keypoints and the initial ones alone: rendering forwards and
            # backwards from the best frame is the same as rendering in time order with that frame's keypoints as the
            # initial ones.
            best = best_frame(self.engine.state.keypoints.value[0].cpu(), motion.keypoints.value)
            self.engine.start_from(motion[best : best + 1])
        size = self.engine.talker.image_size
        timing = self.info or motion
        assert timing is not None
        frames = at_most(timing.frames, self.options.driving.max_frames)
        with (
            VideoWriter(
                self.report.output,
                width=3 * size if self.options.compare else size,
                height=size,
                rate=timing.average_rate,
                time_base=timing.time_base,
                audio_from=self.driving if self.info and self.info.has_audio else None,
            ) as writer,
            tqdm(desc="render", total=frames, unit="frame", disable=None if self.progress else True) as bar,
        ):

            def encode(picture: Picture) -> None:
                with ranges.range("encode"):
                    for image, pts in zip(picture.images, picture.pts, strict=True):
                        writer.write(image, pts, picture.duration)
                self.report.frames += len(picture.pts)
                bar.update(len(picture.pts))

            run_pipeline(self._batches(motion), self._animate, encode)
            if not self.engine.rendered_any:
                raise WeightsError("no picture that the model made is finite: its weights are damaged")

    def _known_motion(self) -> Motion | None:
        """The motion where it is needed as a whole before the first frame is rendered, or is there already."""
        talker, limit = self.engine.talker, self.options.driving.max_frames
        if self.info is None:
            fingerprint = talker.motion_fingerprint()
            return load_motion(self.driving, fingerprint=fingerprint, num_keypoints=talker.config.keypoints).first(
                limit
            )
        if self.options.best_frame:
            options = self.options.driving
            return extract_motion(talker, self.driving, self.info, options, self.report, progress=self.progress)
        return None

    def _batches(self, motion: Motion | None) -> Generator[Batch, None, None]:
        """The driving frames in groups; the video is read (again) only where its pictures are needed."""
        options = self.options.driving
        count = options.batch_size
        if motion is not None and not self.options.compare:
            for start in range(0, motion.frames, count):
                rows = slice(start, start + count)
                yield Batch(motion.pts[rows].tolist(), [], motion[rows], motion.last_duration)
            return
        done = 0
        with closing(read_driving(self.driving, options, self.engine.talker.image_size)) as frames:
            for group in batches(frames, count):
                keypoints = None if motion is None else motion[done : done + len(group)]
                yield Batch([frame.pts for frame in group], group, keypoints, group[-1].duration)
                done += len(group)

    def _animate(self, batch: Batch) -> Picture:
        keypoints = batch.keypoints
        if keypoints is None:
            keypoints = self.engine.detect(stack(batch.frames))
            self.report.count_held(batch.frames)
        images, held = self.engine.render(keypoints)
        self.report.not_finite += held
        if self.options.compare:
            images = side_by_side(self.picture, stack(batch.frames), images)
        return Picture(images, batch.pts, batch.duration)
