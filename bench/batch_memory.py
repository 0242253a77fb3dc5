"""Memory of a batch's processes as its jobs go by."""

import argparse
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from bench.batch_work import command, write_jobs
from bench.media import write_clip
from cbtalk.batch import read_ledger
from cbtalk.batch.ledger import NAME

EARLY, MOST_GROWTH = 50, 0.05
FRAMES, SIDE = 2, 256
SOURCES = 20  # more than a worker keeps


def memory(args: argparse.Namespace, scratch: Path) -> bool:
    """Memory of the parent and of each worker after 50 jobs of two frames and after all of them."""
    sources, clips = _files(scratch, -(-args.jobs // SOURCES))
    manifest, lines = write_jobs(scratch / "jobs.csv", sources, clips, args.jobs)
    folder = scratch / "out"
    process = subprocess.Popen(
        command(manifest, folder, "--motion-cache-mb=1", "--set", "crop=centre", "driving_crop=centre")
    )
    _await(folder, EARLY, process)
    early = dict(_sizes(process.pid))
    late = early
    while process.poll() is None and _done(folder) < len(lines) - 2:
        late = dict(_sizes(process.pid)) or late
        time.sleep(0.2)
    code = process.wait()
    print(f"{_done(folder)} jobs done, exit code {code}")
    good = code == 0 and early.keys() == late.keys()
    for key, before in early.items():
        name, after = key[1], late.get(key, 0)
        growth = after / before - 1
        print(f"{name}: {before / 2**10:.1f} MiB after {EARLY} jobs, {after / 2**10:.1f} MiB at the end, {growth:+.1%}")
        good = good and growth <= MOST_GROWTH
    return good


def _files(scratch: Path, clips: int) -> tuple[list[Path], list[Path]]:
    generator = np.random.default_rng(0)
    sources = [scratch / f"{number}.png" for number in range(SOURCES)]
    for source in sources:
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(source)
    drivings = [scratch / f"{number}.mp4" for number in range(clips)]
    for driving in drivings:
        write_clip(driving, side=SIDE, frames=FRAMES, rate=25)
    return sources, drivings


def _await(folder: Path, jobs: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None and _done(folder) < jobs:
        time.sleep(0.2)


def _done(folder: Path) -> int:
    return sum(entry.state == "done" for entry in read_ledger(folder)) if (folder / NAME).exists() else 0


def _sizes(parent: int) -> Iterator[tuple[tuple[int, str], int]]:
    """Proportional set size in KiB of a process and of each that it began."""
    children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    for pid in (parent, *children):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text()
            name = "parent" if pid == parent else "worker" if "spawn_main" in words else "resource tracker"
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    yield (pid, name), int(line.split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
