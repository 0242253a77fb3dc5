"""From a portrait and a driving video (or motion file) to an animated portrait; and from a video to a motion file."""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import takewhile
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
from cbtalk.precision import float32_convolutions
from cbtalk.render.best_frame import best_frame
from cbtalk.render.compare import side_by_side
from cbtalk.render.destination import check_destination
from cbtalk.render.driving import DrivingFrame, at_most, read_driving, video_info
from cbtalk.render.engine import Engine
from cbtalk.render.extract import batches, extract_motion, stack
from cbtalk.render.framing import with_crop
from cbtalk.render.motion_file import Motion, load_motion, save_motion
from cbtalk.render.options import DrivingOptions, RenderOptions
from cbtalk.render.output import output_of
from cbtalk.render.pipeline import run_pipeline
from cbtalk.render.report import Report
from cbtalk.render.source import Source, open_source
from cbtalk.render.source_video import SourceVideo

VIDEO_SUFFIXES = tuple(FORMATS)
MOTION_SUFFIXES = (".safetensors",)


class Batch(NamedTuple):
    """Driving frames on their way to the engine: pictures, or keypoints that are known already, or both."""

    pts: list[int]
    frames: list[DrivingFrame]  # empty where the pictures are not needed
    keypoints: Keypoints | None
    duration: int | None  # ticks for which the last of them is shown if nothing follows
    sources: Sequence[NDArray[np.uint8]] = ()  # (H, W, 3): where a video is the source, its image for each frame

    def first(self, count: int) -> "Batch":
        """The first frames of it."""
        if count == len(self.pts):
            return self
        keypoints = None if self.keypoints is None else Keypoints(*(part[:count] for part in self.keypoints))
        return Batch(self.pts[:count], self.frames[:count], keypoints, None, self.sources[:count])


class Picture(NamedTuple):
    """Finished frames on their way to the encoder: images (B, S, W, 3) uint8."""

    images: NDArray[np.uint8]
    pts: list[int]
    duration: int | None  # as in Batch
    sources: Sequence[NDArray[np.uint8]]  # as in Batch


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

    `source` is a picture, or a video of which every frame is animated at its own time; the output ends with the
    shorter of the two videos. Memory does not depend on the length of the videos. The driving video's time stamps and
    sound are kept. `weights` is a name or file for `cbtalk.load`. Progress goes to standard error where that is a
    terminal.

    Raises InputError, WeightsError, OutputError or SystemFailure; `output` is then as it was before.
    """
    options = options or RenderOptions()
    check_destination(output, [source, driving, Path(weights)], VIDEO_SUFFIXES)
    report = Report(output)
    with open_source(source, options, report) as opened:
        info = None if driving.suffix.lower() in MOTION_SUFFIXES else video_info(driving)
        if info is None and (options.compare or options.driving.crop):
            raise InputError(
                f"{driving}: a motion file has no pictures to crop or to compare with; drive with the video itself"
            )
        talker = load(weights, device=device)
        started = time.monotonic()
        [picture] = opened.pictures([opened.image], talker.image_size)
        if info is not None:
            report.file_warnings.extend(info.warnings)
            options = replace(options, driving=with_crop(driving, options.driving, report))
        engine = Engine(talker, picture, relative=options.motion == "relative", adapt_scale=options.adapt_scale)
        _Job(engine, opened, picture, driving, info, options, report, progress).run()
    report.seconds = time.monotonic() - started
    return report


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
    options = with_crop(driving, options or DrivingOptions(), report)
    motion = extract_motion(talker, driving, info, options, report, progress=progress)
    save_motion(output, motion, fingerprint=talker.motion_fingerprint())
    report.frames, report.seconds = motion.frames, time.monotonic() - started
    return report


@dataclass
class _Job:
    """One render under way: the driving frames through the engine into the writer."""

    engine: Engine
    source: Source
    picture: NDArray[np.uint8]  # the source as the model sees it, (S, S, 3); the first of a video
    driving: Path
    info: VideoInfo | None  # None where a motion file drives
    options: RenderOptions
    report: Report
    progress: bool

    def run(self) -> None:
        motion = self._known_motion()
        if motion is not None and self.options.best_frame:
            # Every output frame depends on its own keypoints and the initial ones alone: rendering forwards and
            # backwards from the best frame is the same as rendering in time order with that frame's keypoints as the
            # initial ones.
            best = best_frame(self.engine.state.keypoints.value[0].cpu(), motion.keypoints.value)
            self.engine.start_from(motion[best : best + 1])
        timing = self.info or motion
        assert timing is not None
        output = output_of(self.source, self.engine, self.options, self.report)
        frames = at_most(timing.frames, self.options.driving.max_frames)
        with (
            VideoWriter(
                self.report.output,
                width=output.width,
                height=output.height,
                rate=timing.average_rate,
                time_base=timing.time_base,
                audio_from=self.driving if self.info and self.info.has_audio else None,
                surroundings=output.surroundings,
            ) as writer,
            tqdm(desc="render", total=frames, unit="frame", disable=None if self.progress else True) as bar,
        ):

            def encode(picture: Picture) -> None:
                with ranges.range("encode"):
                    images = output.finish(picture.images, picture.sources)
                    for image, pts in zip(images, picture.pts, strict=True):
                        writer.write(image, pts, picture.duration)
                self.report.frames += len(picture.pts)
                bar.update(len(picture.pts))

            incoming = self._batches(motion)
            if self.source.video is not None:
                incoming = _with_sources(incoming, self.source.video, timing.time_base)
            run_pipeline(incoming, self._animate, encode)
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
        picture = self.picture
        if batch.sources:
            picture = self.source.pictures(batch.sources, self.engine.talker.image_size)
            self.engine.take_sources(picture)
        if keypoints is None:
            keypoints = self.engine.detect(stack(batch.frames))
            self.report.count_held(batch.frames)
        images, held = self.engine.render(keypoints)
        self.report.not_finite += held
        if self.options.compare:
            images = side_by_side(picture, stack(batch.frames), images)
        return Picture(images, batch.pts, batch.duration, batch.sources)


def _with_sources(
    incoming: Generator[Batch, None, None], video: SourceVideo, time_base: Fraction
) -> Generator[Batch, None, None]:
    """The same with what the source video shows at their times, up to its end; InputError where that comes first."""
    first = True
    with closing(incoming):
        for batch in incoming:
            shown = (video.at(pts * time_base) for pts in batch.pts)
            sources = [image for image in takewhile(lambda image: image is not None, shown) if image is not None]
            if sources:
                yield batch.first(len(sources))._replace(sources=sources)
            elif first:
                raise InputError(f"{video.path}: ends before the driving video begins; there is nothing to animate")
            first = False
            if len(sources) < len(batch.pts):
                return
