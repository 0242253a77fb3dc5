"""Metrics of images and of faces, and the images of a clip on their way to them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cbtalk.errors import InputError
from cbtalk.evaluate.extractors import Extractors, find_extractors
from cbtalk.media.clips import Clip, clip_frames
from cbtalk.metrics.lpips import find_lpips_metric
from cbtalk.metrics.metric import Metric
from cbtalk.model.images import to_images
from cbtalk.pretrained.model_files import absence
from cbtalk.pretrained.networks import Network, find_network

Frame = NDArray[np.uint8]  # (S, S, 3) RGB
Show = Callable[[Frame, Frame, Frame], None]  # source, driving, result
Vectors = dict[str, NDArray[np.float32]]  # (N, D) by the images that they are of

RUN = 3  # frames in a row that are measured together: a second difference needs three


@dataclass(frozen=True)
class Judge:
    """The metrics of images, the extractors of faces, and how they are applied.

    size: images are compared at this height and width. inception: the network of FID, where there is one. absent:
    figure's or extractor's name -> why it is not there. every: LPIPS, FID and the extractors see one of this many runs
    of three frames.
    """

    size: int
    extractors: Extractors
    lpips: dict[str, Metric] = field(default_factory=dict)
    inception: Network | None = None
    absent: dict[str, str] = field(default_factory=dict)
    every: int = 1
    batch_size: int = 8

    def measured(self, index: int) -> bool:
        """Whether LPIPS, FID and the extractors see the frame of this number, counted from 1 behind the source."""
        return (index - 1) // RUN % self.every == 0


def make_judge(
    models: Path | None, extractors: Extractors | None, *, size: int, every: int, batch_size: int, device: str
) -> Judge:
    """A judge with what is installed and lies in the folder `models`; other `extractors` in place of those found."""
    found = find_extractors(models, device) if extractors is None else extractors
    lpips: dict[str, Metric] = {}
    inception = None
    absent = dict(found.absent)
    for network in ("alex", "vgg"):
        try:
            lpips[f"lpips_{network}"] = find_lpips_metric(models, network, device)
        except (FileNotFoundError, ImportError) as reason:
            absent[f"lpips_{network}"] = absence(reason)
    try:
        inception = find_network(models, "inception", device)
    except (FileNotFoundError, ImportError) as reason:
        absent["fid"] = absence(reason)
    return Judge(size, found, lpips, inception, absent, every, batch_size)


class Features:
    """Vectors of FID's network, of images that come part after part; none where there is no network."""

    def __init__(self, network: Network | None) -> None:
        self._network = network
        self._parts: dict[str, list[NDArray[np.float32]]] = {}

    def add(self, name: str, frames: Iterable[Frame]) -> None:
        """More images (S, S, 3) of this name."""
        if self._network is not None and (images := list(frames)):
            tensor = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
            self._parts.setdefault(name, []).append(self._network(tensor).reshape(len(images), -1))

    def vectors(self) -> Vectors:
        """Of all that were added."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}


class NumberedFrames(NamedTuple):
    """Frames of a clip, from its second on."""

    numbers: range  # 1 is the second frame
    frames: list[Frame]


def batches(clip: Clip, size: int, batch_size: int) -> tuple[Frame, Iterator[NumberedFrames]]:
    """The first frame of a clip, and the others in batches.

    Raises:
        InputError: the clip has fewer than two frames.
    """
    frames = clip_frames(clip, size)
    head = list(islice(frames, 2))
    if not head:
        raise InputError(f"{clip.path}: no frame in it")
    if len(head) == 1:
        raise InputError(f"{clip.path}: one frame only; a clip has a source and at least one more")

    def others() -> Iterator[NumberedFrames]:
        number, part = 1, [head[1], *islice(frames, batch_size - 1)]
        while part:
            yield NumberedFrames(range(number, number + len(part)), part)
            number, part = number + len(part), list(islice(frames, batch_size))

    return head[0], others()


def frame_of(clip: Clip, number: int, size: int) -> Frame:
    """A frame of a clip, by its number from 0. Raises InputError where the clip ends before."""
    frame = next(islice(clip_frames(clip, size), number, None), None)
    if frame is None:
        raise InputError(f"{clip.path}: has no frame of the number {number}, counted from 0")
    return frame


def to_tensor(frames: Iterable[Frame], device: torch.device) -> Tensor:
    """uint8 (H, W, 3) each -> (B, 3, H, W) in [-1, 1]."""
    return to_images(torch.from_numpy(np.stack(list(frames))).to(device))


def resized(images: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, size, size), bicubic with anti-aliasing."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
