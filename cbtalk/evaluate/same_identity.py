"""Each clip's first frame, animated by the rest of the clip in absolute motion, against the clip itself."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from cbtalk.evaluate.driving_motion import DrivingMotion
from cbtalk.evaluate.expression import Expression
from cbtalk.evaluate.faces import FaceStream, Means, compare
from cbtalk.evaluate.judge import Features, Frame, Judge, Show, Vectors, batches, resized, to_tensor
from cbtalk.media.clips import Clip, clip_rate
from cbtalk.metrics.images import METRICS
from cbtalk.metrics.metric import Metric
from cbtalk.model.images import to_frames
from cbtalk.model.talker import Talker


@torch.inference_mode()
def evaluate_clip(
    talker: Talker, clip: Clip, judge: Judge, show: Show | None = None, *, smooth: float = 0.0
) -> tuple[dict[str, Any], Vectors]:
    """Mean figures over the second to the last frame of a clip, whose motion is smoothed with this time constant.

    Returns:
        {"frames", "measured", "result", "repeat", "real", "no_face"}: frames there are, and those that LPIPS, FID and
        the extractors saw; figures of the talker's images, and of the source repeated, both against the clip's;
        openings and jitter of the clip's own; {"source", "result", "real"}: images in which each extractor found no
        face. And the vectors of FID, of "result_0", "real" and (one) "source_0".
    """
    device = next(talker.parameters()).device
    first, others = batches(clip, judge.size, judge.batch_size)
    source = to_tensor([first], device)
    state = talker.encode_source(resized(source, talker.image_size))
    motion = DrivingMotion(talker, clip, judge, smooth)
    comparison = _Comparison(judge, first, source, clip_rate(clip))
    for numbers, driving in others:
        result = resized(talker.animate_keypoints(state, motion.of(numbers, driving)), judge.size)
        images = comparison.add(numbers, driving, result)
        if show is not None:
            for frame, image in zip(driving, images, strict=True):
                show(first, frame, image)
    return comparison.figures(), comparison.features.vectors()


class _Comparison:
    """Figures so far of a clip's results, and of its first frame repeated, against the clip."""

    def __init__(self, judge: Judge, first: Frame, source: Tensor, rate: Fraction) -> None:
        self._judge = judge
        self._frames = self._measured = 0
        self._means = {"result": Means(), "repeat": Means()}
        self._streams = {subject: FaceStream(judge.extractors, rate) for subject in ("source", "result", "real")}
        self._expression = Expression(judge.extractors)
        self._source_features = {name: metric.features(source) for name, metric in (METRICS | judge.lpips).items()}
        self._source_face = self._streams["source"].read(0, first)
        self.features = Features(judge.inception)
        self.features.add("source_0", [first])

    def add(self, numbers: range, driving: list[Frame], result: Tensor) -> list[Frame]:
        """More frames of the clip, and the talker's images (B, 3, S, S); returns these as frames."""
        target = to_tensor(driving, result.device)
        self._add_metrics(METRICS, result, target)
        images = list(to_frames(result))
        seen = [place for place, number in enumerate(numbers) if self._judge.measured(number)]
        if seen:
            self._add_metrics(self._judge.lpips, result[seen], target[seen])
        self.features.add("real", [driving[place] for place in seen])
        self.features.add("result_0", [images[place] for place in seen])
        for place in seen:
            self._add_face(numbers[place], driving[place], images[place])
        self._frames, self._measured = self._frames + len(driving), self._measured + len(seen)
        return images

    def _add_metrics(self, metrics: Mapping[str, Metric], result: Tensor, target: Tensor) -> None:
        for name, metric in metrics.items():
            wanted = metric.features(target)
            _add_each(self._means["result"], name, metric.compare(metric.features(result), wanted))
            _add_each(self._means["repeat"], name, metric.compare(self._source_features[name], wanted))

    def _add_face(self, number: int, driving: Frame, image: Frame) -> None:
        extractors = self._judge.extractors
        real, face = self._streams["real"].read(number, driving), self._streams["result"].read(number, image)
        self._expression.add(face, real)
        self._means["result"].add(compare(face, real, extractors))
        self._means["repeat"].add(compare(self._source_face, real, extractors))

    def figures(self) -> dict[str, Any]:
        """As `evaluate_clip` returns them."""
        streams, expression = self._streams, self._expression
        result = self._means["result"].values()
        return {
            "frames": self._frames,
            "measured": self._measured,
            "result": {**result, **expression.of_result(), **streams["result"].jitter.values()},
            "repeat": self._means["repeat"].values(),
            "real": {**expression.of_real(), **streams["real"].jitter.values()},
            "no_face": {subject: dict(stream.no_face) for subject, stream in streams.items()},
        }


def _add_each(means: Means, name: str, values: Tensor) -> None:
    """The figure (B,) of several images."""
    for value in values.tolist():
        means.add({name: value})
