"""Released checkpoints (pickles) to one weights file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from cbtalk.errors import WeightsError
from cbtalk.model.checkpoint import mismatch, save_weights, with_tensors, without_storage
from cbtalk.model.config import PRESETS

ParamKey = Literal["auto", "params_ema", "params"]

PARALLEL_PREFIX = "module."


@dataclass(frozen=True)
class ConvertedFile:
    """The parameters taken from one checkpoint."""

    path: Path
    key: str  # "params_ema" or "params"
    tensors: int
    prefixed: bool  # the names bore `module.`

    def __str__(self) -> str:
        prefix = f", {PARALLEL_PREFIX!r} removed from the names" if self.prefixed else ""
        return f"{self.path}: {self.tensors} tensors of {self.key!r}{prefix}"


def convert_checkpoints(
    net_g: str | os.PathLike[str],
    motion: str | os.PathLike[str],
    output: str | os.PathLike[str],
    param_key: ParamKey = "auto",
) -> tuple[ConvertedFile, ConvertedFile]:
    """Writes `output`, a weights file of the paper's model, from its two released checkpoints.

    Args:
        net_g: checkpoint of encoder, generator and codebooks.
        motion: checkpoint of the motion estimator.
        param_key: which parameters of `net_g` to take; "auto" takes the averaged ones ("params_ema") where there are
            some. The motion estimator is released without averages: it always gives its "params".

    Returns:
        What was taken from each file, for the user to see.

    Raises:
        WeightsError: a file cannot be read, or any name is missing, unexpected, or of another shape.
    """
    if param_key not in get_args(ParamKey):
        raise WeightsError(f"unknown parameter set {param_key!r}; choose one of {', '.join(get_args(ParamKey))}")
    talker = without_storage(PRESETS["paper"])
    generator, generator_report = _read(Path(net_g), param_key, talker.net_g.state_dict())
    estimator, estimator_report = _read(Path(motion), "params", talker.motion_estimator.state_dict())
    tensors = {f"net_g.{name}": tensor for name, tensor in generator.items()}
    tensors |= {f"motion_estimator.{name}": tensor for name, tensor in estimator.items()}
    reports = generator_report, estimator_report
    notes = {"converted_from": ", ".join(f"{report.path.name} ({report.key})" for report in reports)}
    save_weights(output, with_tensors(talker, tensors, Path(net_g)), notes=notes)
    return reports


def _read(path: Path, param_key: ParamKey, expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ConvertedFile]:
    checkpoint = _unpickle(path)
    key = param_key
    if key == "auto":
        key = "params_ema" if "params_ema" in checkpoint else "params"
    entry = checkpoint.get(key)
    if not isinstance(entry, dict) or not all(isinstance(tensor, Tensor) for tensor in entry.values()):
        found = ", ".join(map(str, list(checkpoint)[:8])) or "none"
        raise WeightsError(f"{path}: has no parameters {key!r}; its entries: {found}")
    prefixed = bool(entry) and all(str(name).startswith(PARALLEL_PREFIX) for name in entry)
    prefix = PARALLEL_PREFIX if prefixed else ""
    tensors = {str(name).removeprefix(prefix): tensor for name, tensor in entry.items()}
    wrong = mismatch(expected, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if wrong:
        raise WeightsError(f"{path}: is not a checkpoint of the paper's model: {wrong}")
    return tensors, ConvertedFile(path, key, len(tensors), prefixed)


def _unpickle(path: Path) -> dict[str, object]:
    """The checkpoint's dictionary, read without running anything that the pickle asks for."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the released checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails in every way a program can
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: is damaged or holds more than tensors ({reason}); download it again") from error
    if not isinstance(checkpoint, dict):
        raise WeightsError(f"{path}: holds a {type(checkpoint).__name__} instead of a dictionary of parameters")
    return checkpoint
