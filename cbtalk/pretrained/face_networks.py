"""Extractors whose network is a file of the folder of models, on a face that YuNet finds."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cbtalk.errors import WeightsError
from cbtalk.faces import Face, Square, cut, find_faces
from cbtalk.faces.euler import euler
from cbtalk.faces.similarity import similarity
from cbtalk.pretrained.dlib_faces import REGIONS_OF_68
from cbtalk.pretrained.networks import Network

# ArcFace's places of eyes, nose and corners of the mouth in an image of 112 x 112 whose first pixel lies at (0, 0).
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
ARCFACE_SIZE = 112


class FaceFinder:
    """The best face of an image (H, W, 3); that of the last image is kept for the next extractor."""

    def __init__(self) -> None:
        self._last: tuple[NDArray[np.uint8], Face | None] | None = None

    def __call__(self, frame: NDArray[np.uint8]) -> Face | None:
        """See the class; None where there is none."""
        if self._last is None or self._last[0] is not frame:
            faces = find_faces(torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1))
            self._last = frame, faces[0] if faces else None
        return self._last[1]


class View(NamedTuple):
    """A square part of an image, and where it lies."""

    pixels: NDArray[np.uint8]  # (S, S, 3)
    corner: tuple[float, float]  # its top left in the image
    scale: float  # the image's pixels to one of its own


class FaceNetwork:
    """A network on the face of an image."""

    def __init__(self, network: Network, find: FaceFinder) -> None:
        self._network, self._find = network, find

    def output(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.float32], View] | None:
        """The output of the network for the image, and of which part; None where there is no face."""
        view = self._view(frame)
        if view is None:
            return None
        pixels = torch.from_numpy(np.ascontiguousarray(view.pixels)).permute(2, 0, 1)[None].float() / 255
        return self._network(pixels)[0], view

    def _view(self, frame: NDArray[np.uint8]) -> View | None:
        taken = self._network.taken
        if taken.crop == "whole":
            return View(frame, (0.0, 0.0), frame.shape[0] / (taken.size or frame.shape[0]))
        face = self._find(frame)
        if face is None:
            return None
        if taken.crop == "face":
            return around(frame, face, taken.margin, taken.size)
        return View(aligned(frame, face, taken.size), (0.0, 0.0), 1.0)


def around(frame: NDArray[np.uint8], face: Face, margin: float, size: int) -> View:
    """The square around a face, `margin` times as large as the longer side of its box."""
    left, top, right, bottom = face.box.tolist()
    side = margin * max(right - left, bottom - top)
    square = Square((left + right) / 2, (top + bottom) / 2, side, 0.0)
    return View(cut(frame, square, size), (square.x - side / 2, square.y - side / 2), side / size)


def aligned(frame: NDArray[np.uint8], face: Face, size: int) -> NDArray[np.uint8]:
    """The face turned and scaled so that its five points lie where ArcFace has them."""
    laid = similarity((ARCFACE_POINTS + 0.5) * (size / ARCFACE_SIZE), face.points.double().numpy())
    corner, across, down = laid(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    inverse = np.column_stack([across - corner, down - corner, corner])  # (2, 3): the output's pixels to the image's
    image = Image.fromarray(frame).transform(
        (size, size), Image.Transform.AFFINE, tuple(inverse.ravel()), Image.Resampling.BILINEAR
    )
    return np.array(image)  # a copy, for Pillow's own memory is read-only


class NetworkLandmarks(FaceNetwork):
    """Points of a network that gives them in pixels (P, 2), or as heat maps (P, h, w)."""

    name = "landmarks"

    def __init__(self, network: Network, find: FaceFinder) -> None:
        super().__init__(network, find)
        shape = network.outputs
        if len(shape) not in (3, 4) or (len(shape) == 3 and shape[2] != 2):
            raise WeightsError(f"landmarks: gives {shape}, not points (1, P, 2) or heat maps (1, P, h, w)")
        self.regions: Mapping[str, slice] = REGIONS_OF_68 if shape[1] == 68 else MappingProxyType({})

    def landmarks(self, frame: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """As `LandmarkExtractor.landmarks`."""
        found = self.output(frame)
        if found is None:
            return None
        output, view = found
        points = output if output.ndim == 2 else peaks(output) * self._network.taken.size
        return points * view.scale + view.corner

    def openings(self, points: NDArray[np.floating]) -> dict[str, float]:
        """Nothing: nobody says which of its points tell."""
        return {}


def peaks(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Heat maps (P, h, w) -> their maxima (P, 2), as (x, y) in shares of the map.

    Each is moved by a quarter of a cell towards its larger neighbour, as Stacked Hourglass and FAN do.
    """
    count, height, width = maps.shape
    rows, columns = np.divmod(maps.reshape(count, -1).argmax(1), width)
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), mode="edge")
    each = np.arange(count)
    across = padded[each, rows + 1, columns + 2] - padded[each, rows + 1, columns]
    down = padded[each, rows + 2, columns + 1] - padded[each, rows, columns + 1]
    places = np.column_stack([columns + 0.5 + np.sign(across) / 4, rows + 0.5 + np.sign(down) / 4])
    return places / (width, height)


class NetworkIdentity(FaceNetwork):
    """Embeddings (D,)."""

    def __init__(self, name: str, network: Network, find: FaceFinder) -> None:
        super().__init__(network, find)
        self.name, self.same_person = name, network.taken.same_person

    def identity(self, frame: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """As `IdentityExtractor.identity`."""
        found = self.output(frame)
        return None if found is None else found[0].ravel()


class NetworkPose(FaceNetwork):
    """The head's angles, of a network that gives three of them in degrees, or a rotation (3, 3)."""

    name = "head_pose"

    def __init__(self, network: Network, find: FaceFinder) -> None:
        super().__init__(network, find)
        if network.outputs[1:] not in ((3,), (3, 3)):
            raise WeightsError(f"head_pose: gives {network.outputs}, not angles (1, 3) or a rotation (1, 3, 3)")

    def vector(self, frame: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """As `VectorExtractor.vector`."""
        found = self.output(frame)
        return None if found is None else found[0] if found[0].ndim == 1 else euler(found[0])


class NetworkExpression(FaceNetwork):
    """Coefficients (D,) of an expression."""

    name = "expression"

    def vector(self, frame: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """As `VectorExtractor.vector`."""
        found = self.output(frame)
        return None if found is None else found[0].ravel()
