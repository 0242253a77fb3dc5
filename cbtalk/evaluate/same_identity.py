"""Each clip's first frame, animated by the rest of the clip in absolute motion, against the clip itself."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from cbtalk.evaluate.driving_motion import DrivingMotion
from cbtalk.evaluate.expression import Expression
from cbtalk.evaluate.faces import FaceStream, Means, compare
from cbtalk.evaluate.judge import METRICS, Frame, Judge, batches, resized, to_tensor
from cbtalk.media.clips import Clip, clip_rate
from cbtalk.model.pictures import to_frames
from cbtalk.model.talker import Talker

Show = Callable[[Frame, Frame, Frame], None]  # source, driving, result: (S, S, 3)


@torch.inference_mode()
def evaluate_clip(
    talker: Talker, clip: Clip, judge: Judge, show: Show | None = None, *, smooth: float = 0.0
) -> dict[str, Any]:
    """Mean figures over the second to the last frame of a clip, whose motion is smoothed with this time constant.

    Returns:
        {"frames", "measured", "result", "repeat", "real", "no_face"}: frames there are, and those that LPIPS and the
        extractors saw; figures of the talker's pictures, and of the source repeated, both against the clip's; openings
        and jitter of the clip's own; {"source", "result", "real"}: pictures in which each extractor found no face.
    """
    device = next(talker.parameters()).device
    first, others = batches(clip, judge.size, judge.batch_size)
    source = to_tensor([first], device)
    state = talker.encode_source(resized(source, talker.image_size))
    source_features = {name: lpips.features(source) for name, lpips in judge.lpips.items()}
    means = {"result": Means(), "repeat": Means()}
    motion, rate = DrivingMotion(talker, clip, judge, smooth), clip_rate(clip)
    streams = {subject: FaceStream(judge.extractors, rate) for subject in ("source", "result", "real")}
    expression = Expression(judge.extractors)
    source_face = streams["source"].read(0, first)
    frames = measured = 0
    for numbers, driving in others:
        target = to_tensor(driving, device)
        result = resized(talker.animate_keypoints(state, motion.of(numbers, driving)), judge.size)
        seen = [place for place, number in enumerate(numbers) if judge.measured(number)]
        _add_each(means["result"], {name: metric(result, target) for name, metric in METRICS.items()})
        _add_each(means["repeat"], {name: metric(source.expand_as(target), target) for name, metric in METRICS.items()})
        for name, lpips in judge.lpips.items() if seen else ():
            wanted = lpips.features(target[seen])
            _add_each(means["result"], {name: lpips.distance(lpips.features(result[seen]), wanted)})
            _add_each(means["repeat"], {name: lpips.distance(source_features[name], wanted)})
        images = to_frames(result)
        for place in seen:
            real = streams["real"].read(numbers[place], driving[place])
            face = streams["result"].read(numbers[place], images[place])
            expression.add(face, real)
            means["result"].add(compare(face, real, judge.extractors))
            means["repeat"].add(compare(source_face, real, judge.extractors))
        if show is not None:
            for frame, image in zip(driving, images, strict=True):
                show(first, frame, image)
        frames, measured = frames + len(driving), measured + len(seen)
    return {
        "frames": frames,
        "measured": measured,
        "result": {**means["result"].values(), **expression.of_result(), **streams["result"].jitter.values()},
        "repeat": means["repeat"].values(),
        "real": {**expression.of_real(), **streams["real"].jitter.values()},
        "no_face": {subject: dict(stream.no_face) for subject, stream in streams.items()},
    }


def _add_each(means: Means, figures: Mapping[str, Tensor]) -> None:
    """The figures (B,) of several pictures."""
    for name, values in figures.items():
        for value in values.tolist():
            means.add({name: value})
