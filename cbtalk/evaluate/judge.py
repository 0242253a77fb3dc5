"""What a talker's pictures are measured with, and the pictures on their way there."""

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
from cbtalk.evaluate.lpips import Lpips, find_lpips
from cbtalk.evaluate.metrics import colour_shift, colour_spread, l1, psnr, ssim
from cbtalk.media.clips import Clip, clip_frames
from cbtalk.model.pictures import to_pictures

Frame = NDArray[np.uint8]  # (S, S, 3) RGB
Metric = Callable[[Tensor, Tensor], Tensor]

METRICS: dict[str, Metric] = {
    "l1": l1,
    "psnr": psnr,
    "ssim": ssim,
    "colour_shift": colour_shift,
    "colour_spread": colour_spread,
}
RUN = 3  # frames in a row that are measured together: a second difference needs three


@dataclass(frozen=True)
class Judge:
    """The metrics of pictures, the extractors of faces, and how they are applied.

    size: pictures are compared at this height and width. every: LPIPS and the extractors see one of this many runs of
    three frames.
    """

    size: int
    extractors: Extractors
    lpips: dict[str, Lpips] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # figure's or extractor's name -> why it is not there
    every: int = 1
    batch_size: int = 8

    def measured(self, index: int) -> bool:
        """Whether LPIPS and the extractors see the frame of this number, counted from 1 behind the source."""
        return (index - 1) // RUN % self.every == 0


def make_judge(
    models: Path | None, extractors: Extractors | None, *, size: int, every: int, batch_size: int, device: str
) -> Judge:
    """A judge with what is installed and lies in the folder `models`; other `extractors` in place of those found."""
    found = find_extractors(models) if extractors is None else extractors
    lpips: dict[str, Lpips] = {}
    absent = dict(found.absent)
    for network in ("alex", "vgg"):
        try:
            lpips[f"lpips_{network}"] = find_lpips(models, network).to(device)
        except FileNotFoundError as reason:
            absent[f"lpips_{network}"] = str(reason)
    return Judge(size, found, lpips, absent, every, batch_size)


class Batch(NamedTuple):
    """Frames of a clip, from its second on."""

    numbers: range  # 1 is the second frame
    frames: list[Frame]


def batches(clip: Clip, size: int, batch_size: int) -> tuple[Frame, Iterator[Batch]]:
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

    def others() -> Iterator[Batch]:
        number, part = 1, [head[1], *islice(frames, batch_size - 1)]
        while part:
            yield Batch(range(number, number + len(part)), part)
            number, part = number + len(part), list(islice(frames, batch_size))

    return head[0], others()


def to_tensor(frames: Iterable[Frame], device: torch.device) -> Tensor:
    """uint8 (H, W, 3) each -> (B, 3, H, W) in [-1, 1]."""
    return to_pictures(torch.from_numpy(np.stack(list(frames))).to(device))


def resized(pictures: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, size, size), bicubic with anti-aliasing."""
    if pictures.shape[-1] == size:
        return pictures
    return F.interpolate(pictures, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
