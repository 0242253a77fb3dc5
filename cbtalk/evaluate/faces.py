"""Figures of faces in sequences of images: where their points are, how they shake, and whose they are."""

from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cbtalk.evaluate.extractors import Extractors
from cbtalk.faces.euler import angle_distance
from cbtalk.faces.similarity import laid_over

IMAGE_SIZE = 256  # extractors see every image at this height and width, whatever size images are compared at
JITTER_RATE = Fraction(25)  # frames a second at which jitter is given

Found = dict[str, NDArray[np.floating] | None]  # by the extractor's name; None where it found no face


class Reading(NamedTuple):
    """The findings of the extractors in one image."""

    landmarks: Found  # (P, 2) in pixels of an image of 256 x 256
    identity: Found  # (D,)
    pose: Found  # (3,) degrees
    expression: Found  # (D,)


class Means:
    """Running means by name: the memory they take does not grow."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: Counter[str] = Counter()

    def add(self, figures: Mapping[str, float]) -> None:
        """One more value of each of these."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
            self._counts[name] += 1

    def values(self) -> dict[str, float]:
        """The means of all that were added."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}


class FaceStream:
    """A sequence of images, `rate` a second, through the extractors, frame after frame.

    jitter: `jitter_<extractor>`, the mean length of the second difference of the landmarks, over all three frames in a
    row in which a face is found, in pixels of an image of 256 x 256. At other rates than 25 frames a second it is
    multiplied by the square of rate / 25, so that the same motion counts the same. no_face: images in which each
    extractor found none.
    """

    def __init__(self, extractors: Extractors, rate: Fraction = JITTER_RATE) -> None:
        self._extractors = extractors
        self._scale = float(rate / JITTER_RATE) ** 2
        self._before: list[tuple[int, Reading]] = []
        self.jitter = Means()
        self.no_face = Counter(dict.fromkeys(extractors.names, 0))

    def read(self, index: int, frame: NDArray[np.uint8]) -> Reading:
        """The findings in the image (S, S, 3) with the number `index`; numbers increase."""
        if frame.shape[0] != IMAGE_SIZE:
            image = Image.fromarray(frame).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
            frame = np.array(image)
        extractors = self._extractors
        reading = Reading(
            {extractor.name: extractor.landmarks(frame) for extractor in extractors.landmarks},
            {extractor.name: extractor.identity(frame) for extractor in extractors.identity},
            {extractor.name: extractor.vector(frame) for extractor in extractors.pose},
            {extractor.name: extractor.vector(frame) for extractor in extractors.expression},
        )
        self.no_face.update({name for part in reading for name, found in part.items() if found is None})
        if [number for number, _ in self._before] == [index - 2, index - 1]:
            first, second = (before.landmarks for _, before in self._before)
            self._add_jitter(first, second, reading.landmarks)
        self._before = [*self._before[-1:], (index, reading)]
        return reading

    def _add_jitter(self, first: Found, second: Found, third: Found) -> None:
        for name in third:
            a, b, c = first[name], second[name], third[name]
            if a is not None and b is not None and c is not None:
                jitter = np.linalg.norm(a - 2 * b + c, axis=1).mean() * self._scale
                self.jitter.add({f"jitter_{name}": jitter})


def compare(reading: Reading, wanted: Reading, extractors: Extractors) -> dict[str, float]:
    """Figures of one image's face against another's, for each extractor that found both (docs/metrics.md)."""
    return {
        **_compare_landmarks(reading, wanted, extractors),
        **compare_identity(reading, wanted, extractors),
        **compare_motion(reading, wanted, extractors),
    }


def _compare_landmarks(reading: Reading, wanted: Reading, extractors: Extractors) -> dict[str, float]:
    """Distances in pixels of an image of 256 x 256.

    `landmarks_<extractor>`: mean Euclidean distance of the points; `akd_<extractor>`: mean difference of their
    coordinates, as FOMM and the released code have it. `landmarks_<extractor>_<region>`: that of a part of them after
    one face is laid over the other, so that a mouth that does not open shows, however well the head moves.
    """
    figures: dict[str, float] = {}
    for extractor in extractors.landmarks:
        points, target = reading.landmarks[extractor.name], wanted.landmarks[extractor.name]
        if points is not None and target is not None:
            figures[f"landmarks_{extractor.name}"] = float(np.linalg.norm(points - target, axis=1).mean())
            distances = np.linalg.norm(laid_over(points, target) - target, axis=1)
            for region, part in extractor.regions.items():
                figures[f"landmarks_{extractor.name}_{region}"] = float(distances[part].mean())
            figures[f"akd_{extractor.name}"] = float(np.abs(points - target).mean())
    return figures


def compare_identity(reading: Reading, wanted: Reading, extractors: Extractors) -> dict[str, float]:
    """Whether it is the same person.

    `identity_<extractor>`: cosine of the embeddings; `identity_distance_<extractor>`: their Euclidean distance;
    `identity_same_<extractor>`: 1 where that is a single person's by the extractor's rule, else 0; `aed_<extractor>`:
    the square of their distance, as the released code has it.
    """
    figures: dict[str, float] = {}
    for judge in extractors.identity:
        embedding, other = reading.identity[judge.name], wanted.identity[judge.name]
        if embedding is not None and other is not None:
            lengths = np.linalg.norm(embedding) * np.linalg.norm(other)
            distance = float(np.linalg.norm(embedding - other))
            figures[f"identity_{judge.name}"] = float(embedding @ other / lengths)
            figures[f"identity_distance_{judge.name}"] = distance
            if judge.same_person:
                figures[f"identity_same_{judge.name}"] = float(distance < judge.same_person)
            figures[f"aed_{judge.name}"] = distance**2
    return figures


def compare_motion(reading: Reading, wanted: Reading, extractors: Extractors) -> dict[str, float]:
    """Whether it moves alike, whoever it is.

    `pose_<extractor>`: mean difference of the head's three angles in degrees; `expression_<extractor>`: mean difference
    of the coefficients of the expression.
    """
    figures: dict[str, float] = {}
    for extractor in extractors.pose:
        angles, other = reading.pose[extractor.name], wanted.pose[extractor.name]
        if angles is not None and other is not None:
            figures[f"pose_{extractor.name}"] = angle_distance(angles, other)
    for extractor in extractors.expression:
        found, other = reading.expression[extractor.name], wanted.expression[extractor.name]
        if found is not None and other is not None:
            figures[f"expression_{extractor.name}"] = float(np.abs(found - other).mean())
    return figures
