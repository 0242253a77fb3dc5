"""A training run from its configuration to its weights: by one process, or by several that torchrun starts."""

import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cbtalk.dataset import ClipSet, holds_shards
from cbtalk.errors import ConfigError
from cbtalk.nn.processes import place
from cbtalk.precision import float32_convolutions
from cbtalk.train import exchange, preview
from cbtalk.train.config import face_users, load_config
from cbtalk.train.config_text import changes, to_plain
from cbtalk.train.data import hold_back, pair_loader, read_clips
from cbtalk.train.files import check_files
from cbtalk.train.landmarks import find_landmarks
from cbtalk.train.lock import locked
from cbtalk.train.loop import Loop
from cbtalk.train.preview import Preview
from cbtalk.train.processes import joined
from cbtalk.train.record import WEIGHTS_NAME, Record
from cbtalk.train.sections import TrainConfig
from cbtalk.train.state import checkpoints, load_checkpoint
from cbtalk.train.trainer import Trainer


@float32_convolutions()
def train_talker(
    config: Path | TrainConfig,
    *,
    settings: Sequence[str] = (),
    resume: bool = True,
    max_steps: int | None = None,
    max_seconds: float | None = None,
    output: Path | None = None,
    data_root: Path | None = None,
    shard_mb: int | None = None,
) -> Path:
    """Trains a talker; SIGINT, SIGTERM and SIGHUP end it after the step in hand, with a checkpoint.

    In the environment that torchrun makes, the processes share each batch and have networks alike: the first one writes
    and raises what ends them all; in another, that is AlreadyTold, or nothing where a signal ended the run.

    Args:
        config: a configuration, or a YAML file of one.
        settings: changes to that file, as `load_config` takes them.
        resume: go on from the newest checkpoint in the output folder; False refuses a folder that has one.
        max_steps: stop after this many steps in all.
        max_seconds: stop after this much time.
        output: instead of `run.output`.
        data_root: instead of `data.root`.
        shard_mb: write checkpoints in files of at most this size each.

    Returns:
        The weights file of the moving average, in the output folder.

    Raises:
        ConfigError, InputError, WeightsError, OutputError: an argument, the configuration, the clips, a checkpoint or
            the output folder cannot be used.
        TrainingError: too many steps in a row had losses or gradients that are not finite.
        Interruption: a signal ended the run; it is saved and can go on.
        LostProcess: another process of the run ended.
    """
    if shard_mb is not None and shard_mb < 1:
        raise ConfigError(f"--shard-mb {shard_mb}: must be 1 or more")
    with joined() as processes:
        plan = load_config(config, settings) if isinstance(config, Path) else config
        if output is not None:
            plan = replace(plan, run=replace(plan.run, output=output))
        if data_root is not None:
            plan = replace(plan, data=replace(plan.data, root=data_root))
        _check_shares(plan, processes.count)
        processes.set_threads(plan.run.threads)
        with nullcontext() if processes.rank else locked(plan.run.output):
            newest = processes.from_first("newest", lambda: _newest_checkpoint(plan, resume))
            device = processes.device(plan.run.device)
            training, watched = processes.from_first("clips", lambda: _read(plan))
            with processes.first_alone("faces"):  # the first process finds them, the others read what it found
                loader = pair_loader(training, plan, device, processes.share)
            trainer = Trainer(plan, loader, device)
            _take_over(trainer, newest)
            record = None
            if processes.rank == 0:
                record = Record(trainer, _preview(watched, plan, device), shard_mb=shard_mb)
            Loop(trainer, record).run(max_steps=max_steps, max_seconds=max_seconds)
    return plan.run.output / WEIGHTS_NAME


def _check_shares(config: TrainConfig, processes: int) -> None:
    parts = processes * config.run.micro_batches
    if config.run.batch_size % parts:
        raise ConfigError(
            f"run.batch_size {config.run.batch_size} cannot be shared by {processes} processes; "
            f"it must be a multiple of {parts} (processes x run.micro_batches)"
        )


def _newest_checkpoint(config: TrainConfig, resume: bool) -> Path | None:
    """The checkpoint to go on from. Raises ConfigError where it must not, or where files of the run are missing."""
    newest = checkpoints(config.run.output / "checkpoints")[-1:]
    if newest and not resume:
        raise ConfigError(f"{newest[0]}: the output folder holds a run already; resume it or choose another folder")
    check_files(config, starting=not newest)  # said before minutes of reading clips
    return newest[0] if newest else None


def _read(config: TrainConfig) -> tuple[ClipSet, ClipSet]:
    """The clips to train with, and those that are shown in previews."""
    if not config.data.workers and holds_shards(config.data.root):
        raise ConfigError(
            f"{config.data.root} holds shards: set data.workers to 1 or more, the processes that read them"
        )
    training = hold_back(read_clips(config.data.root, config), config)
    watched = training if config.data.validation is None else read_clips(config.data.validation, config)
    return training, watched.taken(np.arange(0, len(watched), math.ceil(len(watched) / preview.CLIPS)))


def _take_over(trainer: Trainer, newest: Path | None) -> None:
    """The networks of a checkpoint or a weights file, alike in every process, and a line that says what they are."""
    lines = []
    if newest is not None:
        state = load_checkpoint(newest)
        trainer.load_state(state)
        lines = [f"resuming from {newest}"]
        lines += [f"  changed since: {change}" for change in changes(state.get("config", {}), to_plain(trainer.config))]
    elif trainer.config.run.init is not None:
        lines = [trainer.start_from(trainer.config.run.init)]
    networks = (*trainer.networks.values(), trainer.average)
    exchange.spread([entry for network in networks for entry in network.state_dict().values()])
    if place()[0] == 0:
        for line in lines:
            tqdm.write(line, file=sys.stderr)


def _preview(clips: ClipSet, settings: TrainConfig, device: torch.device) -> Preview:
    points = None
    if settings.guidance.model is not None and face_users(settings):
        points = find_landmarks(clips.own_files(), clips, settings.guidance.model)
    return Preview(clips, device, points)
