"""The motion of a clip as it drives a talker: each frame's own, or smoothed over time."""

import torch

from cbtalk.evaluate.judge import Frame, Judge, batches, resized, to_tensor
from cbtalk.media.clips import Clip, clip_rate
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.smooth import smooth
from cbtalk.model.talker import Talker


class DrivingMotion:
    """The keypoints of a clip's frames, by their numbers from 0.

    Where they are smoothed, the clip is read once more before, and they alone are kept; its frames count as evenly
    spaced at its average rate.
    """

    def __init__(self, talker: Talker, clip: Clip, judge: Judge, smooth_seconds: float) -> None:
        self._talker = talker
        self._device = next(talker.parameters()).device
        self._smoothed: Keypoints | None = None
        if smooth_seconds:
            first, others = batches(clip, judge.size, judge.batch_size)
            parts = [self._detect([first]), *(self._detect(frames) for _, frames in others)]
            keypoints = Keypoints(*(torch.cat(part) for part in zip(*parts, strict=True)))
            times = torch.arange(len(keypoints.value)).double() / float(clip_rate(clip))
            self._smoothed = smooth(keypoints, times, smooth_seconds)

    def of(self, numbers: range, frames: list[Frame]) -> Keypoints:
        """The keypoints of these frames in a row, given their images."""
        if self._smoothed is None:
            return self._detect(frames)
        return Keypoints(*(part[numbers.start : numbers.stop] for part in self._smoothed))

    def _detect(self, frames: list[Frame]) -> Keypoints:
        return self._talker.keypoints(resized(to_tensor(frames, self._device), self._talker.image_size))
