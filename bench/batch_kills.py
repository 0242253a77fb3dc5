"""A batch that is killed again and again, and begun again each time by the same command."""

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.batch_work import Line, command, portraits, same, short_clips, single, write_jobs
from cbtalk.allocator import keep_freed_memory
from cbtalk.batch import Entry, read_ledger
from cbtalk.batch.ledger import NAME
from cbtalk.model.checkpoint import load
from cbtalk.precision import dtype_of
from cbtalk.render import render_video
from cbtalk.render.cache import RenderCache

PORTRAITS = 10
BY_COMMAND = 3  # videos that are also compared with the command `cbtalk render`


def kills(args: argparse.Namespace, scratch: Path) -> bool:
    """Kills a batch with SIGKILL at random moments, begins it again each time, and checks all videos in the end."""
    count = -(-args.jobs // PORTRAITS)
    clips = short_clips(args.clips, scratch, count, args.frames, args.every, args.seed)
    sources = portraits(args.portraits, clips, scratch, PORTRAITS)
    manifest, lines = write_jobs(scratch / "jobs.csv", sources, clips, args.jobs)
    folder = scratch / "out"
    begun = time.monotonic()
    met = _killed_again_and_again(args, manifest, folder)
    code = subprocess.run(command(manifest, folder)).returncode
    print(f"all done after {time.monotonic() - begun:.0f} s, the last command's exit code {code}")
    entries = read_ledger(folder)
    workers = len(os.sched_getaffinity(0))
    repeated = sum(entry.attempts for entry in entries) - len(lines)
    print(f"{met} of {args.kills} kills met a running batch of {workers} workers; {repeated} jobs were begun again")
    faults = [*_faults(folder, lines, entries), *_wrong(args, folder, lines, scratch)]
    if repeated > met * workers:
        faults.append("more jobs than one for each kill and worker were repeated")
    print("\n".join(faults) or "no fault")
    return code == 0 and not faults


def _killed_again_and_again(args: argparse.Namespace, manifest: Path, folder: Path) -> int:
    """The kills that met a running batch: every second one of its whole process group, the others of the driver.

    They come after random times, or where that is earlier, when the batch has done its share of the jobs: so that none
    is left without work.
    """
    draw, met = random.Random(args.seed), 0
    done: dict[str, float] = {}  # when each was done
    for kill in range(args.kills):
        process = subprocess.Popen(command(manifest, folder), start_new_session=True)
        until = time.monotonic() + args.least + draw.random() * args.spread
        try:
            while process.poll() is None and time.monotonic() < until:
                time.sleep(draw.random())
                if len(_done(folder)) > args.jobs * (kill + 1) / (args.kills + 1):
                    break
            met += process.poll() is None
        finally:
            os.killpg(process.pid, signal.SIGKILL) if kill % 2 and process.poll() is None else process.kill()
            process.wait()
        now = _done(folder)
        lost = [output for output, when in done.items() if now.get(output) != when]
        print(f"kill {kill + 1}: {len(now)} of {args.jobs} done", flush=True)
        if lost:
            raise SystemExit(f"finished jobs were lost or done again: {lost}")
        done = now
    return met


def _done(folder: Path) -> dict[str, float]:
    """The time at which each job was done."""
    entries = read_ledger(folder) if (folder / NAME).exists() else []
    return {entry.output: entry.changed for entry in entries if entry.state == "done"}


def _faults(folder: Path, lines: Sequence[Line], entries: Sequence[Entry]) -> list[str]:
    """Faults of the ledger and the folder."""
    base = sqlite3.connect(folder / NAME)
    faults = [f"ledger: {text}" for (text,) in base.execute("PRAGMA integrity_check") if text != "ok"]
    base.close()
    if {entry.output for entry in entries} != {line.output for line in lines}:
        faults.append("the ledger's jobs are not those of the manifest")
    for entry in entries:
        path = folder / entry.output
        if entry.state != "done" or not path.exists() or path.stat().st_size != entry.bytes:
            faults.append(f"{entry.output}: {entry.state}, {entry.bytes} bytes")
    known = {line.output for line in lines} | {NAME, ".batch.lock", ".workers.lock", ".motions"}
    names = {path.name for path in folder.iterdir()} - known
    names |= {path.name for path in (folder / ".motions").iterdir() if path.name[0] == "."}
    return faults + [f"{name}: a stray file" for name in sorted(names)]


def _wrong(args: argparse.Namespace, folder: Path, lines: Sequence[Line], scratch: Path) -> list[str]:
    """Outputs whose frames are not those of a render of its own: a sample, by one process with one model.

    That this process gives what the command gives is tried first.
    """
    keep_freed_memory()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    talker, alone = load("mini", dtype=dtype_of("auto", "cpu")), scratch / "alone.mp4"
    chosen = random.Random(args.seed).sample(list(lines), min(args.compared, len(lines)))
    faults = []
    for line in chosen[:BY_COMMAND]:
        subprocess.run(single(line, alone), check=True)
        if not same(folder / line.output, alone):
            faults.append(f"{line.output}: is not what `cbtalk render` makes")
    for line in chosen:
        render_video(line.source, line.driving, alone, cache=RenderCache(lambda: talker))
        if not same(folder / line.output, alone):
            faults.append(f"{line.output}: differs from a render of its own")
    print(f"{len(chosen)} videos compared frame by frame, {min(BY_COMMAND, len(chosen))} of them with the command too")
    return faults
