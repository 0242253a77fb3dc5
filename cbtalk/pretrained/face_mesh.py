"""Landmarks by MediaPipe's attention mesh: 700 points, of lips, eyes and irises among them."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cbtalk.faces.euler import euler
from cbtalk.pretrained.attention_mesh import INPUT_SIZE, AttentionMesh

FACE_POINTS = 468  # of the mesh; the refined ones follow: 80 of the lips, 2 x 71 of the eyes, 2 x 5 of the irises
LIPS = (503, 493)  # the middle of their inner edges, upper and lower
UPPER_LIDS, LOWER_LIDS, PUPILS = (560, 631), (552, 623), (690, 695)  # image left and right
EYE_CORNERS = (33, 263)  # outer ones, image left and right
FOREHEAD, NOSE_BASE = 10, 2  # in the middle of the face; no expression moves them much
MARGIN = 1.5  # side of the square that the network sees, in longer sides of the face: MediaPipe's


def openings(point: Callable[[int], NDArray[np.floating]]) -> NDArray[np.floating]:
    """Openings of mouth and eyes (..., 2), in distances of the pupils; NaN where `point` is.

    Args:
        point: gives the point (..., 2) of a number.
    """

    def distance(one: int, other: int) -> NDArray[np.floating]:
        return np.linalg.norm(point(one) - point(other), axis=-1)

    left, right = (distance(upper, lower) for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):  # pupils in one place: no face that counts
        return np.stack([distance(*LIPS), (left + right) / 2], axis=-1) / distance(*PUPILS)[..., None]


class FaceMesh:
    """Looks at the whole image first, then at the face found there, upright: for images of one large face."""

    name = "mediapipe_mesh"
    regions = MappingProxyType({"mouth": slice(468, 548), "eyes": slice(548, 700)})

    def __init__(self, model: Path) -> None:
        self._mesh = AttentionMesh(model)
        self._last: tuple[NDArray[np.uint8], NDArray[np.float32] | None] | None = None

    def landmarks(self, frame: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Image (H, W, 3) RGB -> (700, 2) in pixels; None where the network sees no face."""
        points = self.points(frame)
        return None if points is None else points[:, :2]

    def points(self, frame: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """As `landmarks`, with the depth of the first 468 as third coordinate; the last image's are kept."""
        last = self._last
        if last is not None and last[0] is frame:
            return last[1]
        height, width = frame.shape[:2]
        image = Image.fromarray(frame)
        points, _ = self._seen(image, np.array([width / 2, height / 2]), max(height, width), 0.0)
        points, face_logit = self._seen(image, *_square(points[:FACE_POINTS, :2]))
        found = points if face_logit > 0 else None
        self._last = frame, found
        return found

    def openings(self, points: NDArray[np.floating]) -> dict[str, float]:
        """As `LandmarkExtractor.openings`."""
        mouth, eyes = openings(lambda number: points[number]).tolist()
        return {"mouth": mouth, "eyes": eyes}

    def _seen(
        self, image: Image.Image, centre: NDArray[np.floating], side: float, angle: float
    ) -> tuple[NDArray[np.float32], float]:
        """Points (700, 3) in the image's pixels, and the face logit, of a square turned by `angle`."""
        scale = side / INPUT_SIZE
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
        corner = centre - turn @ (INPUT_SIZE / 2, INPUT_SIZE / 2)
        matrix = np.column_stack([turn, corner])  # (2, 3): pixels of the square to those of the image
        square = image.transform(
            (INPUT_SIZE, INPUT_SIZE), Image.Transform.AFFINE, tuple(matrix.ravel()), Image.Resampling.BILINEAR
        )
        points, face_logit = self._mesh(np.asarray(square, dtype=np.float32) / np.float32(255))
        flat = points[:, :2] @ turn.T + corner
        return np.column_stack([flat, points[:, 2] * scale]).astype(np.float32), face_logit


class MeshPose:
    """The head's angles by the mesh: its horizontal along the outer eye corners, its vertical along the forehead."""

    name = FaceMesh.name

    def __init__(self, mesh: FaceMesh) -> None:
        self._mesh = mesh

    def vector(self, frame: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """Image (H, W, 3) RGB -> (3,) pitch, yaw and roll in degrees; None where the network sees no face."""
        points = self._mesh.points(frame)
        if points is None:
            return None
        across = points[EYE_CORNERS[1]] - points[EYE_CORNERS[0]]
        across = across / np.linalg.norm(across)
        down = points[NOSE_BASE] - points[FOREHEAD]
        down = down - (down @ across) * across
        down = down / np.linalg.norm(down)
        return euler(np.column_stack([across, down, np.cross(across, down)]))


class MeshExpression:
    """Openings of mouth and eyes, in distances of the pupils, by the mesh."""

    name = FaceMesh.name

    def __init__(self, mesh: FaceMesh) -> None:
        self._mesh = mesh

    def vector(self, frame: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """Image (H, W, 3) RGB -> (2,) mouth and eyes; None where the network sees no face."""
        points = self._mesh.landmarks(frame)
        return None if points is None else openings(lambda number: points[number])


def _square(points: NDArray[np.floating]) -> tuple[NDArray[np.floating], float, float]:
    """Centre (2,), side and angle of the square to look at, from the points (468, 2) of a face."""
    low, high = points.min(0), points.max(0)
    eyes = points[EYE_CORNERS[1]] - points[EYE_CORNERS[0]]
    return (low + high) / 2, MARGIN * float((high - low).max()), float(np.arctan2(eyes[1], eyes[0]))
