"""Points of faces that keypoints are guided to: found once in every frame by MediaPipe's mesh, and kept beside it."""

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cbtalk.atomic import atomic_path
from cbtalk.errors import ConfigError
from cbtalk.pretrained.face_mesh import FaceMesh
from cbtalk.train import exchange
from cbtalk.train.draws import to_device
from cbtalk.train.face_points import MIRRORED, POINTS
from cbtalk.train.pairs import Pair, frame_numbers

KEPT = f".points_{zlib.crc32(repr(POINTS).encode()):08x}.npy"  # other points, another file


class Landmarks:
    """The points of every frame of every clip, on the device.

    Args:
        clips: for each clip, (T, P, 2) in [-1, 1], 1 being the image's edge; NaN where no face was found.
    """

    def __init__(self, clips: Sequence[np.ndarray], device: torch.device) -> None:
        self.first = np.cumsum([0, *(len(clip) for clip in clips)])
        self.points = torch.from_numpy(np.concatenate(clips)).to(device)
        self.mirrored = torch.tensor(MIRRORED, device=device)
        self.sign = torch.tensor([-1.0, 1.0], device=device)

    def read(self, pairs: Sequence[Pair]) -> Tensor:
        """Points of the source and driving frames of a batch, as they are shown: (2, B, P, 2)."""
        points = self.points[to_device(frame_numbers(self.first, pairs), self.points.device)]
        mirrored = to_device(torch.tensor([pair.mirrored for pair in pairs]), self.points.device).view(1, -1, 1, 1)
        return torch.where(mirrored, points[:, :, self.mirrored] * self.sign, points)


def find_landmarks(files: Sequence[Path], clips: Iterable[Iterable[np.ndarray]], model: Path) -> list[np.ndarray]:
    """The points of clips, frames uint8 (H, W, 3), as `Landmarks` takes them; found once.

    Args:
        files: one for each clip; its points are kept beside it.
        model: MediaPipe's face_landmark_with_attention.tflite.

    Raises:
        ConfigError: there is no such file, or ai-edge-litert is not installed.
        WeightsError: the file is another model.
    """
    if not model.is_file():
        raise ConfigError(f"guidance.model: {model}: no such file; it must be MediaPipe's face mesh")
    try:
        mesh = FaceMesh(model)
    except ImportError as error:
        raise ConfigError(
            f"guidance.model needs the package {error.name}: pip install 'cbtalk[evaluate]', or leave it out"
        ) from error
    found = []
    for file, frames in tqdm(
        zip(files, clips, strict=True), desc="finding faces", total=len(files), unit="clip", leave=False
    ):
        path = file.with_suffix(KEPT)
        if not path.exists():
            points = np.stack([_points(mesh, frame) for frame in frames])
            with atomic_path(path) as temporary, temporary.open("wb") as target:
                np.save(target, points)
        found.append(np.load(path))
    return found


def _points(mesh: FaceMesh, frame: np.ndarray) -> np.ndarray:
    points = mesh.landmarks(np.ascontiguousarray(frame))
    if points is None:
        return np.full((len(POINTS), 2), np.nan, dtype=np.float32)
    return (points[list(POINTS)] * (2 / len(frame)) - 1).astype(np.float32)


def guidance_loss(keypoints: Tensor, points: Tensor) -> Tensor:
    """Mean distance (1-norm) of the first P keypoints (B, K, 2) from points (B, P, 2), those within the image.

    Its mean over processes is that of their images together, however many points each of them sees.
    """
    seen = (points.abs() <= 1).all(dim=-1)  # not where it is NaN
    distance = (keypoints[:, : points.shape[1]] - points.nan_to_num()).abs().sum(-1)
    count = exchange.mean(seen.sum().float()).clamp(min=1e-6)  # without any point, the loss is 0
    return torch.where(seen, distance, 0).sum() / count
