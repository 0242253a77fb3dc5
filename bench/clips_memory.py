"""Memory of training's processes by the number of clips: python -m bench.clips_memory [--clips 10 10000]."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import active_children
from pathlib import Path

import torch

from bench.media import write_clip
from cbtalk.train.config import parse_config
from cbtalk.train.data import pair_loader, read_clips

SIDE, FRAMES, FILES = 64, 24, 4
WORKERS, BATCHES = 2, 20


def make_clips(root: Path, count: int, *, links: bool = False) -> None:
    """So many clips that are names of a few files; as `links` they are read once for all of them."""
    originals = root.parent / "originals"
    if not originals.exists():
        originals.mkdir()
        for number in range(FILES):
            write_clip(originals / f"{number}.mp4", side=SIDE, frames=FRAMES, rate=25)
    root.mkdir()
    for number in range(count):
        name = root / f"person{number // 4}__{number}.mp4"
        original = originals / f"{number % FILES}.mp4"
        if links:
            name.symlink_to(original)
        else:
            name.hardlink_to(original)


def memory(root: Path, source: str) -> dict[str, float]:
    """Measure a new process that makes the index and reads batches: MiB, most of it so far, and seconds."""
    command = [sys.executable, "-m", "bench.clips_memory", "--measure", str(root), "--source", source]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]).stdout
    figures: dict[str, float] = json.loads(out)
    return figures


def _measured(root: Path, source: str) -> dict[str, float]:
    torch.set_num_threads(1)
    config = parse_config(
        {
            "model": {"preset": "mini", "image_size": SIDE},
            "data": {"root": str(root), "cache": f"{root}.{source}", "source": source, "workers": WORKERS},
            "run": {"batch_size": 8, "output": f"{root}.run"},
        }
    )
    start = time.monotonic()
    loader = pair_loader(read_clips(root, config), config, torch.device("cpu"))
    seconds = time.monotonic() - start
    for number in range(BATCHES):
        loader.batch(number)
    workers = [process.pid for process in active_children() if process.pid is not None]
    return {
        "parent": _most_mib(os.getpid()),
        "worker": max(_most_mib(process) for process in workers),
        "seconds_to_index": seconds,
    }


def _most_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Print a line for each number of clips and source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[10, 10_000])
    parser.add_argument("--source", choices=["decoded", "files"])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measured(arguments.measure, arguments.source)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.clips:
            make_clips(Path(folder) / str(count), count)
            for source in [arguments.source] if arguments.source else ["files", "decoded"]:
                figures = memory(Path(folder) / str(count), source)
                print(f"{count} clips, {source}:", ", ".join(f"{name} {value:.1f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
