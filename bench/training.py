"""A training step of the small model on synthetic clips, part by part, against the same step in eager float32."""

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from bench.ceilings import Ceilings
from bench.media import write_clip
from cbtalk.ops.backends import use_backend
from cbtalk.train.config import parse_config
from cbtalk.train.data import pair_loader, read_clips
from cbtalk.train.trainer import Trainer

CONFIG = Path(__file__).parents[1] / "configs" / "mini.yaml"
ROUNDS = 2  # the step in float32 takes seconds

Record = dict[str, Any]


def measure_training(device: str) -> Record:
    """Seconds of a step of configs/mini.yaml and of its parts, medians; without the losses that need a file.

    `eager`: seconds of the same step in float32 with reference ops, measured in turns with ours. `operations`: of the
    convolutions and matrix products of a step, two a multiply-add.
    """
    with tempfile.TemporaryDirectory() as name:
        ours, eager = (_trainer(Path(name) / precision, device, precision) for precision in ("bf16", "fp32"))
    operations = _operations(eager)
    steps, baseline = [_timed(ours)], []  # the first round warms up
    for _ in range(ROUNDS):
        steps.append(_timed(ours))
        with use_backend("reference"):
            baseline.append(sum(_timed(eager).values()))
    parts = {part: median(step[part] for step in steps[1:]) for part in steps[0]}
    return {
        "config": CONFIG.name,
        "batch": ours.config.run.batch_size,
        "precision": ours.config.run.precision,
        "seconds": median(sum(step.values()) for step in steps[1:]),
        "parts": parts,
        "eager": median(baseline),
        "operations": operations,
    }


def add_share(record: Record, ceilings: Ceilings) -> None:
    """The share of the machine's bfloat16 matrix rate that a step reaches."""
    record["share"] = record["operations"] / record["seconds"] / ceilings.bfloat16


def _timed(trainer: Trainer) -> dict[str, float]:
    trainer.train_step()
    return trainer.timer.read()


def _operations(trainer: Trainer) -> int:
    """Of a step on reference ops, whose products torch's counter sees."""
    with use_backend("reference"), FlopCounterMode(display=False) as counter:
        _timed(trainer)
    return counter.get_total_flops()


def _trainer(folder: Path, device: str, precision: str) -> Trainer:
    values = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    clips = folder / "clips"
    clips.mkdir(parents=True)
    values["data"] = {"root": str(clips), "cache": str(folder / "frames")}
    values["loss"] |= {"perceptual": 0.0, "guidance": 0.0, "expression": 0.0}
    values["guidance"] = {}
    values["run"] |= {"output": str(folder / "run"), "device": device, "precision": precision, "init": None}
    config = parse_config(values)
    for number in range(2):
        write_clip(clips / f"person{number}.mp4", side=config.model.image_size, frames=25, rate=25)
    torch_device = torch.device(device)
    return Trainer(config, pair_loader(read_clips(clips, config), config, torch_device), torch_device)
