"""The time that a batch should take: the start of its workers, and frames by the time of one, on this machine."""

import time
from collections.abc import Iterable
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from cbtalk.batch.job import Job
from cbtalk.batch.process_pool import ProcessPool
from cbtalk.batch.run import BatchOptions, worker_settings
from cbtalk.media.span import Span
from cbtalk.model.checkpoint import load
from cbtalk.precision import float32_convolutions
from cbtalk.render.driving import video_info
from cbtalk.render.motion_changes import cut
from cbtalk.render.motion_file import load_motion
from cbtalk.render.video import MOTION_SUFFIXES

_ROUNDS = 3
_TICK = 0.2  # seconds between looks at workers that start


def frames_of(jobs: Iterable[Job]) -> int:
    """Frames of all jobs, as the headers of their driving videos claim; without those behind URLs."""
    known = cache(_frames)
    total = 0
    for job in jobs:
        if not isinstance(job.driving, Path):
            continue
        frames, limit = known(job.driving, job.options.driving.span), job.options.driving.max_frames
        total += frames if limit is None else min(frames, limit)
    return total


def _frames(driving: Path, span: Span) -> int:
    if driving.suffix.lower() in MOTION_SUFFIXES:
        return cut(driving, load_motion(driving, fingerprint=None, num_keypoints=None), span).frames
    info = video_info(driving, span)
    return info.frames or round(float((info.duration or 0) * info.average_rate))


def start_seconds(options: BatchOptions, workers: int) -> float:
    """Seconds until so many workers of this machine have started and loaded the weights: they do, and end again.

    Raises what keeps a worker from starting.
    """
    with TemporaryDirectory(prefix="cbtalk-") as folder:
        start = time.perf_counter()
        with closing(ProcessPool(worker_settings(Path(folder), options, workers))) as pool:
            while pool.idle < workers:
                pool.outcomes(_TICK)
            return time.perf_counter() - start


@float32_convolutions()
@torch.inference_mode()
def frame_seconds(weights: str, device: str, dtype: torch.dtype = torch.float32, batch_size: int = 4) -> float:
    """Seconds that the model takes for a frame: the best of a few batches of noise, after one to warm up."""
    talker = load(weights, device=device, dtype=dtype)
    size = talker.image_size
    images = torch.rand(batch_size, 3, size, size, device=device) * 2 - 1
    state = talker.encode_source(images[:1])
    best = float("inf")
    for _ in range(_ROUNDS + 1):
        start = time.perf_counter()
        talker.animate(state, images).cpu()
        best = min(best, (time.perf_counter() - start) / batch_size)
    return best
