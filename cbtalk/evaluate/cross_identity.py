"""Portraits animated by the clips of other people in relative motion: is it still the person of the portrait?"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch

from cbtalk.evaluate.driving_motion import DrivingMotion
from cbtalk.evaluate.faces import FaceStream, Means, Reading, compare
from cbtalk.evaluate.judge import Frame, Judge, batches, resized, to_tensor
from cbtalk.evaluate.same_identity import Show
from cbtalk.media.clips import Clip, clip_rate
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.pictures import to_frames
from cbtalk.model.relative_motion import relative_keypoints
from cbtalk.model.talker import Talker


@torch.inference_mode()
def evaluate_portraits(
    talker: Talker,
    clip: Clip,
    portraits: Mapping[str, Frame],
    judge: Judge,
    shows: Mapping[str, Show],
    *,
    smooth: float = 0.0,
) -> dict[str, Any]:
    """Mean figures of each portrait (S, S, 3), by its name, over the measured frames of a clip (smoothed as there).

    Returns:
        {name: {"measured", "result", "real", "no_face"}}: identity of the results against the portrait, and their
        jitter; identity of the clip's own frames against the portrait (another person's, that is), and their jitter;
        {"source", "result", "real"}: pictures in which each extractor found no face.
    """
    first, others = batches(clip, judge.size, judge.batch_size)
    motion, rate = DrivingMotion(talker, clip, judge, smooth), clip_rate(clip)
    initial = motion.of(range(1), [first])
    pairs = {name: _Pair(talker, portrait, judge, shows.get(name), rate) for name, portrait in portraits.items()}
    real = FaceStream(judge.extractors, rate)
    measured = 0
    for numbers, driving in others:
        seen = [place for place, number in enumerate(numbers) if judge.measured(number)]
        if not seen and not shows:
            continue
        keypoints = motion.of(numbers, driving)
        faces = [real.read(numbers[place], driving[place]) for place in seen]
        measured += len(seen)
        for pair in pairs.values():
            pair.compare_real(faces)
            places = seen if pair.show is None else list(range(len(driving)))
            if places:
                moved = Keypoints(keypoints.value[places], keypoints.jacobian[places])
                pair.animate([numbers[i] for i in places], [driving[i] for i in places], moved, initial)
    return {
        name: {
            "measured": measured,
            "result": {**pair.means["result"].values(), **pair.results.jitter.values()},
            "real": {**pair.means["real"].values(), **real.jitter.values()},
            "no_face": {
                subject: dict(stream.no_face)
                for subject, stream in (("source", pair.source), ("result", pair.results), ("real", real))
            },
        }
        for name, pair in pairs.items()
    }


class _Pair:
    """One portrait driven by one clip, and its figures so far."""

    def __init__(self, talker: Talker, portrait: Frame, judge: Judge, show: Show | None, rate: Fraction) -> None:
        self._talker, self._portrait, self._judge, self.show = talker, portrait, judge, show
        device = next(talker.parameters()).device
        self._state = talker.encode_source(resized(to_tensor([portrait], device), talker.image_size))
        self.source = FaceStream(judge.extractors, rate)
        self._face = self.source.read(0, portrait)
        self.results = FaceStream(judge.extractors, rate)
        self.means = {"result": Means(), "real": Means()}

    def animate(self, numbers: list[int], driving: list[Frame], keypoints: Keypoints, initial: Keypoints) -> None:
        """The portrait in the pose of these frames of the clip, measured and shown."""
        moved = relative_keypoints(self._state.keypoints, keypoints, initial)
        images = to_frames(resized(self._talker.animate_keypoints(self._state, moved), self._judge.size))
        for number, frame, image in zip(numbers, driving, images, strict=True):
            if self._judge.measured(number):
                self._compare("result", self.results.read(number, image))
            if self.show is not None:
                self.show(self._portrait, frame, image)

    def compare_real(self, faces: list[Reading]) -> None:
        """The clip's own faces against the portrait's."""
        for face in faces:
            self._compare("real", face)

    def _compare(self, subject: str, face: Reading) -> None:
        figures = compare(face, self._face, self._judge.extractors)
        # Only identity: the landmarks of two people do not compare.
        identity = {name: value for name, value in figures.items() if name.startswith("identity_")}
        self.means[subject].add(identity)
