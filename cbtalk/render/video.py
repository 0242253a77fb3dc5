"""From a portrait and a driving video (or motion file) to an animated portrait; and from a video to a motion file."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cbtalk import ranges
from cbtalk.errors import InputError, WeightsError
from cbtalk.media.audio_track import check_sound
from cbtalk.media.images import read_image
from cbtalk.media.video_reader import VideoInfo
from cbtalk.media.video_writer import FORMATS, VideoWriter
from cbtalk.model.checkpoint import load
from cbtalk.model.keypoints import Keypoints
from cbtalk.precision import float32_convolutions
from cbtalk.render.best_frame import best_frames
from cbtalk.render.compare import side_by_side
from cbtalk.render.destination import check_destination
from cbtalk.render.driving import DrivingFrame, View, at_most, read_driving, video_info
from cbtalk.render.driving_view import driving_view
from cbtalk.render.engine import Engine
from cbtalk.render.extract import batches, extract_motion, stack
from cbtalk.render.framing import source_picture
from cbtalk.render.motion_changes import cut, looped, smoothed
from cbtalk.render.motion_file import Motion, load_motion, save_motion
from cbtalk.render.options import DrivingOptions, RenderOptions
from cbtalk.render.pipeline import run_pipeline
from cbtalk.render.report import Report

VIDEO_SUFFIXES = tuple(FORMATS)
MOTION_SUFFIXES = (".safetensors",)


class Batch(NamedTuple):
    """Driving frames on their way to the engine: pictures, or keypoints that are known already, or both."""

    pts: list[int]
    scenes: list[int]
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
) -> Report:
    """Animate the portrait `source` by `driving`, a video or a motion file, into the video `output`.

    Memory does not depend on the length of the driving video, but for its keypoints where the motion must be known as a
    whole: for its best frame, smoothed, or as a loop. The driving video's time stamps and sound are kept.
    `weights` is a name or file for `cbtalk.load`. Progress goes to standard error where that is a terminal.

    Raises InputError, WeightsError, OutputError or SystemFailure; `output` is then as it was before.
    """
    options = options or RenderOptions()
    sounds = [options.audio] if isinstance(options.audio, Path) else []
    check_destination(output, [source, driving, Path(weights), *sounds], VIDEO_SUFFIXES)
    for sound in sounds:
        check_sound(sound)
    portrait = read_image(source)
    info = None if driving.suffix.lower() in MOTION_SUFFIXES else video_info(driving, options.driving.span)
    if info is None and (options.compare or options.driving.crop or options.driving.follow):
        raise InputError(
            f"{driving}: a motion file has no pictures to crop, follow or compare with; drive with the video itself"
        )
    report = Report(output)
    talker = load(weights, device=device)
    started = time.monotonic()
    picture = source_picture(source, portrait, options, talker.image_size, report)
    view = None
    if info is not None:
        report.file_warnings.extend(info.warnings)
        view = driving_view(driving, info, options.driving, talker.image_size, report, progress=progress)
    engine = Engine(
        talker,
        picture,
        relative=options.motion == "relative",
        adapt_scale=options.adapt_scale,
        strength=options.strength,
    )
    job = _Job(engine, picture, driving, info, view, options, report, progress)
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
    options = options or DrivingOptions()
    check_destination(output, [driving, Path(weights)], MOTION_SUFFIXES)
    info = video_info(driving, options.span)
    talker = load(weights, device=device)
    started = time.monotonic()
    report = Report(output, file_warnings=list(info.warnings))
    view = driving_view(driving, info, options, talker.image_size, report, progress=progress)
    motion = extract_motion(talker, driving, info, view, options, report, progress=progress)
    motion = smoothed(motion, options.smooth)
    save_motion(output, motion, fingerprint=talker.motion_fingerprint())
    report.frames, report.seconds = motion.frames, time.monotonic() - started
    return report


@dataclass
class _Job:
    """One render under way: the driving frames through the engine into the writer."""

    engine: Engine
    picture: NDArray[np.uint8]  # the source as the model sees it, (S, S, 3)
    driving: Path
    info: VideoInfo | None  # None where a motion file drives, and so is the view
    view: View | None
    options: RenderOptions
    report: Report
    progress: bool

    def run(self) -> None:
        motion = self._known_motion()
        if motion is not None and self.options.best_frame:
            # Every output frame depends on its own keypoints and the initial ones alone: rendering forwards and
            # backwards from a scene's best frame is the same as rendering in time order with that frame's keypoints as
            # the initial ones.
            for scene, best in best_frames(self.engine.state.keypoints.value[0].cpu(), motion).items():
                self.engine.start_from(motion[best : best + 1], scene)
        if motion is not None and self.options.loop is not None:
            if not self.options.best_frame:
                self.engine.start_from(motion[:1], motion.scenes_of(slice(1))[0])  # a cross-faded loop begins later
            motion = looped(motion, self.options.loop, self.options.fade)
        size = self.engine.talker.image_size
        timing = self.info or motion
        assert timing is not None
        frames = motion.frames if motion is not None else at_most(timing.frames, self.options.driving.max_frames)
        with (
            VideoWriter(
                self.report.output,
                width=3 * size if self.options.compare else size,
                height=size,
                rate=timing.average_rate,
                time_base=timing.time_base,
                audio_from=self._sound(),
                audio_start=self.options.driving.span.ticks(timing.time_base)[0] * timing.time_base,
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
        talker, options = self.engine.talker, self.options.driving
        if self.info is None:
            fingerprint = talker.motion_fingerprint()
            motion = load_motion(self.driving, fingerprint=fingerprint, num_keypoints=talker.config.keypoints)
            motion = cut(self.driving, motion, options.span).first(options.max_frames)
            for scene, pts in zip(motion.scenes_of(slice(None)), motion.pts.tolist(), strict=True):
                self.report.count_scene(scene, pts * motion.time_base)
        elif self.options.best_frame or self.options.loop is not None or options.smooth:
            assert self.view is not None
            motion = extract_motion(
                talker, self.driving, self.info, self.view, options, self.report, progress=self.progress
            )
        else:
            return None
        return smoothed(motion, options.smooth)

    def _sound(self) -> Path | None:
        """The file whose sound is carried over."""
        if isinstance(self.options.audio, Path):
            return self.options.audio
        carried = self.options.audio == "driving" and self.info is not None and self.info.has_audio
        return self.driving if carried and self.options.loop is None else None

    def _batches(self, motion: Motion | None) -> Generator[Batch, None, None]:
        """The driving frames in groups; the video is read (again) only where its pictures are needed."""
        options = self.options.driving
        count = options.batch_size
        if motion is not None and not self.options.compare:
            for start in range(0, motion.frames, count):
                rows = slice(start, start + count)
                yield Batch(motion.pts[rows].tolist(), motion.scenes_of(rows), [], motion[rows], motion.last_duration)
            return
        assert self.view is not None
        done = 0
        with closing(read_driving(self.driving, self.view, options.max_frames, options.span)) as frames:
            for group in batches(frames, count):
                rows = slice(done, done + len(group))
                keypoints = None if motion is None else motion[rows]
                scenes = [frame.scene for frame in group] if motion is None else motion.scenes_of(rows)
                yield Batch([frame.pts for frame in group], scenes, group, keypoints, group[-1].duration)
                done += len(group)

    def _animate(self, batch: Batch) -> Picture:
        keypoints = batch.keypoints
        if keypoints is None:
            keypoints = self.engine.detect(stack(batch.frames))
            self.report.count(batch.frames)
        images, held = self.engine.render(keypoints, batch.scenes)
        self.report.not_finite += held
        if self.options.compare:
            images = side_by_side(self.picture, stack(batch.frames), images)
        return Picture(images, batch.pts, batch.duration)
