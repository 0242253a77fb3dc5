from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cbtalk.errors import ConfigError, WeightsError
from cbtalk.train import train_talker
from cbtalk.train.state import MEGABYTE, checkpoints, load_checkpoint, save_checkpoint
from tests.helpers.training import MakeConfig


def state(entries: int = 700_000) -> dict[str, Any]:
    return {"step": 7, "networks": {"a": torch.rand(entries)}, "names": ["x", "y"]}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return torch.equal(one["networks"]["a"], other["networks"]["a"]) and one["names"] == other["names"]


@settings(max_examples=10, deadline=None)
@given(entries=st.integers(0, 900_000))
def test_pieces_hold_the_state_and_the_limit(entries: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    saved = state(entries)
    index = save_checkpoint(folder, 7, saved, keep=3, shard_mb=1)
    assert checkpoints(folder) == [index] and same(load_checkpoint(index), saved)
    assert all(path.stat().st_size <= MEGABYTE for path in folder.iterdir())
    assert len(list(folder.iterdir())) >= 2 + 4 * entries // MEGABYTE


def test_old_pieces_go_with_their_index_and_unfinished_ones_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "step_00000009.0000.0123abcd").write_bytes(b"left by a killed run")
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, state(), keep=2, shard_mb=1)
    save_checkpoint(tmp_path, 4, state(), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000003.json", "step_00000004.pt"]
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"step_00000003", "step_00000004"}


def test_a_run_killed_while_it_writes_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state()
    save_checkpoint(tmp_path, 1, before, keep=1, shard_mb=1)
    written = 0
    write_bytes = Path.write_bytes

    def killed(self: Path, data: bytes) -> int:
        nonlocal written
        written += 1
        if written == 2:
            raise KeyboardInterrupt
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", killed)
    for step in (1, 2):  # the same step again, and a later one
        written = 0
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, step, state(), keep=1, shard_mb=1)
        (index,) = checkpoints(tmp_path)
        assert same(load_checkpoint(index), before)


@pytest.mark.parametrize("harm", ["missing", "shortened", "changed", "index"])
def test_a_damaged_piece_is_named(tmp_path: Path, harm: str) -> None:
    index = save_checkpoint(tmp_path, 1, state(), keep=1, shard_mb=1)
    piece = sorted(path for path in tmp_path.iterdir() if path != index)[1]
    if harm == "missing":
        piece.unlink()
    elif harm == "index":
        index.write_text("[]")
    else:
        data = bytearray(piece.read_bytes())
        data[100] ^= 1
        piece.write_bytes(bytes(data) if harm == "changed" else bytes(data[:50]))
    with pytest.raises(WeightsError, match="damaged training checkpoint"):
        load_checkpoint(index)


def test_a_run_goes_on_from_pieces(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    train_talker(config, max_steps=1, shard_mb=1)
    assert max(path.stat().st_size for path in (tmp_path / "run" / "checkpoints").iterdir()) <= MEGABYTE
    train_talker(config, max_steps=2)
    assert [path.suffix for path in checkpoints(tmp_path / "run" / "checkpoints")] == [".json", ".pt"]
    with pytest.raises(ConfigError, match="shard-mb 0"):
        train_talker(config, shard_mb=0)
