"""Portraits animated by the clips of other people in relative motion: is it still the person of the portrait?"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch

from cbtalk.evaluate.driving_motion import DrivingMotion
from cbtalk.evaluate.faces import FaceStream, Means, Reading, compare_identity, compare_motion
from cbtalk.evaluate.judge import Features, Frame, Judge, Show, Vectors, batches, frame_of, resized, to_tensor
from cbtalk.media.clips import Clip, clip_rate
from cbtalk.model.images import to_frames
from cbtalk.model.keypoints import Keypoints
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
    anchor: int = 0,
) -> tuple[dict[str, Any], Vectors]:
    """Mean figures of each portrait (S, S, 3), by its name, over the measured frames of a clip (smoothed as there).

    Args:
        anchor: number of the clip's frame, from 0, whose pose counts as the portrait's.

    Returns:
        {name: {"measured", "result", "real", "no_face"}}: identity of the results against the portrait, pose and
        expression against the clip, and their jitter; identity of the clip's own frames against the portrait (another
        person's, that is), and their jitter; {"source", "result", "real"}: images in which each extractor found no
        face. And the vectors of FID, of "real" and, by the portrait's place, "result_0" and (one) "source_0".
    """
    first, others = batches(clip, judge.size, judge.batch_size)
    motion, rate = DrivingMotion(talker, clip, judge, smooth), clip_rate(clip)
    initial = motion.of(range(anchor, anchor + 1), [frame_of(clip, anchor, judge.size) if anchor else first])
    features, real = Features(judge.inception), FaceStream(judge.extractors, rate)
    pairs = {
        name: _Pair(talker, portrait, judge, shows.get(name), rate, features, place)
        for place, (name, portrait) in enumerate(portraits.items())
    }
    measured = 0
    for numbers, driving in others:
        seen = [place for place, number in enumerate(numbers) if judge.measured(number)]
        if not seen and not shows:
            continue
        keypoints = motion.of(numbers, driving)
        faces = {numbers[place]: real.read(numbers[place], driving[place]) for place in seen}
        features.add("real", [driving[place] for place in seen])
        measured += len(seen)
        for pair in pairs.values():
            pair.compare_real(faces)
            places = seen if pair.show is None else list(range(len(driving)))
            if places:
                moved = Keypoints(keypoints.value[places], keypoints.jacobian[places])
                pair.animate([numbers[i] for i in places], [driving[i] for i in places], moved, initial, faces)
    return {name: {"measured": measured, **pair.figures(real)} for name, pair in pairs.items()}, features.vectors()


class _Pair:
    """One portrait driven by one clip, and its figures so far."""

    def __init__(
        self,
        talker: Talker,
        portrait: Frame,
        judge: Judge,
        show: Show | None,
        rate: Fraction,
        features: Features,
        place: int,
    ) -> None:
        self._talker, self._portrait, self._judge, self.show = talker, portrait, judge, show
        self._features, self._place = features, place
        device = next(talker.parameters()).device
        self._state = talker.encode_source(resized(to_tensor([portrait], device), talker.image_size))
        self._source, self._results = FaceStream(judge.extractors, rate), FaceStream(judge.extractors, rate)
        self._face = self._source.read(0, portrait)
        self._means = {"result": Means(), "real": Means()}
        features.add(f"source_{place}", [portrait])

    def animate(
        self,
        numbers: list[int],
        driving: list[Frame],
        keypoints: Keypoints,
        initial: Keypoints,
        faces: Mapping[int, Reading],
    ) -> None:
        """The portrait in the pose of these frames of the clip, measured and shown; the clip's faces by number."""
        moved = relative_keypoints(self._state.keypoints, keypoints, initial)
        images = to_frames(resized(self._talker.animate_keypoints(self._state, moved), self._judge.size))
        for number, frame, image in zip(numbers, driving, images, strict=True):
            if number in faces:
                face = self._results.read(number, image)
                self._means["result"].add(compare_identity(face, self._face, self._judge.extractors))
                self._means["result"].add(compare_motion(face, faces[number], self._judge.extractors))
            if self.show is not None:
                self.show(self._portrait, frame, image)
        measured = [image for number, image in zip(numbers, images, strict=True) if number in faces]
        self._features.add(f"result_{self._place}", measured)

    def compare_real(self, faces: Mapping[int, Reading]) -> None:
        """The clip's own faces against the portrait's."""
        for face in faces.values():
            self._means["real"].add(compare_identity(face, self._face, self._judge.extractors))

    def figures(self, real: FaceStream) -> dict[str, Any]:
        """As `evaluate_portraits` returns them, given the clip's own faces."""
        streams = {"source": self._source, "result": self._results, "real": real}
        return {
            "result": {**self._means["result"].values(), **self._results.jitter.values()},
            "real": {**self._means["real"].values(), **real.jitter.values()},
            "no_face": {subject: dict(stream.no_face) for subject, stream in streams.items()},
        }
