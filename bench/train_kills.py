"""A tiny training run that is ended again and again, in every way, and begun again each time by the same command.

python -m bench.train_kills [--kills 500] [--seed 0] [--spread 3]

After each end there must be as many finished steps as before it, and as many as the run said that it had saved; the
checkpoint must be whole, and the next run must go on from it. In the end the log must have every step once. Runs are
forked from a process that has imported everything, so that 500 take minutes; of those on two processes, every fifth is
a true torchrun. Exit code 1 where anything is not kept.
"""

import argparse
import csv
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import yaml

from bench.launch import Group
from bench.media import write_clip
from cbtalk.atomic import SUFFIX
from cbtalk.cli import main as cbtalk
from cbtalk.errors import WeightsError
from cbtalk.model.checkpoint import load_weights
from cbtalk.train.record import WEIGHTS_NAME
from cbtalk.train.state import checkpoints, load_checkpoint

MODEL = {
    "image_size": 64,
    "keypoints": 4,
    "keypoint_expansion": 4,
    "dense_expansion": 4,
    "hourglass_blocks": 2,
    "hourglass_max": 16,
    "nf": 8,
    "ch_mult": [1, 2, 2],
    "residual_blocks": 1,
    "norm_groups": 4,
    "motion_codes": 16,
    "motion_dim": 8,
    "motion_layers": 1,
    "motion_hidden": 16,
    "appearance_codes": 16,
    "appearance_dim": 16,
    "appearance_layers": 1,
    "heads": 2,
}
SAMPLE_EVERY = 5  # steps
ENDS_WITHIN = 60  # seconds after the last signal; a busy machine is slow
TWO_PROCESSES = 10  # every tenth kill meets a run on two processes,
TORCHRUN = 5  # every fifth of them under torchrun itself
KINDS: dict[str, tuple[int, ...]] = {  # signals, one after the other
    "SIGINT": (signal.SIGINT,),
    "SIGTERM": (signal.SIGTERM,),
    "SIGHUP": (signal.SIGHUP,),
    "SIGKILL": (signal.SIGKILL,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
    "SIGTERM, SIGKILL": (signal.SIGTERM, signal.SIGKILL),
    "SIGINT three times": (signal.SIGINT, signal.SIGINT, signal.SIGINT),
}


class Round(NamedTuple):
    """One run that was ended."""

    kind: str
    before: int  # steps in the newest checkpoint when the first signal was sent
    codes: tuple[int | None, ...]
    expected: set[int]  # among which each code must be
    said: str  # by all its processes


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spread", type=float, default=3.0, help="seconds over which first signals are spread")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        faults = _killed(args, Path(scratch))
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


def _killed(args: argparse.Namespace, scratch: Path) -> list[str]:
    """Ends runs, and says what they did; returns the faults."""
    config, output = _write_run(scratch)
    draw, begun = random.Random(args.seed), time.monotonic()
    faults: list[str] = []
    ends: Counter[str] = Counter()
    finished = 0
    for number in range(1, args.kills + 1):
        this = _ended(number, config, output, draw, draw.random() * args.spread)
        faults += [f"kill {number}, {this.kind}: {fault}" for fault in _faults(this, output, finished)]
        steps = _steps(output)
        ends[f"{this.kind}: {_outcome(this)}"] += 1
        print(f"kill {number}, {this.kind}: {this.codes}, {steps - finished} more steps, {steps} in all", flush=True)
        finished = steps
    faults += _unlike_a_whole_run(config, output, finished + 2)
    print(f"{args.kills} kills in {time.monotonic() - begun:.0f} s, {finished} steps finished")
    for end, count in sorted(ends.items()):
        print(f"{count:6d}  {end}")
    return faults


def _write_run(scratch: Path) -> tuple[Path, Path]:
    """The configuration of a run that writes all that runs write, every few steps; and its output folder."""
    for person in range(3):
        (scratch / "clips").mkdir(exist_ok=True)
        write_clip(scratch / "clips" / f"person{person}.mp4", side=64, frames=8, rate=25)
    output = scratch / "run"
    every = {"log_every": 1, "sample_every": SAMPLE_EVERY, "checkpoint_every": 2, "keep_checkpoints": 2}
    settings = {
        "model": MODEL,
        "data": {"root": str(scratch / "clips")},
        "loss": {"perceptual": 0.0, "low_resolution": 0.0},
        "adversarial": {"weight": 0.0},
        "run": {"output": str(output), "steps": 1_000_000, "batch_size": 2, "device": "cpu", "threads": 1, **every},
    }
    config = scratch / "run.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return config, output


def _steps(output: Path) -> int:
    """Finished steps, by the newest checkpoint."""
    newest = checkpoints(output / "checkpoints")[-1:]
    return int(newest[0].stem.removeprefix("step_")) if newest else 0


def _train(config: Path, *arguments: str) -> int:
    return cbtalk(["train", str(config), *arguments])


def _ended(number: int, config: Path, output: Path, draw: random.Random, after: float) -> Round:
    if number % (TWO_PROCESSES * TORCHRUN) == 0:
        return _torchrun(config, output, draw)
    if number % TWO_PROCESSES == 0:
        return _two_processes(config, output, draw, after)
    return _one_process(config, output, draw, after)


def _one_process(config: Path, output: Path, draw: random.Random, after: float) -> Round:
    kind = draw.choice(list(KINDS))
    group = Group(1, _train, config)
    group.begun()
    time.sleep(after)
    before = _steps(output)
    for place, number in enumerate(KINDS[kind]):
        if place:
            time.sleep(0.21 + 0.3 * draw.random())  # what comes within 0.2 s counts as one press
        group.kill(number)
    expected = {code for number in KINDS[kind] for code in (-number, 128 + number)}
    return Round(kind, before, tuple(group.codes(ENDS_WITHIN)), expected, group.said())


def _two_processes(config: Path, output: Path, draw: random.Random, after: float) -> Round:
    """One of two processes is ended, and then the other one asked to end, as torchrun would."""
    number, rank = draw.choice([signal.SIGKILL, signal.SIGTERM]), draw.randrange(2)
    group = Group(2, _train, config)
    group.begun()
    time.sleep(after)
    before = _steps(output)
    group.kill(number, rank)
    group.processes[rank].join(ENDS_WITHIN)
    if group.processes[rank].exitcode:
        group.kill(signal.SIGTERM, 1 - rank)
    codes, said = tuple(group.codes(ENDS_WITHIN)), group.said(0) + group.said(1)
    expected = {0, 1, -signal.SIGTERM, 128 + signal.SIGTERM, -number}
    return Round(f"{number.name} to process {rank} of 2", before, codes, expected, said)


def _torchrun(config: Path, output: Path, draw: random.Random) -> Round:
    """SIGKILL to one of torchrun's processes, once the run has gone on: they take seconds to start."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "cbtalk", "train"]
    begun = _steps(output)
    torchrun = subprocess.Popen([*command, str(config)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while _steps(output) == begun and torchrun.poll() is None:
        time.sleep(0.05)
    time.sleep(draw.random())
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    processes = [int(pid) for pid in children if b"cbtalk" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    before = _steps(output)
    os.kill(draw.choice(processes), signal.SIGKILL)
    said = torchrun.communicate(timeout=ENDS_WITHIN)[1].decode()
    return Round("SIGKILL to a process of torchrun", before, (torchrun.returncode,), {1}, said)


def _faults(this: Round, output: Path, finished: int) -> list[str]:
    """Faults after a run was ended; `finished` steps were before it began."""
    steps, faults = _steps(output), []
    if steps < max(finished, this.before):
        faults.append(f"{max(finished, this.before)} steps were finished, then {steps}")
    announced = re.findall(r"after step (\d+) of \d+, saved|step (\d+) is saved", this.said)
    if announced and int("".join(announced[-1])) != steps:
        faults.append(f"said to have saved another step than {steps}: {announced[-1]}")
    if not set(this.codes) <= this.expected or "internal:" in this.said:
        faults.append(f"ended with {this.codes}: {this.said[-2000:]}")
    try:
        if steps:
            load_checkpoint(checkpoints(output / "checkpoints")[-1])
        if (output / WEIGHTS_NAME).exists():
            load_weights(output / WEIGHTS_NAME)
    except WeightsError as error:
        faults.append(str(error))
    return faults


def _outcome(this: Round) -> str:
    """The place of the run at which its end came, in words."""
    if "is saved" in this.said or ", saved in" in this.said:
        return "saved and ended"
    if "another process of this run ended" in this.said:
        return "ended, the last checkpoint stands"
    return "ended while it ran" if "step/s" in this.said else "ended before its first step"


def _unlike_a_whole_run(config: Path, output: Path, steps: int) -> list[str]:
    """Leftovers that an uninterrupted run would not have, once this one has gone on to `steps`."""
    last = Group(1, _train, config, "--max-steps", str(steps))
    faults = [] if last.codes() == [0] else [f"the run does not go on: {last.said()[-2000:]}"]
    for name, every in (("log", 1), ("validation", SAMPLE_EVERY)):
        with (output / f"{name}.csv").open(newline="") as file:
            logged = [int(row["step"]) for row in csv.DictReader(file)]
        if logged != list(range(every, steps + 1, every)):
            faults.append(f"{name}.csv has not every step once, in order: {logged}")
    return faults + [f"left half written: {path}" for path in output.rglob(f"*{SUFFIX}")]


if __name__ == "__main__":
    sys.exit(main())
