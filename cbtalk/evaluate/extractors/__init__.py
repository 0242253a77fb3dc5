"""What reads faces in pictures: landmarks and identity, by whatever is installed. Figures bear the extractor's name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cbtalk.evaluate.extractors.dlib_faces import DlibIdentity, DlibLandmarks
from cbtalk.evaluate.extractors.face_mesh import FaceMesh
from cbtalk.evaluate.model_files import find_file

T = TypeVar("T")

MESH_FILE = "face_landmark_with_attention.tflite"
FIVE_POINTS_FILE = "shape_predictor_5_*.dat"
SIXTY_EIGHT_POINTS_FILE = "shape_predictor_68_*.dat"
RESNET_FILE = "dlib_face_recognition_resnet_model_v1.dat"


class LandmarkExtractor(Protocol):
    """Finds the points of a face."""

    @property
    def name(self) -> str:
        """What its figures are called after."""

    @property
    def regions(self) -> Mapping[str, slice]:
        """Parts of the points that get figures of their own: "mouth", "eyes"."""

    def landmarks(self, frame: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """Picture (H, W, 3) RGB -> points (P, 2) in its pixels, x first; None where no face is found."""

    def openings(self, points: NDArray[np.floating]) -> dict[str, float]:
        """How far "mouth" and "eyes" are open, in distances of the pupils; nothing where its points do not tell."""


class IdentityExtractor(Protocol):
    """Tells whose face it is."""

    @property
    def name(self) -> str:
        """What its figures are called after."""

    @property
    def same_person(self) -> float:
        """Euclidean distance below which two embeddings are taken for one person's."""

    def identity(self, frame: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """Picture (H, W, 3) RGB -> embedding (D,); None where no face is found."""


@dataclass(frozen=True)
class Extractors:
    """Those that can run, and why others cannot."""

    landmarks: Sequence[LandmarkExtractor] = ()
    identity: Sequence[IdentityExtractor] = ()
    absent: dict[str, str] = field(default_factory=dict)  # name -> reason


def find_extractors(models: Path | None) -> Extractors:
    """The extractors whose package is installed and whose files are in the folder `models`.

    Raises:
        WeightsError: a file that is there cannot be used.
    """
    absent: dict[str, str] = {}

    def found(name: str, build: Callable[..., T], *files: str) -> list[T]:
        try:
            return [build(*(find_file(models, file) for file in files))]
        except FileNotFoundError as reason:
            absent[name] = str(reason)
        except ImportError as reason:
            absent[name] = f"the package {reason.name} is not installed: pip install 'cbtalk[evaluate]'"
        return []

    def dlib_5(predictor: Path) -> DlibLandmarks:
        return DlibLandmarks(predictor, points=5)

    def dlib_68(predictor: Path) -> DlibLandmarks:
        return DlibLandmarks(predictor, points=68)

    landmarks: list[LandmarkExtractor] = [
        *found("mediapipe_mesh", FaceMesh, MESH_FILE),
        *found("dlib_5", dlib_5, FIVE_POINTS_FILE),
        *found("dlib_68", dlib_68, SIXTY_EIGHT_POINTS_FILE),
    ]
    return Extractors(landmarks, found("dlib_resnet", DlibIdentity, RESNET_FILE, FIVE_POINTS_FILE), absent)
