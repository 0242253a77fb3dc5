"""Training checkpoints: written completely or not at all, the last few kept."""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from cbtalk.atomic import atomic_path
from cbtalk.errors import WeightsError

NAME = re.compile(r"step_(\d{8})\.pt")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step_*.pt") if NAME.fullmatch(path.name))


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Writes the state after `step` steps, then removes all but the `keep` newest checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A state as it was saved, on the CPU. Raises WeightsError for a damaged file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{path}: damaged training checkpoint ({error}); remove it to resume from an older one"
        ) from error
