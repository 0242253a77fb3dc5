"""Memory of a batch's processes as its jobs go by."""

import argparse
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bench.batch_work import command, write_jobs
from bench.media import write_clip
from cbtalk.batch import read_ledger
from cbtalk.batch.ledger import NAME

EARLY, MOST_GROWTH = 50, 0.05
WINDOW = 20  # jobs of which the most memory counts: it varies with the moment of a job
FRAMES, SIDE = 3, 256
SOURCES = 20


class Size(NamedTuple):
    """Memory of a process in KiB: its proportional set size, and the part of it that no file backs."""

    whole: int
    own: int


def memory(args: argparse.Namespace, scratch: Path) -> bool:
    """Memory of the parent and of each worker around the 50th job of three frames and at the last ones."""
    sources, clips = _files(scratch, -(-args.jobs // SOURCES))
    manifest, lines = write_jobs(scratch / "jobs.csv", sources, clips, args.jobs)
    folder = scratch / "out"
    process = subprocess.Popen(
        command(manifest, folder, "--motion-cache-mb=1", "--set", "crop=centre", "driving_crop=centre")
    )
    early: dict[tuple[int, str], Size] = {}
    late: dict[tuple[int, str], Size] = {}
    while process.poll() is None:
        done = _done(folder)
        for key, size in _sizes(process.pid):
            if EARLY - WINDOW <= done <= EARLY:
                early[key] = max(size, early.get(key, size))
            elif done >= len(lines) - WINDOW:
                late[key] = max(size, late.get(key, size))
        time.sleep(0.2)
    print(f"{_done(folder)} jobs done, exit code {process.returncode}")
    good = process.returncode == 0 and early.keys() == late.keys() and len(early) > 1
    for key in early.keys() & late.keys():
        (before, own_before), (after, own_after) = early[key], late[key]
        growth = after / before - 1
        print(
            f"{key[1]}: {before / 2**10:.1f} MiB at job {EARLY}, {after / 2**10:.1f} MiB at the end, {growth:+.1%}; "
            f"of its own {own_before / 2**10:.1f} and {own_after / 2**10:.1f}, {own_after / own_before - 1:+.1%}"
        )
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


def _done(folder: Path) -> int:
    return sum(entry.state == "done" for entry in read_ledger(folder)) if (folder / NAME).exists() else 0


def _sizes(parent: int) -> Iterator[tuple[tuple[int, str], Size]]:
    """Memory of a process and of each that it began."""
    try:
        children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except FileNotFoundError:  # it has ended
        return
    for pid in (parent, *children):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text()
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        name = "parent" if pid == parent else "worker" if "spawn_main" in words else "resource tracker"
        yield (pid, name), Size(sizes["Pss"], sizes["Pss_Anon"])
