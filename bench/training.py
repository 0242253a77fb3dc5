"""A training step of the small model on synthetic clips, part by part."""

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml

from bench.media import write_clip
from cbtalk.train.config import parse_config
from cbtalk.train.data import pair_loader, read_clips
from cbtalk.train.trainer import Trainer

CONFIG = Path(__file__).parents[1] / "configs" / "mini.yaml"
ROUNDS = 3


def measure_training(device: str) -> dict[str, Any]:
    """Seconds of a step of configs/mini.yaml and of its parts, medians; without the perceptual loss and its file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trainer = _trainer(folder, device)
        trainer.train_step()
        trainer.timer.read()
        steps = []
        for _ in range(ROUNDS):
            trainer.train_step()
            steps.append(trainer.timer.read())
    parts = {part: median(step[part] for step in steps) for part in steps[0]}
    run = trainer.config.run
    return {
        "config": CONFIG.name,
        "batch": run.batch_size,
        "precision": run.precision,
        "seconds": median(sum(step.values()) for step in steps),
        "parts": parts,
    }


def _trainer(folder: Path, device: str) -> Trainer:
    values = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    clips = folder / "clips"
    clips.mkdir()
    values["data"] = {"root": str(clips), "cache": str(folder / "frames")}
    values["loss"]["perceptual"] = 0.0
    values["run"] |= {"output": str(folder / "run"), "device": device}
    config = parse_config(values)
    for number in range(2):
        write_clip(clips / f"person{number}.mp4", side=config.model.image_size, frames=25, rate=25)
    torch_device = torch.device(device)
    return Trainer(config, pair_loader(read_clips(clips, config), config, torch_device), torch_device)
