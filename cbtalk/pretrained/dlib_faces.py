"""Landmarks and identity by dlib (the package `dlib-bin`): frontal faces, found by histograms of gradients."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbtalk.errors import WeightsError

REGIONS_OF_68 = MappingProxyType({"eyes": slice(36, 48), "mouth": slice(48, 68)})  # of the 68 points of iBUG 300-W


class DlibLandmarks:
    """Points of a shape predictor: 5 are the corners of the eyes and the base of the nose, 68 the whole face.

    The 68-point predictor is trained on images that are licensed for non-commercial use; it has to be given by the
    user.
    """

    def __init__(self, predictor: Path, *, points: int) -> None:
        import dlib

        self.name = f"dlib_{points}"
        self.regions: Mapping[str, slice] = REGIONS_OF_68 if points == 68 else {}
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = _opened(dlib.shape_predictor, predictor)

    def openings(self, points: NDArray[np.floating]) -> dict[str, float]:
        """Nothing: none of its points tell."""
        return {}

    def landmarks(self, frame: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Image (H, W, 3) RGB -> (points, 2) in pixels; None where no face is found."""
        frame = np.ascontiguousarray(frame)
        box = _best_box(self._detector, frame)
        if box is None:
            return None
        return np.array([(point.x, point.y) for point in self._predictor(frame, box).parts()], dtype=np.float32)


class DlibIdentity:
    """The 128 numbers of dlib's face recognition network, of a face aligned by five landmarks."""

    name = "dlib_resnet"
    same_person = 0.6  # dlib's own rule

    def __init__(self, network: Path, predictor: Path) -> None:
        import dlib

        self._detector = dlib.get_frontal_face_detector()
        self._predictor = _opened(dlib.shape_predictor, predictor)
        self._network = _opened(dlib.face_recognition_model_v1, network)

    def identity(self, frame: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Image (H, W, 3) RGB -> (128,); None where no face is found."""
        frame = np.ascontiguousarray(frame)
        box = _best_box(self._detector, frame)
        if box is None:
            return None
        return np.array(self._network.compute_face_descriptor(frame, self._predictor(frame, box)), dtype=np.float32)


def _opened(kind: Any, path: Path) -> Any:
    try:
        return kind(str(path))
    except RuntimeError as error:
        raise WeightsError(f"{path}: dlib cannot read it ({error}); get the file again") from error


def _best_box(detector: Any, frame: NDArray[np.uint8]) -> Any:
    """The face with the highest score, or None."""
    boxes, scores, _ = detector.run(frame, 0, 0.0)
    return boxes[int(np.argmax(scores))] if len(boxes) else None
