"""Batches as users run them: killed again and again (`kills`), and their speed beside the model alone (`speed`).

python -m bench.batch kills --jobs 300 --kills 50
python -m bench.batch speed
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cbtalk.batch import read_ledger
from cbtalk.batch.estimate import frame_seconds
from cbtalk.media.video_reader import Frame, open_video

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
PORTRAITS, CLIPS = 10, 30


def write_manifest(folder: Path, jobs: int, frames: tuple[int, int], data: Path, seed: int) -> Path:
    """Jobs of 10 portraits and 30 clips, each of a number of frames in a range."""
    draw = random.Random(seed)
    portraits = sorted((data / "portraits_val").iterdir())
    clips = sorted((data / "train").glob("*.mp4"))[:CLIPS]
    if len(clips) < CLIPS or not portraits:
        sys.exit(f"{data}: lacks portraits_val or train with {CLIPS} clips")
    pairs = [(source, clip) for source in _ten(portraits) for clip in clips]
    lengths = {clip: draw.randint(*frames) for clip in clips}
    lines = [f'"{s}","{c}",{n:03}.mp4,{lengths[c]},centre,centre' for n, (s, c) in enumerate(pairs[:jobs])]
    manifest = folder / "jobs.csv"
    manifest.write_text("\n".join(["source,driving,output,max_frames,crop,driving_crop", *lines]) + "\n")
    return manifest


def _ten(portraits: Sequence[Path]) -> list[Path]:
    return [portraits[number % len(portraits)] for number in range(min(PORTRAITS, len(portraits)))]


def command(manifest: Path, folder: Path, *more: str) -> list[str]:
    """The command line of a batch."""
    return [sys.executable, "-m", "cbtalk", "batch", str(manifest), "-o", str(folder), "--quiet", *more]


def kills(args: argparse.Namespace, scratch: Path) -> bool:
    """Kills a batch with SIGKILL at random moments, begins it again each time, and checks all videos in the end."""
    manifest, folder = write_manifest(scratch, args.jobs, args.frames, args.data, args.seed), scratch / "out"
    jobs = len(manifest.read_text().splitlines()) - 1
    draw, seen, repeated = random.Random(args.seed), 0, 0
    done_before: dict[str, float] = {}
    for kill in range(args.kills):
        process = subprocess.Popen(command(manifest, folder))
        try:
            process.wait(args.least + draw.random() * args.spread)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            seen += 1
        done = {entry.output: entry.changed for entry in read_ledger(folder) if entry.state == "done"}
        repeated += sum(done[name] != when for name, when in done_before.items() if name in done)
        lost = [name for name in done_before if name not in done]
        if lost:
            print(f"kill {kill}: {len(lost)} finished jobs were lost: {lost[:3]}")
            return False
        done_before = done
        print(f"kill {kill + 1}: {len(done)} of {jobs} done", flush=True)
    code = subprocess.run(command(manifest, folder)).returncode
    return _judge(args, manifest, folder, jobs, code, seen, repeated)


def _judge(
    args: argparse.Namespace, manifest: Path, folder: Path, jobs: int, code: int, seen: int, repeated: int
) -> bool:
    entries = read_ledger(folder)
    states = Counter(entry.state for entry in entries)
    expected = {f"{number:03}.mp4" for number in range(jobs)}
    files = {path.name for path in folder.iterdir() if path.is_file()}
    stray = {name for name in files - expected if not name.startswith("batch.sqlite3") and not name.endswith(".lock")}
    wrong = _wrong(manifest, folder, args.compared, args.seed)
    attempts = sum(entry.attempts for entry in entries)
    print(f"{seen} kills of {args.kills} met a running batch; exit code {code}; states {dict(states)}")
    print(f"attempts {attempts} for {jobs} jobs; finished jobs done again: {repeated}; stray files: {sorted(stray)}")
    print(f"{args.compared} videos compared with `cbtalk render`: {len(wrong)} differ {wrong}")
    return code == 0 and states == {"done": jobs} and not stray and not wrong and not repeated


def _wrong(manifest: Path, folder: Path, compared: int, seed: int) -> list[str]:
    """Outputs whose frames are not those of a render of its own."""
    wrong = []
    lines = manifest.read_text().splitlines()[1:]
    for line in random.Random(seed).sample(lines, min(compared, len(lines))):
        source, driving, output, frames, *_ = (cell.strip('"') for cell in line.split(","))
        alone = folder.parent / "alone.mp4"
        words = [f"--source={source}", f"--driving={driving}", f"--output={alone}", f"--max-frames={frames}"]
        words += ["--crop=centre", "--driving-crop=centre", "--quiet", "--threads=1"]
        subprocess.run([sys.executable, "-m", "cbtalk", "render", *words], check=True)
        if not _same(folder / output, alone):
            wrong.append(output)
    return wrong


def _same(one: Path, other: Path) -> bool:
    """Whether two videos have the same frames at the same times."""
    with open_video(one) as first, open_video(other) as second:
        a, b = list(first), list(second)
    return len(a) == len(b) and all(
        isinstance(x, Frame) and isinstance(y, Frame) and x.pts == y.pts and np.array_equal(x.image, y.image)
        for x, y in zip(a, b, strict=True)
    )


def speed(args: argparse.Namespace, scratch: Path) -> bool:
    """Wall time of a batch of short jobs by several workers, against the model alone and single commands."""
    frames = args.frames[0]
    manifest = write_manifest(scratch, args.jobs, (frames, frames), args.data, args.seed)
    jobs = len(manifest.read_text().splitlines()) - 1
    cores = torch.get_num_threads()
    alone = frame_seconds("mini", "cpu") * frames * jobs
    print(f"{jobs} jobs of {frames} frames; the model alone, {cores} threads: {alone:.1f} s")
    for workers in args.workers:
        folder = scratch / f"out{workers}"
        start = time.perf_counter()
        subprocess.run(command(manifest, folder, f"--workers={workers}"), check=True)
        seconds = time.perf_counter() - start
        print(f"{workers} workers: {seconds:.1f} s, {seconds / alone:.2f} of the model alone", flush=True)
        shutil.rmtree(folder)
    start = time.perf_counter()
    _wrong(manifest, scratch, args.compared, args.seed)
    seconds = (time.perf_counter() - start) / args.compared * jobs
    print(f"single commands: {seconds:.1f} s, from {args.compared} of them; {seconds / alone:.2f} of the model alone")
    return True


def main() -> int:
    """Exit code 1 where a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "speed"])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--frames", type=int, nargs=2, default=(25, 75), help="of a clip, at least and at most")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--least", type=float, default=8.0, help="seconds before a kill")
    parser.add_argument("--spread", type=float, default=30.0, help="seconds over which kills are spread after that")
    parser.add_argument("--compared", type=int, default=10, help="videos compared with single renders")
    parser.add_argument("--workers", type=int, nargs="*", default=(1, 2, 4))
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        good = {"kills": kills, "speed": speed}[args.what](args, Path(scratch))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
