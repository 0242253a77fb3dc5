"""Batches of pairs: frames kept on the device or streamed to it, then flipped and augmented there."""

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cbtalk.errors import InputError, TrainingError
from cbtalk.media.clips import Clip, decode_clip, find_clips, mean_change
from cbtalk.model.pictures import to_pictures
from cbtalk.train.augment import augment, draw, move_points
from cbtalk.train.config import AugmentConfig, TrainConfig, face_users
from cbtalk.train.draws import batch_generator, to_device
from cbtalk.train.face_points import openings_of
from cbtalk.train.landmarks import Landmarks, find_landmarks
from cbtalk.train.pairs import Pair, PairSampler, frame_numbers
from cbtalk.train.share import WHOLE, Share

logger = logging.getLogger(__name__)

AUGMENT_STREAM = 0
RESTARTS = 3
PREFETCHED = 4  # batches a worker prepares ahead
LAST_BATCH = 1 << 62


class Frames(Protocol):
    """Where the frames of a batch come from."""

    def read(self, number: int, pairs: Sequence[Pair]) -> Tensor:
        """Source and driving frames of batch `number`, uint8 (2, B, H, W, 3), on the device."""


class ResidentFrames:
    """Every frame of every clip in one tensor on the device: a batch is one gather.

    Args:
        clips: for each clip, uint8 (T, H, W, 3).
    """

    def __init__(self, clips: Sequence[np.ndarray], device: torch.device) -> None:
        self.first = np.cumsum([0, *(len(clip) for clip in clips)])
        self.frames = torch.empty((int(self.first[-1]), *clips[0].shape[1:]), dtype=torch.uint8, device=device)
        for clip, start in zip(clips, self.first[:-1].tolist(), strict=True):
            self.frames[start : start + len(clip)] = torch.from_numpy(clip)

    def read(self, number: int, pairs: Sequence[Pair]) -> Tensor:
        """As `Frames.read`."""
        return self.frames[to_device(frame_numbers(self.first, pairs), self.frames.device)]


class MappedFrames:
    """Frames read from the files they are mapped from, for the CPU: what is in memory once needs no copy there.

    Args:
        clips: for each clip, uint8 (T, H, W, 3).
    """

    def __init__(self, clips: Sequence[np.ndarray]) -> None:
        self.clips = clips

    def read(self, number: int, pairs: Sequence[Pair]) -> Tensor:
        """As `Frames.read`."""
        return _gathered([self.clips[pair.clip] for pair in pairs], pairs)


class StreamedFrames:
    """Frames read by worker processes ahead of their batch, for sets too large for the device.

    Args:
        files: for each clip, an .npy file of uint8 (T, H, W, 3).
        sampler: says which pairs each worker reads; its batches are asked for in the order of their numbers.
    """

    def __init__(
        self, files: Sequence[Path], sampler: PairSampler, size: int, device: torch.device, workers: int
    ) -> None:
        self.batches = _FileBatches(files, sampler, size)
        self.device = device
        self.workers = workers
        self.stream: Iterator[Tensor] = iter(())
        self.next = -1

    def read(self, number: int, pairs: Sequence[Pair]) -> Tensor:
        """As `Frames.read`. A process that dies is replaced; raises TrainingError where they die again and again."""
        for _ in range(RESTARTS):
            if number != self.next:
                self.stream = self._from(number)
            try:
                frames = next(self.stream)
            except (RuntimeError, ConnectionError, EOFError) as error:
                if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                    raise
                logger.warning("a process that reads frames died; new ones are started (%s)", error)
                self.next = -1
                continue
            self.next = number + 1
            return frames.to(self.device, non_blocking=True)
        raise TrainingError(f"processes that read frames died {RESTARTS} times in a row; fewer data.workers need less")

    def _from(self, number: int) -> Iterator[Tensor]:
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=range(number, LAST_BATCH),
            num_workers=self.workers,
            prefetch_factor=PREFETCHED,
            pin_memory=self.device.type == "cuda",
        )
        before = signal.getsignal(signal.SIGCHLD)
        stream = iter(loader)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)  # torch's handler raises wherever the program is when a process dies
        return stream


class _FileBatches(Dataset[Tensor]):
    def __init__(self, files: Sequence[Path], sampler: PairSampler, size: int) -> None:
        self.files = files
        self.sampler = sampler
        self.size = size

    def __getitem__(self, number: int) -> Tensor:
        pairs = self.sampler.batch(number, self.size)
        return _gathered([np.load(self.files[pair.clip], mmap_mode="r") for pair in pairs], pairs)


def _gathered(clips: Sequence[np.ndarray], pairs: Sequence[Pair]) -> Tensor:
    """The frames (2, B, H, W, 3) of pairs, each of its own clip."""
    sources = [clip[pair.source] for clip, pair in zip(clips, pairs, strict=True)]
    driving = [clip[pair.driving] for clip, pair in zip(clips, pairs, strict=True)]
    return torch.from_numpy(np.stack([np.stack(sources), np.stack(driving)]))


class Batch(NamedTuple):
    """Pairs of frames of one clip each, on the device."""

    source: Tensor  # (B, 3, H, W) in [-1, 1], channels_last
    driving: Tensor  # (B, 3, H, W), likewise
    points: Tensor | None  # (2, B, P, 2): of the source's and of the driving face, corner aligned; NaN: not found


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches as one."""
    points = [batch.points for batch in batches if batch.points is not None]
    return Batch(
        torch.cat([batch.source for batch in batches]),
        torch.cat([batch.driving for batch in batches]),
        torch.cat(points, dim=1) if points else None,
    )


class PairLoader:
    """The sampler's share of batches of `size` pairs; the n-th batch follows from the sampler's seed and n alone."""

    def __init__(
        self,
        frames: Frames,
        sampler: PairSampler,
        size: int,
        changes: AugmentConfig,
        landmarks: Landmarks | None = None,
    ) -> None:
        self.frames = frames
        self.sampler = sampler
        self.size = size
        self.changes = changes
        self.landmarks = landmarks

    def batch(self, number: int) -> Batch:
        """The share of batch `number`."""
        pairs = self.sampler.batch(number, self.size)
        frames = self.frames.read(number, pairs)
        mirrored = to_device(torch.tensor([pair.mirrored for pair in pairs]), frames.device).view(1, -1, 1, 1, 1)
        frames = torch.where(mirrored, frames.flip(3), frames)
        pair = to_pictures(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        points = None if self.landmarks is None else self.landmarks.read(pairs)
        if self.changes != AugmentConfig():
            draws = self.sampler.share.of(draw(self.size, batch_generator(self.sampler.seed, number, AUGMENT_STREAM)))
            pair = augment(pair, self.changes, draws)
            points = None if points is None else move_points(points, self.changes, draws)
        if points is not None:  # from the picture's edges to the centres of its outer pixels
            points = points * (frames.shape[2] / (frames.shape[2] - 1))
        source, driving = (frame.contiguous(memory_format=torch.channels_last) for frame in pair.unbind())
        return Batch(source, driving, points)


def read_clips(root: Path, config: TrainConfig) -> list[tuple[Clip, np.memmap]]:
    """The clips with a pair of frames, and their frames, uint8 (T, H, W, 3), decoded once.

    A clip that cannot be read is left out with a notice.

    Raises:
        InputError: nothing is left.
    """
    cache = config.data.cache or config.run.output / "frames"
    used = []
    for clip in tqdm(find_clips(root, [config.run.output, cache]), desc=f"reading {root}", unit="clip", leave=False):
        try:
            frames = decode_clip(clip, config.model.image_size, cache)
        except InputError as error:
            logger.warning("left out: %s", error)
            continue
        if len(frames) < 2:
            logger.warning("left out: %s: one frame only", clip.path)
        else:
            used.append((clip, frames))
    return _some(used, root)


def hold_back(clips: list[tuple[Clip, np.memmap]], config: TrainConfig) -> list[tuple[Clip, np.memmap]]:
    """`clips` without the short and the static ones (`DataConfig`), each with a notice. Raises InputError as above."""
    used = []
    for clip, frames in clips:
        if len(frames) < config.data.min_frames:
            logger.warning("held back: %s: %d frames only", clip.path, len(frames))
        elif (change := mean_change(frames)) < config.data.min_change:
            logger.warning("held back: %s: hardly moves (%.2f levels)", clip.path, change)
        else:
            used.append((clip, frames))
    return _some(used, config.data.root)


def _some(clips: list[tuple[Clip, np.memmap]], root: Path) -> list[tuple[Clip, np.memmap]]:
    if not clips:
        raise InputError(f"{root}: no clip in it that can be used")
    return clips


def pair_loader(
    clips: Sequence[tuple[Clip, np.memmap]], config: TrainConfig, device: torch.device, share: Share = WHOLE
) -> PairLoader:
    """A share of the batches from these clips and their frames, for one part of a step."""
    size, workers = config.run.batch_size // config.run.micro_batches, config.data.workers
    files, arrays = [Path(str(array.filename)) for _, array in clips], [array for _, array in clips]
    points = None
    if config.guidance.model is not None and face_users(config):
        points = find_landmarks(files, arrays, config.guidance.model)
    sampler = PairSampler(
        [(clip.identity, len(frames)) for clip, frames in clips],
        config.data,
        seed=config.run.seed,
        openings=None if points is None else [openings_of(clip) for clip in points],
        share=share,
    )
    landmarks = None if points is None else Landmarks(points, device)
    frames: Frames
    if workers:
        frames = StreamedFrames(files, sampler, size, device, workers)
    else:
        frames = MappedFrames(arrays) if device.type == "cpu" else ResidentFrames(arrays, device)
    return PairLoader(frames, sampler, size, config.augment, landmarks)
