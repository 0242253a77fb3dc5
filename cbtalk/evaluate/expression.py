"""Openings of mouth and eyes over a sequence of images, against the real ones."""

import math

from cbtalk.evaluate.extractors import Extractors
from cbtalk.evaluate.faces import Reading

STILL = 0.01  # of a deviation: what opens less than this in the real clip cannot be followed


class Moments:
    """Running sums over pairs of numbers: the memory they take does not grow."""

    def __init__(self) -> None:
        self._count = 0
        self._sums = [0.0] * 5

    def add(self, x: float, y: float) -> None:
        """One more pair."""
        self._count += 1
        self._sums = [total + term for total, term in zip(self._sums, (x, y, x * x, y * y, x * y), strict=True)]

    def deviations(self) -> tuple[float, float]:
        """The standard deviations of both."""
        x, y, xx, yy, _ = self._means()
        return math.sqrt(max(0.0, xx - x * x)), math.sqrt(max(0.0, yy - y * y))

    def correlation(self) -> float:
        """Of one with the other; 0 where one does not change."""
        x, y, _, _, xy = self._means()
        product = math.prod(self.deviations())
        return (xy - x * y) / product if product else 0.0

    def _means(self) -> list[float]:
        return [total / self._count for total in self._sums]


class Expression:
    """The openings (`LandmarkExtractor.openings`) of a sequence of faces and of the real ones."""

    def __init__(self, extractors: Extractors) -> None:
        self._extractors = extractors.landmarks
        self._moments: dict[str, Moments] = {}

    def add(self, face: Reading, real: Reading) -> None:
        """One more image's face and the real one; nothing where one of them is not found."""
        for extractor in self._extractors:
            points, target = face.landmarks[extractor.name], real.landmarks[extractor.name]
            if points is not None and target is not None:
                wanted = extractor.openings(target)
                for part, opening in extractor.openings(points).items():
                    self._moments.setdefault(f"{part}_{extractor.name}", Moments()).add(opening, wanted[part])

    def of_result(self) -> dict[str, float]:
        """`opening_<part>_<extractor>`: standard deviation; `following_...`: correlation, where the real part moves."""
        figures = {f"opening_{name}": moments.deviations()[0] for name, moments in self._moments.items()}
        moving = {name: moments for name, moments in self._moments.items() if moments.deviations()[1] >= STILL}
        return figures | {f"following_{name}": moments.correlation() for name, moments in moving.items()}

    def of_real(self) -> dict[str, float]:
        """`opening_<part>_<extractor>` of the real faces."""
        return {f"opening_{name}": moments.deviations()[1] for name, moments in self._moments.items()}
