import csv
import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import cbtalk
from cbtalk.errors import ConfigError, InputError, TrainingError, WeightsError
from cbtalk.train import run
from cbtalk.train.config import OptimizerConfig
from cbtalk.train.state import checkpoints
from cbtalk.train.trainer import Trainer, learning_rate
from tests.train.conftest import MakeConfig


def rows(output: Path) -> list[dict[str, str]]:
    """The log without what depends on the clock."""
    with (output / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "samples_per_second"} for row in csv.DictReader(file)]


ADVERSARIAL: dict[str, Any] = {"weight": 0.8, "after_step": 4}


def test_stopping_and_resuming_changes_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"adversarial": ADVERSARIAL, "ema": {"motion_estimator": True}}
    whole = run(make_config("whole", **sections), max_steps=10)
    parts = make_config("parts", **sections)
    run(parts, max_steps=5)
    resumed = run(parts, max_steps=10)
    assert len(rows(tmp_path / "whole")) == 10
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    entries = [cbtalk.load(weights).state_dict() for weights in (whole, resumed)]
    assert all(torch.equal(entries[1][name], value) for name, value in entries[0].items())


@pytest.mark.slow
def test_fifty_steps_are_twice_twenty_five(make_config: MakeConfig, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"adversarial": {"weight": 0.8, "after_step": 20}}
    run(make_config("whole", **sections), max_steps=50)
    parts = make_config("parts", **sections)
    run(parts, max_steps=25)
    run(parts, max_steps=50)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_losses_fall(make_config: MakeConfig, tmp_path: Path) -> None:
    run(make_config(optimizer={"learning_rate": 1e-3}), max_steps=30)
    pixel = [float(row["pixel"]) for row in rows(tmp_path / "run")]
    assert np.mean(pixel[-5:]) < 0.8 * np.mean(pixel[:5])


def test_output_of_a_run(make_config: MakeConfig, tmp_path: Path) -> None:
    weights = run(make_config(run={"sample_every": 2, "checkpoint_every": 1, "keep_checkpoints": 2}), max_steps=4)
    talker = cbtalk.load(weights)
    assert talker.image_size == 64
    names = [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert names == ["step_00000003.pt", "step_00000004.pt"]
    with Image.open(tmp_path / "run" / "samples" / "00000004.png") as picture:
        assert picture.size == (3 * 64, 3 * 64)  # source, driving, result of each of three clips
    with (tmp_path / "run" / "validation.csv").open(newline="") as file:
        figures = list(csv.DictReader(file))
    assert [row["step"] for row in figures] == ["2", "4"] and float(figures[0]["psnr_repeat"]) > 0
    assert not list((tmp_path / "run").rglob("*.cbtalk-part"))


def test_rows_beyond_the_checkpoint_are_dropped(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    run(config, max_steps=3)
    (checkpoint,) = checkpoints(tmp_path / "run" / "checkpoints")
    kept = checkpoint.read_bytes()
    run(config, max_steps=5)  # and killed before its checkpoint:
    (tmp_path / "run" / "checkpoints" / "step_00000005.pt").unlink()
    checkpoint.write_bytes(kept)
    before = rows(tmp_path / "run")
    run(config, max_steps=6)
    assert [row["step"] for row in rows(tmp_path / "run")] == ["1", "2", "3", "4", "5", "6"]
    assert rows(tmp_path / "run")[:5] == before


def test_micro_batches_are_averaged(make_config: MakeConfig, tmp_path: Path) -> None:
    run(make_config("parts", run={"batch_size": 4, "micro_batches": 2}), max_steps=1)
    run(make_config("halves", optimizer={"learning_rate": 0.0}), max_steps=2)  # the same four pairs
    (both,), halves = rows(tmp_path / "parts"), rows(tmp_path / "halves")
    assert float(both["pixel"]) == pytest.approx(np.mean([float(row["pixel"]) for row in halves]), rel=1e-4)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_one_bad_step_is_skipped(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, poison: str
) -> None:
    states: list[dict[str, Tensor]] = []
    step = Trainer.train_step

    def train_step(self: Trainer) -> dict[str, Tensor]:
        states.append({name: value.clone() for name, value in self.talker.state_dict().items()})
        if self.step != 1:
            return step(self)
        weight = self.talker.motion_estimator.kp_detector.get_parameter("kp.bias")
        if poison == "gradient":
            handle = weight.register_hook(lambda gradient: gradient * float("nan"))
        else:
            batch = self.loader.batch
            self.loader.batch = lambda *a: tuple(x * float("nan") for x in batch(*a))  # type: ignore[method-assign]
        figures = step(self)
        if poison == "gradient":
            handle.remove()
        else:
            self.loader.batch = batch  # type: ignore[method-assign]
        return figures

    monkeypatch.setattr(Trainer, "train_step", train_step)
    with caplog.at_level(logging.WARNING):
        run(make_config(), max_steps=3)
    assert "step 2 skipped" in caplog.text
    assert all(torch.equal(states[2][name], value) for name, value in states[1].items())
    assert any(not torch.equal(states[1][name], value) for name, value in states[0].items())


def test_bad_steps_in_a_row_end_the_run(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbtalk.train.losses.keypoint_distance", lambda points: points.sum() * float("nan"))
    with pytest.raises(TrainingError, match=r"3 steps in a row.*keypoint_distance.*learning_rate"):
        run(make_config(run={"max_bad_steps": 3}), max_steps=10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    step = Trainer.train_step

    def train_step(self: Trainer) -> dict[str, Tensor]:
        if self.step == 1:
            os.kill(os.getpid(), number)
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    before = signal.getsignal(number)
    run(make_config(), max_steps=50)
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step_00000002.pt"]
    assert signal.getsignal(number) is before


def test_time_limit(make_config: MakeConfig, tmp_path: Path) -> None:
    run(make_config(), max_seconds=0.0)
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step_00000000.pt"]


def test_a_clip_that_cannot_be_read_is_left_out(
    make_config: MakeConfig, tmp_path: Path, clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "mixed"
    root.mkdir()
    (root / "broken.mp4").write_bytes(b"not a video")
    config = make_config(data={"root": str(root)})
    with pytest.raises(InputError, match="no clip in it that can be used"):
        run(config)
    (root / "good").symlink_to(clips)
    with caplog.at_level(logging.WARNING):
        run(config, max_steps=1)
    assert "broken.mp4" in caplog.text


def test_other_runs_are_not_overwritten(make_config: MakeConfig, tmp_path: Path) -> None:
    run(make_config(), max_steps=1)
    with pytest.raises(ConfigError, match="holds a run already"):
        run(make_config(), resume=False)
    with pytest.raises(ConfigError, match="other sizes"):
        run(make_config(model={"keypoints": 5}), max_steps=2)
    (checkpoint,) = checkpoints(tmp_path / "run" / "checkpoints")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="damaged training checkpoint"):
        run(make_config(), max_steps=2)


def test_moving_average(make_config: MakeConfig, tmp_path: Path) -> None:
    weights = run(make_config(ema={"decay": 0.9}), max_steps=2)
    average = cbtalk.load(weights)
    state = torch.load(checkpoints(tmp_path / "run" / "checkpoints")[0], weights_only=True)
    trained = state["networks"]
    for name, value in average.motion_estimator.state_dict().items():
        assert torch.equal(value, trained["motion_estimator"][name]), name  # not averaged unless asked
    differs = [not torch.equal(v, trained["net_g"][n]) for n, v in average.net_g.state_dict().items()]
    assert any(differs)


def test_learning_rate() -> None:
    config = OptimizerConfig(learning_rate=1.0, milestones=(10, 20), gamma=0.5, warmup_steps=4)
    rates = {finished: learning_rate(config, finished) for finished in (0, 1, 3, 9, 10, 19, 20)}
    assert rates == {0: 0.25, 1: 0.5, 3: 1.0, 9: 1.0, 10: 0.5, 19: 0.5, 20: 0.25}
