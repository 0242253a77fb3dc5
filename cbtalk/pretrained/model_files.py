"""The files of other people's networks: in one folder, under the names that they are published with."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cbtalk.errors import WeightsError


def find_file(models: Path | None, *patterns: str) -> Path:
    """The file of the folder `models` whose name matches one of `patterns`, earlier ones first.

    Raises:
        FileNotFoundError: there is none; says which name was looked for, unless there is no folder to look in.
        WeightsError: `models` is no folder.
    """
    if models is None:
        raise FileNotFoundError("no folder of models given (--models)")
    if not models.is_dir():
        raise WeightsError(f"{models}: not a folder of model files")
    for pattern in patterns:
        for path in sorted(models.glob(pattern)):
            return path
    raise FileNotFoundError(f"no {' or '.join(patterns)} in {models}")


def absence(reason: FileNotFoundError | ImportError) -> str:
    """The reason why something cannot be used: its file or its package is not there."""
    if isinstance(reason, ImportError):
        return f"the package {reason.name} is not installed: pip install 'cbtalk[evaluate]'"
    return str(reason)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of an .npz, or of a state dict (.pth). Raises WeightsError for a file that is neither."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: torch.from_numpy(archive[name]) for name in archive.files}
        entries = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path}: cannot be read as weights: {error}") from error
    return {name: value for name, value in entries.items() if isinstance(value, Tensor)}
