"""Training checkpoints: one file, or pieces of a limited size; complete or not at all, the last few kept."""

import contextlib
import hashlib
import io
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from cbtalk.atomic import atomic_path, write_text
from cbtalk.errors import WeightsError

NAME = re.compile(r"(step_\d{8})\.(pt|json)")  # the checkpoint itself, or the index of its pieces
PIECE = re.compile(r"step_\d{8}\.\d{4}\.[0-9a-f]{8}")
MEGABYTE = 1 << 20


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first: files, or indices of pieces."""
    return sorted(path for path in folder.glob("step_*") if NAME.fullmatch(path.name))


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int, shard_mb: int | None = None) -> Path:
    """Writes the state after `step` steps, then removes all but the `keep` newest checkpoints; -1 keeps all.

    Args:
        shard_mb: cut the file into pieces of at most this many MiB. Their index, `step_<n>.json`, is written last:
            without it there is no checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step_{step:08d}"
    if shard_mb is None:
        path = folder / f"{name}.pt"
        with atomic_path(path) as temporary:
            _save(state, temporary)
    else:
        path = folder / f"{name}.json"
        _write_pieces(path, state, shard_mb * MEGABYTE)
    for old in checkpoints(folder)[:-keep] if keep > 0 else ():
        old.unlink()
    _remove_loose_pieces(folder)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A state as it was saved, on the CPU. Raises WeightsError for a damaged file or piece."""
    try:
        file = _joined(path) if path.suffix == ".json" else path
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{path}: damaged training checkpoint ({error}); remove it to resume from an older one"
        ) from error


def _save(state: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # of a full disk, which torch reports as a wrong position
            raise error.__context__ from None
        raise


def _write_pieces(index: Path, state: dict[str, Any], size: int) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    whole = buffer.getbuffer()
    pieces = []
    for number, start in enumerate(range(0, len(whole), size)):
        piece = whole[start : start + size]
        digest = hashlib.sha256(piece).hexdigest()
        path = index.with_name(f"{index.stem}.{number:04d}.{digest[:8]}")  # never in place of another index's piece
        with atomic_path(path) as temporary:
            temporary.write_bytes(piece)
        pieces.append({"file": path.name, "sha256": digest})
    write_text(index, json.dumps({"pieces": pieces}, indent=1))


def _read_index(index: Path) -> dict[str, str]:
    """The pieces' names, in order, and their SHA-256. Raises ValueError for another file."""
    try:
        return {piece["file"]: piece["sha256"] for piece in json.loads(index.read_text(encoding="utf-8"))["pieces"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"no index of pieces: {error}") from error


def _joined(index: Path) -> io.BytesIO:
    """The file that was cut. Raises ValueError for a piece that is not what it was."""
    whole = io.BytesIO()
    for name, digest in _read_index(index).items():
        piece = index.with_name(name).read_bytes()
        if hashlib.sha256(piece).hexdigest() != digest:
            raise ValueError(f"{name} is not the piece that was written")
        whole.write(piece)
    whole.seek(0)
    return whole


def _remove_loose_pieces(folder: Path) -> None:
    """Removes the pieces that no index names: of removed checkpoints, and of those that were never finished."""
    named = set()
    for index in folder.glob("step_*.json"):
        with contextlib.suppress(OSError, ValueError):  # a damaged index is reported where it is resumed from
            named |= set(_read_index(index))
    for path in folder.glob("step_*"):
        if PIECE.fullmatch(path.name) and path.name not in named:
            path.unlink()
