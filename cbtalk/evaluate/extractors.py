"""Extractors of landmarks and identity, of whatever is installed. Figures bear the extractor's name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cbtalk.pretrained.dlib_faces import DlibIdentity, DlibLandmarks
from cbtalk.pretrained.face_mesh import FaceMesh, MeshExpression, MeshPose
from cbtalk.pretrained.face_networks import (
    FaceFinder,
    NetworkExpression,
    NetworkIdentity,
    NetworkLandmarks,
    NetworkPose,
)
from cbtalk.pretrained.model_files import absence, find_file
from cbtalk.pretrained.networks import Network, find_network

T = TypeVar("T")

MESH_FILE = "face_landmark_with_attention.tflite"
FIVE_POINTS_FILE = "shape_predictor_5_*.dat"
SIXTY_EIGHT_POINTS_FILE = "shape_predictor_68_*.dat"
RESNET_FILE = "dlib_face_recognition_resnet_model_v1.dat"


class LandmarkExtractor(Protocol):
    """Finds the points of a face."""

    @property
    def name(self) -> str:
        """The name in its figures."""

    @property
    def regions(self) -> Mapping[str, slice]:
        """Parts of the points that get figures of their own: "mouth", "eyes"."""

    def landmarks(self, frame: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """Image (H, W, 3) RGB -> points (P, 2) in its pixels, x first; None where no face is found."""

    def openings(self, points: NDArray[np.floating]) -> dict[str, float]:
        """Openings of "mouth" and "eyes", in distances of the pupils; nothing where its points do not tell."""


class IdentityExtractor(Protocol):
    """Tells whose face it is."""

    @property
    def name(self) -> str:
        """The name in its figures."""

    @property
    def same_person(self) -> float:
        """Euclidean distance below which two embeddings are taken for one person's; 0 where nobody says."""

    def identity(self, frame: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """Image (H, W, 3) RGB -> embedding (D,); None where no face is found."""


class VectorExtractor(Protocol):
    """Reads numbers off a face: the head's angles, or its expression."""

    @property
    def name(self) -> str:
        """The name in its figures."""

    def vector(self, frame: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """Image (H, W, 3) RGB -> (D,); None where no face is found."""


@dataclass(frozen=True)
class Extractors:
    """Those that can run, and why others cannot. pose: vectors are angles in degrees."""

    landmarks: Sequence[LandmarkExtractor] = ()
    identity: Sequence[IdentityExtractor] = ()
    absent: dict[str, str] = field(default_factory=dict)  # name -> reason
    pose: Sequence[VectorExtractor] = ()
    expression: Sequence[VectorExtractor] = ()

    @property
    def names(self) -> list[str]:
        """Each name once."""
        kinds = (self.landmarks, self.identity, self.pose, self.expression)
        return list(dict.fromkeys(extractor.name for kind in kinds for extractor in kind))


def find_extractors(models: Path | None, device: str = "cpu") -> Extractors:
    """The extractors whose package is installed and whose files are in the folder `models`.

    Raises:
        WeightsError: a file that is there cannot be used.
    """
    absent: dict[str, str] = {}

    def found(name: str, build: Callable[[], T]) -> list[T]:
        try:
            return [build()]
        except (FileNotFoundError, ImportError) as reason:
            absent[name] = absence(reason)
        return []

    def file(pattern: str) -> Path:
        return find_file(models, pattern)

    def network(role: str) -> Network:
        return find_network(models, role, device)

    face = FaceFinder()
    mesh = found("mediapipe_mesh", lambda: FaceMesh(file(MESH_FILE)))
    landmarks: list[LandmarkExtractor] = [
        *mesh,
        *found("dlib_5", lambda: DlibLandmarks(file(FIVE_POINTS_FILE), points=5)),
        *found("dlib_68", lambda: DlibLandmarks(file(SIXTY_EIGHT_POINTS_FILE), points=68)),
        *found("landmarks", lambda: NetworkLandmarks(network("landmarks"), face)),
    ]
    identity: list[IdentityExtractor] = [
        *found("dlib_resnet", lambda: DlibIdentity(file(RESNET_FILE), file(FIVE_POINTS_FILE))),
        *found("arcface", lambda: NetworkIdentity("arcface", network("arcface"), face)),
        *found("openface", lambda: NetworkIdentity("openface", network("openface"), face)),
    ]
    pose: list[VectorExtractor] = [
        *map(MeshPose, mesh),
        *found("head_pose", lambda: NetworkPose(network("head_pose"), face)),
    ]
    expression: list[VectorExtractor] = [
        *map(MeshExpression, mesh),
        *found("expression", lambda: NetworkExpression(network("expression"), face)),
    ]
    return Extractors(landmarks, identity, absent, pose, expression)
