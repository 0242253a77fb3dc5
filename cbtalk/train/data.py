"""Batches of pairs: frames kept on the device or streamed to it, then flipped and augmented there."""

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cbtalk.dataset import ClipSet, index_clips
from cbtalk.errors import CbtalkError, InputError, TrainingError
from cbtalk.model.images import to_images
from cbtalk.train.augment import augment, draw, move_points
from cbtalk.train.config import face_users
from cbtalk.train.draws import batch_generator, to_device
from cbtalk.train.face_points import openings_of
from cbtalk.train.landmarks import Landmarks, find_landmarks
from cbtalk.train.pairs import Pair, PairSampler, frame_numbers
from cbtalk.train.sections import AugmentConfig, TrainConfig
from cbtalk.train.share import WHOLE, Share

logger = logging.getLogger(__name__)

AUGMENT_STREAM = 0
RESTARTS = 3
PREFETCHED = 4  # batches a worker prepares ahead
LAST_BATCH = 1 << 62


class Frames(Protocol):
    """The source of a batch's frames."""

    def read(self, number: int, pairs: Sequence[Pair]) -> Tensor:
        """Source and driving frames of batch `number`, uint8 (2, B, H, W, 3), on the device."""


class Clips(Protocol):
    """Clips as `ClipSet` has them."""

    @property
    def lengths(self) -> np.ndarray:
        """The number of frames of each."""

    @property
    def size(self) -> int:
        """The side of the frames."""

    def read(self, number: int, frames: Sequence[int]) -> np.ndarray:
        """Frames of a clip, uint8 (N, size, size, 3)."""


class ResidentFrames:
    """Every frame of every clip in one tensor on the device: a batch is one gather."""

    def __init__(self, clips: Clips, device: torch.device) -> None:
        self.first = np.cumsum([0, *clips.lengths])
        shape = (int(self.first[-1]), clips.size, clips.size, 3)
        self.frames = torch.empty(shape, dtype=torch.uint8, device=device)
        for number, (start, end) in enumerate(pairwise(self.first.tolist())):
            self.frames[start:end] = torch.from_numpy(clips.read(number, range(end - start)))

    def read(self, number: int, pairs: Sequence[Pair]) -> Tensor:
        """As `Frames.read`."""
        return self.frames[to_device(frame_numbers(self.first, pairs), self.frames.device)]


class MappedFrames:
    """Frames read in this process, for the CPU: decoded ones are mapped from their files, and need no copy there."""

    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    def read(self, number: int, pairs: Sequence[Pair]) -> Tensor:
        """As `Frames.read`."""
        return _gathered(self.clips, pairs)


class StreamedFrames:
    """Frames read by worker processes ahead of their batch, for sets too large for the device.

    Args:
        clips: of which each worker has the numbers, and reads the frames itself.
        sampler: says which pairs each worker reads; its batches are asked for in the order of their numbers.
    """

    def __init__(self, clips: Clips, sampler: PairSampler, size: int, device: torch.device, workers: int) -> None:
        self.batches = _Batches(clips, sampler, size)
        self.device = device
        self.workers = workers
        self.stream: Iterator[Tensor | CbtalkError] = iter(())
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
            if isinstance(frames, CbtalkError):
                raise frames
            self.next = number + 1
            return frames.to(self.device, non_blocking=True)
        raise TrainingError(f"processes that read frames died {RESTARTS} times in a row; fewer data.workers need less")

    def _from(self, number: int) -> Iterator[Tensor | CbtalkError]:
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


class _Batches(Dataset[Tensor | CbtalkError]):
    def __init__(self, clips: Clips, sampler: PairSampler, size: int) -> None:
        self.clips = clips
        self.sampler = sampler
        self.size = size

    def __getitem__(self, number: int) -> Tensor | CbtalkError:
        """The frames of a batch, or why they cannot be read: the loader would make a page of it."""
        try:
            return _gathered(self.clips, self.sampler.batch(number, self.size))
        except CbtalkError as error:
            return error


def _gathered(clips: Clips, pairs: Sequence[Pair]) -> Tensor:
    """The frames (2, B, H, W, 3) of pairs, each of its own clip."""
    return torch.from_numpy(np.stack([clips.read(pair.clip, (pair.source, pair.driving)) for pair in pairs], axis=1))


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
        pair = to_images(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        points = None if self.landmarks is None else self.landmarks.read(pairs)
        if self.changes != AugmentConfig():
            draws = self.sampler.share.of(draw(self.size, batch_generator(self.sampler.seed, number, AUGMENT_STREAM)))
            pair = augment(pair, self.changes, draws)
            points = None if points is None else move_points(points, self.changes, draws)
        if points is not None:  # from the image's edges to the centres of its outer pixels
            points = points * (frames.shape[2] / (frames.shape[2] - 1))
        source, driving = (frame.contiguous(memory_format=torch.channels_last) for frame in pair.unbind())
        return Batch(source, driving, points)


def read_clips(root: Path, config: TrainConfig) -> ClipSet:
    """The clips with a pair of frames; those that are new are read once.

    A clip that cannot be read is left out with a notice.

    Raises:
        InputError: nothing is left.
        OutputError, SystemFailure: the cache folder cannot be written.
    """
    cache = config.data.cache or config.run.output / "frames"
    clips = index_clips(root, config.data.source, config.model.image_size, cache, [config.run.output, cache])
    single = clips.lengths < 2
    for number in np.flatnonzero(single).tolist():
        logger.warning("left out: %s: one frame only", clips.title(number))
    return _some(clips.taken(~single), root)


def hold_back(clips: ClipSet, config: TrainConfig) -> ClipSet:
    """`clips` without the short and the static ones (`DataConfig`), each with a notice. Raises InputError as above."""
    short, static = clips.lengths < config.data.min_frames, clips.changes < config.data.min_change
    for number in np.flatnonzero(short | static).tolist():
        reason = f"{clips.lengths[number]} frames only"
        if not short[number]:
            reason = f"hardly moves ({clips.changes[number]:.2f} levels)"
        logger.warning("held back: %s: %s", clips.title(number), reason)
    return _some(clips.taken(~(short | static)), config.data.root)


def _some(clips: ClipSet, root: Path) -> ClipSet:
    if not len(clips):
        raise InputError(f"{root}: no clip in it that can be used")
    return clips


def pair_loader(clips: ClipSet, config: TrainConfig, device: torch.device, share: Share = WHOLE) -> PairLoader:
    """A share of the batches from these clips, for one part of a step."""
    size, workers = config.run.batch_size // config.run.micro_batches, config.data.workers
    points = None
    if config.guidance.model is not None and face_users(config):
        points = find_landmarks(clips.own_files(), clips, config.guidance.model)
    sampler = PairSampler(
        list(zip(clips.people.tolist(), clips.lengths.tolist(), strict=True)),
        config.data,
        seed=config.run.seed,
        openings=None if points is None else [openings_of(clip) for clip in points],
        share=share,
    )
    landmarks = None if points is None else Landmarks(points, device)
    frames: Frames
    if workers:
        frames = StreamedFrames(clips, sampler, size, device, workers)
    else:
        frames = MappedFrames(clips) if device.type == "cpu" else ResidentFrames(clips, device)
    return PairLoader(frames, sampler, size, config.augment, landmarks)
