"""The speed of batches against the model alone, and of single commands against both."""

import argparse
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from bench.batch_stages import stage_shares
from bench.batch_work import command, portraits, short_clips, single, write_jobs
from bench.media import write_clip
from cbtalk.allocator import keep_freed_memory
from cbtalk.batch import Entry, read_ledger, read_manifest
from cbtalk.model.checkpoint import load
from cbtalk.precision import dtype_of

WEIGHTS, BATCH = "mini", 4
PRECISIONS = ("fp32", "bf16")
PORTRAITS, FRAMES, SIDE, RATE = 4, 25, 256, 25
CENTRED = {"crop": "centre", "driving_crop": "centre"}  # the synthetic images have no faces

Record = dict[str, Any]


class Floor(NamedTuple):
    """The cost of the model alone: frames a second of all processes, and seconds of CPU time a frame."""

    rate: float
    cpu: float


def model_alone(workers: int, precision: str = "auto", seconds: float = 6.0) -> Floor:
    """Of so many processes at once, cores divided, that animate batches of four and do nothing else."""
    context = get_context("spawn")
    pipes = [context.Pipe() for _ in range(workers)]
    for _, theirs in pipes:
        context.Process(target=_animate, args=(theirs, workers, precision, seconds), daemon=True).start()
    for words in ("warm", "go"):
        for ours, _ in pipes:
            ours.recv() if words == "warm" else ours.send(words)
    found = [ours.recv() for ours, _ in pipes]
    return Floor(sum(rate for rate, _ in found), sum(cpu for _, cpu in found) / workers)


@torch.inference_mode()
def _animate(connection: Connection, workers: int, precision: str, seconds: float) -> None:
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // workers))
    keep_freed_memory()
    talker = load(WEIGHTS, dtype=dtype_of(precision, "cpu"))
    images = torch.rand(BATCH, 3, talker.image_size, talker.image_size) * 2 - 1
    state = talker.encode_source(images[:1])
    talker.animate(state, images)
    connection.send("warm")
    connection.recv()
    frames, begin, cpu = 0, time.perf_counter(), time.process_time()
    while (taken := time.perf_counter() - begin) < seconds:
        talker.animate(state, images)
        frames += BATCH
    connection.send((frames / taken, (time.process_time() - cpu) / frames))


def timed_batch(manifest: Path, folder: Path, *more: str) -> Record:
    """Seconds, CPU time and frames of a batch, the seconds before its first job, and frames a second from then on."""
    wall, begin, before = time.time(), time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command(manifest, folder, *more), check=True)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    entries = read_ledger(folder)
    frames = sum(entry.frames or 0 for entry in entries)
    first, last = min(map(_begun, entries)), max(entry.changed for entry in entries)
    start, running = first - wall, frames / (last - first)
    return {"seconds": seconds, "cpu": cpu, "frames": frames, "start": start, "running": running}


def _begun(entry: Entry) -> float:
    return entry.changed - (entry.seconds or 0.0)


def measure_batch(workers: Sequence[int], jobs: int) -> Record:
    """Short jobs by several workers, one long job of as many frames, and where a worker's time goes."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        sources, clips = _synthetic(scratch, jobs)
        short, lines = write_jobs(scratch / "short.csv", sources, clips[:-1], jobs)
        long, _ = write_jobs(scratch / "long.csv", sources, clips[-1:], 1)
        asked = [f"{name}={value}" for name, value in CENTRED.items()]
        rows = []
        for precision in PRECISIONS:
            for manifest, number in [*((short, number) for number in workers), (long, 1)]:
                folder = scratch / f"{precision} {manifest.stem} {number}"
                words = (f"--workers={number}", f"--precision={precision}", "--set", *asked)
                record = timed_batch(manifest, folder, *words)
                what = f"{len(lines)} of {FRAMES} frames" if manifest is short else f"1 of {jobs * FRAMES} frames"
                rows.append({"precision": precision, "jobs": what, "workers": number, **record})
                rows[-1]["floor"] = model_alone(number, precision).rate
        found, _ = read_manifest(short, scratch / "shares", CENTRED)
        shares = stage_shares(found[:4], WEIGHTS, 1, scratch)
    return {"weights": WEIGHTS, "rows": rows, "shares": shares}


def _synthetic(scratch: Path, jobs: int) -> tuple[list[Path], list[Path]]:
    """Images, and clips: those of so many jobs, and at the end one of as many frames as all have."""
    generator = np.random.default_rng(0)
    sources = [scratch / f"{number}.png" for number in range(PORTRAITS)]
    for source in sources:
        small = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(source)
    lengths = [FRAMES] * -(-jobs // PORTRAITS) + [jobs * FRAMES]
    clips = [scratch / f"{number}.mp4" for number in range(len(lengths))]
    for clip, frames in zip(clips, lengths, strict=True):
        write_clip(clip, side=SIDE, frames=frames, rate=RATE)
    return sources, clips


def speed(args: argparse.Namespace, scratch: Path) -> bool:
    """Wall time of a batch of real short jobs, against the model alone for its frames, and single commands."""
    lengths = (FRAMES, FRAMES)
    clips = short_clips(args.clips, scratch, -(-args.jobs // PORTRAITS), lengths, args.every, args.seed)
    sources = portraits(args.portraits, clips, scratch, PORTRAITS)
    manifest, lines = write_jobs(scratch / "jobs.csv", sources, clips, args.jobs)
    good = True
    for workers in args.workers:
        before = model_alone(workers)
        record = timed_batch(manifest, scratch / f"out{workers}", f"--workers={workers}")
        after = model_alone(workers)
        frames = record["frames"]
        alone, cpu = 2 * frames / (before.rate + after.rate), frames * (before.cpu + after.cpu) / 2
        ratio = record["seconds"] / alone
        print(
            f"{workers} workers: {record['seconds']:.1f} s, {record['start']:.1f} s of them before the first job; "
            f"the model alone {alone:.1f} s ({before.rate:.2f} frames a second before, {after.rate:.2f} after); "
            f"ratio {ratio:.3f}; CPU time {record['cpu']:.1f} s, the model's {cpu:.1f} s, "
            f"ratio {record['cpu'] / cpu:.3f}",
            flush=True,
        )
        good = good and ratio <= 1.10
    begin = time.perf_counter()
    for line in lines[: args.singles]:
        subprocess.run(single(line, scratch / "alone.mp4"), check=True)
    each = (time.perf_counter() - begin) / args.singles
    print(f"single commands: {each:.2f} s each, from {args.singles}; {each * len(lines):.0f} s for {len(lines)}")
    return good
