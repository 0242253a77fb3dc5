"""Faces of an image: boxes, scores and five points, by any detector with the interface `FaceDetector`."""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.faces.yunet import Candidates, yunet

# The network finds faces of about 10 to 300 px: of copies of the image whose longer sides have these lengths in px, the
# smaller is for close-ups. Where neither shows a face, a larger one may.
_LONGEST = (640, 320)
_CLOSER = 1280
_MULTIPLE = 32
_LEAST_SCORE = 0.7
_MOST_OVERLAP = 0.3  # intersection over union of two faces


class Face(NamedTuple):
    """A face in an image; lengths in pixels of the image."""

    box: Tensor  # (4,) left, top, right, bottom
    score: float  # in [0, 1]
    points: Tensor  # (5, 2) eyes, nose, corners of the mouth, as (x, y); the image's left ones first

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        left, top, right, bottom = self.box.tolist()
        return (right - left) * (bottom - top)


class FaceDetector(Protocol):
    """Finds the faces of an image."""

    def __call__(self, image: Tensor) -> list[Face]:
        """The faces of an RGB image (3, H, W), uint8, on any device; the best score first, tensors on the CPU."""


def find_faces(image: Tensor) -> list[Face]:
    """The faces that YuNet finds in an RGB image (3, H, W), uint8, on any device; the best score first."""
    found = [_candidates(image, longest) for longest in _LONGEST]
    if not any(len(part.scores) for part in found):
        found.append(_candidates(image, _CLOSER))
    scores, boxes, points = (torch.cat(parts) for parts in zip(*found, strict=True))
    kept = _suppress(boxes, scores)
    return [Face(boxes[i], float(scores[i]), points[i]) for i in kept]


def _candidates(image: Tensor, longest: int) -> Candidates:
    """Candidates above the least score, in a copy of the image that is no longer than `longest`."""
    H, W = image.shape[1:]
    scale = min(1.0, longest / max(H, W))
    h, w = max(1, round(H * scale)), max(1, round(W * scale))
    resized = image[None].float()
    if (h, w) != (H, W):
        resized = F.interpolate(resized, (h, w), mode="bilinear", antialias=True)
    padded = F.pad(resized, (0, -w % _MULTIPLE, 0, -h % _MULTIPLE))
    with torch.inference_mode():
        found = yunet(image.device)(padded.contiguous(memory_format=torch.channels_last))
    likely = found.scores[0] > _LEAST_SCORE
    stretch = torch.tensor([W / w, H / h])
    scores, boxes, points = (part[0][likely].cpu() for part in found)
    return Candidates(scores, boxes * stretch.repeat(2), points * stretch)


def _suppress(boxes: Tensor, scores: Tensor) -> list[int]:
    """Indices of the boxes that no better one overlaps, the best score first."""
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(overlap(boxes[i], boxes[j]) <= _MOST_OVERLAP for j in kept):
            kept.append(i)
    return kept


def overlap(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two boxes (4,)."""
    inner = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp_min(0).prod()
    areas = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()
    return float(inner / (areas - inner))
