"""The driving side of a render: its frames in batches, and its motion where that is known as a whole."""

from collections.abc import Generator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from cbtalk.media.video_reader import VideoInfo
from cbtalk.model.keypoints import Keypoints
from cbtalk.render.cache import RenderCache
from cbtalk.render.driving import DrivingFrame, View, at_most, read_driving
from cbtalk.render.driving_view import driving_view
from cbtalk.render.extract import batches, extract_motion
from cbtalk.render.motion_changes import cut, smoothed
from cbtalk.render.motion_file import Motion, load_motion
from cbtalk.render.options import RenderOptions
from cbtalk.render.report import Report
from cbtalk.render.source_video import SourceFrame


class DrivingBatch(NamedTuple):
    """Driving frames on their way to the engine: images, or keypoints that are known already, or both."""

    pts: list[int]
    scenes: list[int]
    frames: list[DrivingFrame]  # empty where the images are not needed
    keypoints: Keypoints | None
    duration: int | None  # ticks for which the last of them is shown if nothing follows
    sources: Sequence[SourceFrame] = ()  # where a video is the source, its image for each frame

    def first(self, count: int) -> "DrivingBatch":
        """The first frames of it."""
        if count == len(self.pts):
            return self
        keypoints = None if self.keypoints is None else Keypoints(*(part[:count] for part in self.keypoints))
        return DrivingBatch(
            self.pts[:count], self.scenes[:count], self.frames[:count], keypoints, None, self.sources[:count]
        )


class DrivingSide:
    """A driving video, or a motion file, which has no `info`.

    motion: of all its frames, where the options need it, a file has it, or `cache` keeps motions; None where it is
    found on the way. What is chosen, cut or held goes into `report`.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo | None,
        options: RenderOptions,
        cache: RenderCache,
        report: Report,
        progress: bool,
    ) -> None:
        self.path, self.info, self.report = path, info, report
        self._cache, self._options, self._progress = cache, options, progress
        self.motion = self._whole_motion()

    @property
    def timing(self) -> VideoInfo | Motion:
        """The video's header or the motion, which know the time base and the average rate."""
        timing = self.info or self.motion
        assert timing is not None
        return timing

    @property
    def frames(self) -> int | None:
        """The number of frames to expect, None where nothing tells it."""
        if self.motion is not None:
            return self.motion.frames
        return at_most(self.timing.frames, self._options.driving.max_frames)

    def batches(self) -> Generator[DrivingBatch, None, None]:
        """The frames in groups; the video is read (again) only where its images are needed."""
        options, motion = self._options.driving, self.motion
        count = options.batch_size
        if motion is not None and not self._options.compare:
            for start in range(0, motion.frames, count):
                rows = slice(start, start + count)
                yield DrivingBatch(
                    motion.pts[rows].tolist(), motion.scenes_of(rows), [], motion[rows], motion.last_duration
                )
            return
        done = 0
        with closing(read_driving(self.path, self._view, options.max_frames, options.span)) as frames:
            for group in batches(frames, count):
                rows = slice(done, done + len(group))
                keypoints = None if motion is None else motion[rows]
                scenes = [frame.scene for frame in group] if motion is None else motion.scenes_of(rows)
                yield DrivingBatch([frame.pts for frame in group], scenes, group, keypoints, group[-1].duration)
                done += len(group)

    @cached_property
    def _view(self) -> View:
        return self._look(self.report)

    def _look(self, report: Report) -> View:
        assert self.info is not None
        size = self._cache.talker.image_size
        return driving_view(self.path, self.info, self._options.driving, size, report, progress=self._progress)

    def _whole_motion(self) -> Motion | None:
        options = self._options.driving
        needed = self._options.best_frame or self._options.loop is not None or options.smooth > 0
        if self.info is None:
            motion = cut(self.path, self._load(), options.span).first(options.max_frames)
            self.report.count_scenes(motion)
        elif self._options.compare:
            if not needed:
                return None
            motion = self._extract(self._view, self.report)
        elif needed or self._cache.keeps_motions:
            motion = self._cache.motion(
                self.path, options, self.report, lambda report: self._extract(self._look(report), report)
            )
        else:
            return None
        return smoothed(motion, options.smooth)

    def _load(self) -> Motion:
        talker = self._cache.talker
        return load_motion(self.path, fingerprint=talker.motion_fingerprint(), num_keypoints=talker.config.keypoints)

    def _extract(self, view: View, report: Report) -> Motion:
        assert self.info is not None
        options, animator = self._options.driving, self._cache.animator
        return extract_motion(animator, self.path, self.info, view, options, report, progress=self._progress)
