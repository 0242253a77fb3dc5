"""Ranges of the numbers in a training configuration."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from cbtalk.errors import ConfigError


class Range(NamedTuple):
    """The numbers that a setting may be, and the same in words."""

    holds: Callable[[float], bool]
    words: str


def at_least(least: float) -> Range:
    """The range of numbers from `least` on."""
    return Range(lambda number: number >= least, f"{least:g} or more")


MORE_THAN_0 = Range(lambda number: number > 0, "more than 0")
SHARE = Range(lambda number: 0 <= number <= 1, "from 0 to 1")
DECAY = Range(lambda number: 0 <= number < 1, "from 0 to below 1")

# Any other number is 0 or more, as all weights and strengths are.
RANGES = {
    "data.horizontal_flip": SHARE,
    "data.time_flip": SHARE,
    "data.far_pairs": SHARE,
    "data.near_pairs": SHARE,
    "data.expressive_pairs": SHARE,
    "optimizer.betas": DECAY,
    "optimizer.eps": MORE_THAN_0,
    "optimizer.final": SHARE,
    "optimizer.gamma": MORE_THAN_0,
    "optimizer.clip_norm": MORE_THAN_0,
    "perceptual.scales": at_least(1),
    "perceptual.window": at_least(1),
    "guidance.batches": at_least(1),
    "equivariance.points": at_least(2),
    "ema.decay": SHARE,
    "run.steps": at_least(1),
    "run.batch_size": at_least(1),
    "run.micro_batches": at_least(1),
    "run.threads": at_least(1),
    "run.checkpoint_seconds": MORE_THAN_0,
    "run.keep_checkpoints": Range(lambda number: number == -1 or number >= 1, "1 or more, or -1 for all"),
    "run.max_bad_steps": at_least(1),
}


def check_ranges(config: Any) -> None:
    """Raise ConfigError for the first number of a configuration that is out of its range, and say what it may be.

    The model's own numbers are checked by `TalkerConfig`.
    """
    for name, value in _settings(config):
        allowed = RANGES.get(name, at_least(0))
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, (int, float)) or isinstance(number, bool):
                continue
            if not (math.isfinite(number) and allowed.holds(number)):
                shown = list(value) if isinstance(value, tuple) else value
                raise ConfigError(f"{name} is {shown}; it must be {allowed.words}")


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    for section in dataclasses.fields(config):
        if section.name != "model":
            part = getattr(config, section.name)
            for setting in dataclasses.fields(part):
                yield f"{section.name}.{setting.name}", getattr(part, setting.name)
