from dataclasses import replace
from pathlib import Path

import pytest

from cbtalk.errors import ConfigError
from cbtalk.model.config import PRESETS
from cbtalk.train.config import AugmentConfig, TrainConfig, load_config, parse_config
from cbtalk.train.loop import WEIGHTS_NAME

CONFIGS = Path(__file__).parents[2] / "configs"


def test_paper_file_says_what_the_defaults_are() -> None:
    config = load_config(CONFIGS / "paper.yaml")
    default = TrainConfig()
    for section in ("model", "augment", "optimizer", "loss", "equivariance", "adversarial", "ema"):
        assert getattr(config, section) == getattr(default, section)
    assert config.perceptual.scales == default.perceptual.scales
    assert (config.run.steps, config.run.batch_size) == (250_000, 16)


def test_mini_file_is_the_mini_preset() -> None:
    assert load_config(CONFIGS / "mini.yaml").model == PRESETS["mini"]


def test_the_first_stage_is_the_mini_preset_without_its_finest_level() -> None:
    first, second = load_config(CONFIGS / "mini-128.yaml"), load_config(CONFIGS / "mini.yaml")
    mini = PRESETS["mini"]
    assert first.model.channels == mini.channels[:-1] and first.model.scales == mini.scales[:-1]
    assert second.run.init == first.run.output / WEIGHTS_NAME
    assert second.augment != AugmentConfig()


def test_the_third_stage_is_the_second_with_heatmaps() -> None:
    second, third = load_config(CONFIGS / "mini.yaml"), load_config(CONFIGS / "mini-faces.yaml")
    assert third.model == replace(second.model, driving_heatmaps=True)
    assert third.run.init == second.run.output / WEIGHTS_NAME


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("mini*.yaml")), ids=lambda path: path.stem)
def test_small_runs_are_safe_every_two_minutes(path: Path) -> None:
    assert (load_config(path).run.checkpoint_seconds or 1e9) <= 120


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("optimiser: {}", "optimiser"),
        ("run: {batchsize: 4}", "batchsize"),
        ("model: {preset: mini, depth: 3}", "depth"),
        ("model: giant", "giant"),
        ("run: {steps: many}", "run.steps"),
        ("run: {steps: true}", "run.steps"),
        ("run: {precision: fp16}", "run.precision"),
        ("optimizer: {schedule: linear}", "optimizer.schedule"),
        ("augment: {colour: 0.1}", "colour"),
        ("optimizer: {betas: [0.9]}", "optimizer.betas"),
        ("run: {batch_size: 6, micro_batches: 4}", "micro_batches"),
        ("- a list", "table"),
        ("a: [", "YAML"),
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml"):
        load_config(tmp_path / "no.yaml")


def test_numbers_that_yaml_reads_as_text() -> None:
    assert parse_config({"optimizer": {"learning_rate": "2e-4", "clip_norm": None}}).optimizer.learning_rate == 2e-4


def test_preset_with_changes() -> None:
    model = parse_config({"model": {"preset": "mini", "image_size": 128}}).model
    assert model.image_size == 128 and model.nf == PRESETS["mini"].nf
