import csv
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

import cbtalk
from cbtalk.errors import ConfigError, InputError, TrainingError, WeightsError
from cbtalk.model.checkpoint import save_weights
from cbtalk.model.talker import Talker
from cbtalk.train import losses, train_talker
from cbtalk.train.config import parse_config
from cbtalk.train.data import Batch
from cbtalk.train.preview import Preview
from cbtalk.train.sections import OptimizerConfig, TrainConfig
from cbtalk.train.state import checkpoints
from cbtalk.train.trainer import Trainer, learning_rate
from tests.helpers.talkers import TINY
from tests.helpers.tiers import slow
from tests.helpers.training import MakeConfig


def rows(output: Path) -> list[dict[str, str]]:
    """The log without what depends on the clock."""
    with (output / "log.csv").open(newline="") as file:
        timed = ("samples_per_second", "share_")
        return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in csv.DictReader(file)]


EVERYTHING: dict[str, Any] = {  # all that draws random numbers or has a state
    "adversarial": {"weight": 0.8, "after_step": 4},
    "ema": {"motion_estimator": True},
    "data": {"far_pairs": 0.4, "near_pairs": 0.3},
    "augment": {"brightness": 0.2, "hue": 0.1, "scale": 0.1, "rotation": 5.0, "blur": 1.0, "jpeg": 1.0},
    "loss": {"changed": 1.0},
    "optimizer": {"schedule": "cosine", "warmup_steps": 3, "clip_norm": 10.0},
}


@pytest.mark.parametrize("precision", ["fp32", *slow("bf16")])
def test_stopping_and_resuming_changes_nothing(make_config: MakeConfig, tmp_path: Path, precision: str) -> None:
    sections: dict[str, Any] = {**EVERYTHING, "run": {"precision": precision}}
    whole = train_talker(make_config("whole", **sections), max_steps=10)
    parts = make_config("parts", **sections)
    train_talker(parts, max_steps=5)
    resumed = train_talker(parts, max_steps=10)
    assert len(rows(tmp_path / "whole")) == 10
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    entries = [cbtalk.load(weights).state_dict() for weights in (whole, resumed)]
    assert all(torch.equal(entries[1][name], value) for name, value in entries[0].items())


@pytest.mark.slow
def test_fifty_steps_are_fifty_again_and_twice_twenty_five(make_config: MakeConfig, tmp_path: Path) -> None:
    for name in ("whole", "again"):
        train_talker(make_config(name, **EVERYTHING), max_steps=50)
    parts = make_config("parts", **EVERYTHING)
    train_talker(parts, max_steps=25, shard_mb=1)
    train_talker(parts, max_steps=50)
    assert len(rows(tmp_path / "whole")) == 50
    assert rows(tmp_path / "parts") == rows(tmp_path / "again") == rows(tmp_path / "whole")


def test_losses_fall(make_config: MakeConfig, tmp_path: Path) -> None:
    train_talker(make_config(optimizer={"learning_rate": 1e-3}), max_steps=30)
    pixel = [float(row["pixel"]) for row in rows(tmp_path / "run")]
    assert np.mean(pixel[-5:]) < 0.8 * np.mean(pixel[:5])


def test_output_of_a_run(make_config: MakeConfig, tmp_path: Path) -> None:
    weights = train_talker(
        make_config(run={"sample_every": 2, "checkpoint_every": 1, "keep_checkpoints": 2}), max_steps=4
    )
    talker = cbtalk.load(weights)
    assert talker.image_size == 64
    names = [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert names == ["step_00000003.pt", "step_00000004.pt"]
    with Image.open(tmp_path / "run" / "samples" / "00000004.png") as image:
        assert image.size == (3 * 64, 3 * 64)  # source, driving, result of each of three clips
    with (tmp_path / "run" / "validation.csv").open(newline="") as file:
        figures = list(csv.DictReader(file))
    assert [row["step"] for row in figures] == ["2", "4"] and float(figures[0]["psnr_repeat"]) > 0
    assert not list((tmp_path / "run").rglob("*.cbtalk-part"))


def test_the_weights_of_least_validation_error_are_kept(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {1: 0.3, 2: 0.1, 3: 0.2, 4: 0.15, 5: 0.05}

    def show(self: Preview, talker: Talker, path: Path) -> dict[str, float]:
        return {"l1": errors[int(path.stem)]}

    monkeypatch.setattr(Preview, "show", show)
    best = tmp_path / "run" / "best.safetensors"
    config = make_config(run={"sample_every": 1})
    for stop, expected in ((3, "2"), (4, "2"), (5, "5")):  # over stops of the run, too
        train_talker(config, max_steps=stop)
        with safe_open(best, "pt") as file:
            assert file.metadata()["steps"] == expected


def test_rows_beyond_the_checkpoint_are_dropped(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    train_talker(config, max_steps=3)
    (checkpoint,) = checkpoints(tmp_path / "run" / "checkpoints")
    kept = checkpoint.read_bytes()
    train_talker(config, max_steps=5)  # and killed before its checkpoint:
    (tmp_path / "run" / "checkpoints" / "step_00000005.pt").unlink()
    checkpoint.write_bytes(kept)
    before = rows(tmp_path / "run")
    train_talker(config, max_steps=6)
    assert [row["step"] for row in rows(tmp_path / "run")] == ["1", "2", "3", "4", "5", "6"]
    assert rows(tmp_path / "run")[:5] == before


def test_micro_batches_are_averaged(make_config: MakeConfig, tmp_path: Path) -> None:
    train_talker(make_config("parts", run={"batch_size": 4, "micro_batches": 2}), max_steps=1)
    train_talker(make_config("halves", optimizer={"learning_rate": 0.0}), max_steps=2)  # the same four pairs
    (both,), halves = rows(tmp_path / "parts"), rows(tmp_path / "halves")
    assert float(both["pixel"]) == pytest.approx(np.mean([float(row["pixel"]) for row in halves]), rel=1e-4)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_one_bad_step_is_skipped(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, poison: str
) -> None:
    states: list[dict[str, Tensor]] = []
    step = Trainer.train_step

    def train_step(self: Trainer) -> dict[str, Tensor]:
        kept = {**self.talker.state_dict(), "average": self.average.net_g.position_emb_app}
        moments = [value for state in self.optimizers["net_g"].state.values() for value in state.values()]
        kept |= {str(index): value for index, value in enumerate(moments)}
        states.append({name: value.clone() for name, value in kept.items()})
        if self.step != 1:
            return step(self)
        weight = self.talker.motion_estimator.kp_detector.get_parameter("kp.bias")
        if poison == "gradient":
            handle = weight.register_hook(lambda gradient: gradient * float("nan"))
        else:
            batch = self.loader.batch

            def poisoned(number: int) -> Batch:
                drawn = batch(number)
                return drawn._replace(source=drawn.source * float("nan"))

            self.loader.batch = poisoned  # type: ignore[method-assign]
        figures = step(self)
        if poison == "gradient":
            handle.remove()
        else:
            self.loader.batch = batch  # type: ignore[method-assign]
        return figures

    monkeypatch.setattr(Trainer, "train_step", train_step)
    with caplog.at_level(logging.WARNING):
        train_talker(make_config(), max_steps=3)
    assert "step 2 skipped" in caplog.text
    assert all(torch.equal(states[2][name], value) for name, value in states[1].items())
    assert any(not torch.equal(states[1][name], value) for name, value in states[0].items())


def test_bad_steps_are_found_when_figures_are_read_and_left_out_of_the_means(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    distance = losses.keypoint_distance
    calls = 0

    def sometimes(points: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return distance(points) * (float("nan") if calls in (3, 4) else 1.0)  # the second step: source and driving

    monkeypatch.setattr(losses, "keypoint_distance", sometimes)
    with caplog.at_level(logging.WARNING):
        train_talker(make_config(run={"log_every": 4, "max_bad_steps": 2}), max_steps=4)
    assert "step 2 skipped: not finite: keypoint_distance, total" in caplog.text
    (row,) = rows(tmp_path / "run")
    assert row["step"] == "4" and all(np.isfinite(float(value)) for value in row.values())


def test_a_step_reads_nothing_from_the_device(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.train_step
    reads: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        method = getattr(Tensor, name)

        def read(tensor: Tensor, *args: Any) -> Any:
            reads.append(name)
            return method(tensor, *args)

        return read

    def train_step(self: Trainer) -> dict[str, Tensor]:
        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy"):
                patch.setattr(Tensor, name, noted(name))
            figures = step(self)
            reads.append("end of a step")
            figures["total"].item()  # such a reading would be noticed
        return figures

    monkeypatch.setattr(Trainer, "train_step", train_step)
    train_talker(make_config(**EVERYTHING | {"adversarial": {"weight": 0.8, "after_step": 1}}), max_steps=2)
    assert reads == ["end of a step", "item"] * 2


def test_speed_and_the_share_of_each_part_are_logged(make_config: MakeConfig, tmp_path: Path) -> None:
    train_talker(make_config(run={"log_every": 2}), max_steps=2)
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    shares = {name: float(value) for name, value in row.items() if name.startswith("share_")}
    assert set(shares) == {"share_data", "share_forward", "share_backward", "share_optimizer"}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4) and float(row["samples_per_second"]) > 0


def test_bad_steps_in_a_row_end_the_run(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbtalk.train.losses.keypoint_distance", lambda points: points.sum() * float("nan"))
    with pytest.raises(TrainingError, match=r"3 steps in a row.*keypoint_distance.*learning_rate"):
        train_talker(make_config(run={"max_bad_steps": 3}), max_steps=10)


def test_time_limit(make_config: MakeConfig, tmp_path: Path) -> None:
    train_talker(make_config(), max_seconds=0.0)
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step_00000000.pt"]


def test_a_clip_that_cannot_be_read_is_left_out(
    make_config: MakeConfig, tmp_path: Path, clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "mixed"
    root.mkdir()
    (root / "broken.mp4").write_bytes(b"not a video")
    config = make_config(data={"root": str(root)})
    with pytest.raises(InputError, match="no clip in it that can be used"):
        train_talker(config)
    (root / "good").symlink_to(clips)
    with caplog.at_level(logging.WARNING):
        train_talker(config, max_steps=1)
    assert "broken.mp4" in caplog.text


def test_other_runs_are_not_overwritten(make_config: MakeConfig, tmp_path: Path) -> None:
    train_talker(make_config(), max_steps=1)
    with pytest.raises(ConfigError, match="holds a run already"):
        train_talker(make_config(), resume=False)
    with pytest.raises(ConfigError, match="other sizes"):
        train_talker(make_config(model={"keypoints": 5}), max_steps=2)
    (checkpoint,) = checkpoints(tmp_path / "run" / "checkpoints")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="damaged training checkpoint"):
        train_talker(make_config(), max_steps=2)


def test_moving_average(make_config: MakeConfig, tmp_path: Path) -> None:
    weights = train_talker(make_config(ema={"decay": 0.9}), max_steps=2)
    average = cbtalk.load(weights)
    state = torch.load(checkpoints(tmp_path / "run" / "checkpoints")[0], weights_only=True)
    trained = state["networks"]
    for name, value in average.motion_estimator.state_dict().items():
        assert torch.equal(value, trained["motion_estimator"][name]), name  # not averaged unless asked
    differs = [not torch.equal(v, trained["net_g"][n]) for n, v in average.net_g.state_dict().items()]
    assert any(differs)


def test_learning_rate() -> None:
    config = OptimizerConfig(learning_rate=1.0, milestones=(10, 20), gamma=0.5, warmup_steps=4)
    rates = {finished: learning_rate(TrainConfig(optimizer=config), finished) for finished in (0, 1, 3, 9, 10, 19, 20)}
    assert rates == {0: 0.25, 1: 0.5, 3: 1.0, 9: 1.0, 10: 0.5, 19: 0.5, 20: 0.25}


def test_cosine_falls_from_the_rate_to_its_final_share() -> None:
    config = parse_config(
        {
            "optimizer": {"learning_rate": 1.0, "schedule": "cosine", "final": 0.1, "warmup_steps": 4},
            "run": {"steps": 100, "batch_size": 1},
        }
    )
    assert learning_rate(config, 0) == pytest.approx(0.25)
    assert learning_rate(config, 50) == pytest.approx(0.55)
    assert learning_rate(config, 100) == pytest.approx(0.1)
    falling = [learning_rate(config, finished) for finished in range(4, 101)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("part", ["net_g.encoder", *slow("motion_estimator", "net_g")])
def test_frozen_parts_stay_and_the_others_learn(make_config: MakeConfig, tmp_path: Path, part: str) -> None:
    start = tmp_path / "start.safetensors"
    save_weights(start, Talker(TINY))
    adversarial = {"weight": 0.0 if part == "net_g" else 0.8, "after_step": 1}
    config = make_config(run={"init": str(start), "frozen": [part], "steps": 3}, adversarial=adversarial)
    before, after = cbtalk.load(start).state_dict(), cbtalk.load(train_talker(config)).state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and not any(name.startswith(f"{part}.") for name in changed)


@pytest.mark.parametrize(
    ("frozen", "sections", "named"),
    [
        ("net_h", {}, "run.frozen: the talker has no part 'net_h'"),
        ("net_g.generator", {"adversarial": {"weight": 0.8}}, "adversarial.weight"),
        ("motion_estimator", {"loss": {"guidance": 1.0}, "guidance": {"steps": 2, "model": "mesh"}}, "guidance.steps"),
    ],
)
def test_what_is_to_learn_cannot_be_frozen(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, frozen: str, sections: dict[str, Any], named: str
) -> None:
    monkeypatch.setattr("cbtalk.train.data.face_users", lambda config: [])  # the mesh is not looked for
    model = replace(TINY, keypoints=16).to_dict()
    with pytest.raises(ConfigError, match=re.escape(named)):
        train_talker(make_config(run={"frozen": [frozen]}, model=model, **sections))
