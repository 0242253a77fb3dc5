"""The speedup of several training processes of one thread over one.

python -m bench.train_scaling [--config configs/mini-128.yaml] [--processes 2] [--share 4] [--rounds 3]

Each process has as many pairs a step, whatever their number. Runs with one process and with several take turns;
medians are shown. Efficiency is the rate of N processes over N times that of one. Losses that need a file are left out.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml

from bench.launch import Group
from bench.media import write_clip
from cbtalk.train.config import parse_config
from cbtalk.train.data import pair_loader, read_clips
from cbtalk.train.exchange import greatest
from cbtalk.train.processes import joined
from cbtalk.train.sections import TrainConfig
from cbtalk.train.trainer import Trainer

CONFIG = Path(__file__).parents[1] / "configs" / "mini-128.yaml"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--share", type=int, default=4, help="pairs of each process in a step")
    parser.add_argument("--steps", type=int, default=4, help="that are timed in a run, after one that is not")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], args.processes: []}
    with tempfile.TemporaryDirectory() as scratch:
        configs = {count: _config(args.config, Path(scratch), count * args.share) for count in rates}
        for _ in range(args.rounds):
            for count in rates:
                result = Path(scratch) / "rate"
                codes = Group(count, _timed, configs[count], args.steps, result).codes()
                if codes != [0] * count:
                    raise SystemExit(f"a run failed: {codes}")
                rates[count].append(float(result.read_text()))
                print(f"{count} processes: {rates[count][-1]:.3f} samples/s", flush=True)
    one, several = median(rates[1]), median(rates[args.processes])
    print(f"{args.config.name}, {args.share} pairs for each process, medians of {args.rounds} runs in turns:")
    print(f"1 process: {one:.3f} samples/s; {args.processes}: {several:.3f}; ", end="")
    print(f"efficiency {several / (args.processes * one):.3f}")
    return 0


def _config(path: Path, scratch: Path, batch_size: int) -> TrainConfig:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["data"] = {"root": str(scratch / "clips"), "cache": str(scratch / "frames")}
    values["loss"] |= {"perceptual": 0.0, "guidance": 0.0, "expression": 0.0}
    values["guidance"] = {}
    values["run"] |= {"output": str(scratch / "run"), "device": "cpu", "init": None, "batch_size": batch_size}
    config = parse_config(values)
    (scratch / "clips").mkdir(exist_ok=True)
    for person in range(2):
        write_clip(scratch / "clips" / f"person{person}.mp4", side=config.model.image_size, frames=25, rate=25)
    return config


def _timed(config: TrainConfig, steps: int, result: Path) -> None:
    """Writes the samples a second of a run's steps."""
    with joined() as processes:
        processes.set_threads(processes.local_count)
        device = processes.device(config.run.device)
        with processes.first_alone("clips"):
            clips = read_clips(config.data.root, config)
        trainer = Trainer(config, pair_loader(clips, config, device, processes.share), device)
        trainer.train_step()
        greatest(0)  # together
        begun = time.perf_counter()
        for _ in range(steps):
            trainer.train_step()
        greatest(0)
        if processes.rank == 0:
            result.write_text(str(steps * config.run.batch_size / (time.perf_counter() - begun)))


if __name__ == "__main__":
    sys.exit(main())
