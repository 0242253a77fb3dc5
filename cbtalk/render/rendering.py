"""One render under way: the driving frames through the engine into the writer."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cbtalk import ranges
from cbtalk.errors import InputError, WeightsError
from cbtalk.media.video_writer import VideoWriter
from cbtalk.render.best_frame import best_frames
from cbtalk.render.compare import side_by_side
from cbtalk.render.driving_side import DrivingBatch, DrivingSide
from cbtalk.render.engine import Engine, Submitted
from cbtalk.render.extract import stack
from cbtalk.render.motion_changes import looped
from cbtalk.render.options import RenderOptions
from cbtalk.render.output import Output, output_of
from cbtalk.render.pipeline import run_pipeline
from cbtalk.render.report import Report
from cbtalk.render.source import Source
from cbtalk.render.source_video import SourceVideo


class Animated(NamedTuple):
    """A batch that the engine has begun, on its way to the encoder."""

    batch: DrivingBatch
    submitted: Submitted
    image: NDArray[np.uint8]  # the sources as the model sees them, (S, S, 3) or (B, S, S, 3)


@dataclass
class Rendering:
    """A render; `run` writes the video. image: the source as the model sees it, (S, S, 3), the first of a video.

    told: called with the frames that are written and those to be expected; what it raises ends the render.
    """

    engine: Engine
    source: Source
    image: NDArray[np.uint8]
    driving: DrivingSide
    options: RenderOptions
    report: Report
    progress: bool
    told: Callable[[int, int | None], None] | None = None

    def run(self) -> None:
        """Every frame, from the first to the last."""
        self._begin()
        timing = self.driving.timing

        output = output_of(self.source, self.image, self.engine, self.options, self.report)
        with (
            VideoWriter(
                self.report.output,
                width=output.width,
                height=output.height,
                rate=timing.average_rate,
                time_base=timing.time_base,
                audio_from=self._sound(),
                audio_start=self.options.driving.span.ticks(timing.time_base)[0] * timing.time_base,
                surroundings=output.surroundings,
                encoder=self.options.encoder,
            ) as writer,
            tqdm(
                desc="render", total=self.driving.frames, unit="frame", disable=None if self.progress else True
            ) as bar,
        ):

            def encode(animated: Animated) -> None:
                batch, images = animated.batch, self._finished(animated)
                with ranges.range("encode"):
                    results = output.finish(images, batch.sources)
                    for result, pts in zip(results, batch.pts, strict=True):
                        writer.write(result, pts, batch.duration)
                self.report.frames += len(batch.pts)
                bar.update(len(batch.pts))
                if self.told is not None:
                    self.told(self.report.frames, self.driving.frames)

            incoming = self.driving.batches()
            if self.source.video is not None:
                incoming = _with_sources(incoming, self.source.video, timing.time_base)
            run_pipeline(incoming, lambda batch: self._animate(batch, output), encode)
            if not self.engine.rendered_any:
                raise WeightsError("no image that the model made is finite: its weights are damaged")

    def _begin(self) -> None:
        """Settle from where relative motion is measured, and let it loop."""
        motion = self.driving.motion
        if motion is None:
            return
        if self.options.best_frame:
            # Every output frame depends on its own keypoints and the initial ones alone: rendering forwards and
            # backwards from a scene's best frame is the same as rendering in time order with that frame's keypoints as
            # the initial ones.
            for scene, best in best_frames(self.engine.state.keypoints.value[0].cpu(), motion).items():
                self.engine.start_from(motion[best : best + 1], scene)
        if self.options.loop is not None:
            if not self.options.best_frame:
                self.engine.start_from(motion[:1], motion.scenes_of(slice(1))[0])  # a cross-faded loop begins later
            self.driving.motion = looped(motion, self.options.loop, self.options.fade)

    def _sound(self) -> Path | None:
        """The file whose sound is carried over."""
        if isinstance(self.options.audio, Path):
            return self.options.audio
        info = self.driving.info
        carried = self.options.audio == "driving" and info is not None and info.has_audio
        return self.driving.path if carried and self.options.loop is None else None

    def _animate(self, batch: DrivingBatch, output: Output) -> Animated:
        """Begin a batch: on a GPU, the one before may still be under way."""
        keypoints = batch.keypoints
        image = self.image
        if batch.sources:
            image = self.source.images(batch.sources, self.engine.talker.image_size)
            self.engine.take_sources(image)
            output.meet(batch.sources, image)
        if keypoints is None:
            keypoints = self.engine.detect(stack(batch.frames))
            self.report.count(batch.frames)
        return Animated(batch, self.engine.submit(keypoints, batch.scenes), image)

    def _finished(self, animated: Animated) -> NDArray[np.uint8]:
        """The images of a batch (B, S, W, 3), waited for in the encoder's thread."""
        images, held, repeated = self.engine.finish(animated.submitted)
        self.report.not_finite += held
        self.report.repeated += repeated
        if self.options.compare:
            return side_by_side(animated.image, stack(animated.batch.frames), images)
        return images


def _with_sources(
    incoming: Generator[DrivingBatch, None, None], video: SourceVideo, time_base: Fraction
) -> Generator[DrivingBatch, None, None]:
    """The same with what the source video shows at their times, up to its end; InputError where that comes first."""
    first = True
    with closing(incoming):
        for batch in incoming:
            shown = (video.at(pts * time_base) for pts in batch.pts)
            sources = [frame for frame in takewhile(lambda frame: frame is not None, shown) if frame is not None]
            if sources:
                yield batch.first(len(sources))._replace(sources=sources)
            elif first:
                raise InputError(f"{video.path}: ends before the driving video begins; there is nothing to animate")
            first = False
            if len(sources) < len(batch.pts):
                return
