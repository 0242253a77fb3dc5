from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from cbtalk.cli.train import split_settings
from cbtalk.errors import ConfigError
from cbtalk.model.config import PRESETS
from cbtalk.train.config import load_config, parse_config
from cbtalk.train.config_ranges import RANGES
from cbtalk.train.config_text import write_config
from cbtalk.train.record import WEIGHTS_NAME
from cbtalk.train.sections import AugmentConfig, TrainConfig

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


def test_the_third_stage_is_the_second_with_opening_maps_and_source_pixels() -> None:
    second, third = load_config(CONFIGS / "mini.yaml"), load_config(CONFIGS / "mini-faces.yaml")
    assert third.model == replace(second.model, opening_maps=True, source_pixels=True)
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
        ("loss: {warped: 1.0}", "loss.warped needs model.source_pixels"),
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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optimizer: {clip_norm: 0}", r"optimizer.clip_norm is 0.0; it must be more than 0"),
        ("optimizer: {eps: 0}", r"optimizer.eps is 0.0; it must be more than 0"),
        ("optimizer: {betas: [0.9, 1.0]}", r"optimizer.betas is \[0.9, 1.0\]; it must be from 0 to below 1"),
        ("optimizer: {learning_rate: .nan}", r"optimizer.learning_rate is nan; it must be 0 or more"),
        ("loss: {pixel: -1}", r"loss.pixel is -1.0; it must be 0 or more"),
        ("run: {micro_batches: 0}", r"run.micro_batches is 0; it must be 1 or more"),
        ("run: {keep_checkpoints: 0}", r"run.keep_checkpoints is 0; it must be 1 or more, or -1 for all"),
        ("run: {log_every: -1}", r"run.log_every is -1; it must be 0 or more"),
        ("data: {far_pairs: 1.5}", r"data.far_pairs is 1.5; it must be from 0 to 1"),
    ],
)
def test_a_number_out_of_its_range_is_refused_with_the_range(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        load_config(path)


def test_every_range_is_that_of_a_setting() -> None:
    settings = {f"{section}.{name}" for section, part in vars(TrainConfig()).items() for name in vars(part)}
    assert set(RANGES) <= settings


def test_settings_of_the_command_line_are_taken_over_the_files(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("run: {steps: 5, batch_size: 4}\nmodel: mini")
    words = ["--run.steps", "10", "--optimizer.learning-rate=1e-3", "--perceptual.scales", "1", "2", "--max-steps", "3"]
    own, settings = split_settings(["train", str(path), *words])
    assert own == ["train", str(path), "--max-steps", "3"]
    config = load_config(path, settings)
    assert (config.run.steps, config.run.batch_size, config.perceptual.scales) == (10, 4, (1, 2))
    assert config.optimizer.learning_rate == 1e-3 and config.model == PRESETS["mini"]
    with pytest.raises(ConfigError, match=r"optimizer.eps is 0.0"):
        load_config(path, ["--optimizer.eps", "0"])


def absentable() -> list[tuple[str, str]]:
    """Section and name of each setting that may be absent."""
    return [
        (section, name)
        for section, kind in get_type_hints(TrainConfig).items()
        for name, hint in get_type_hints(kind).items()
        if type(None) in get_args(hint)
    ]


@pytest.mark.parametrize("nothing", ["none", "None", "NULL", "null", ""])
def test_one_word_for_nothing_is_as_good_as_another(tmp_path: Path, nothing: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("run: {batch_size: 4}")
    assert len(absentable()) >= 13
    for section, name in absentable():
        typed = f"--{section}.{name.replace('_', '-')}"
        for config in (
            load_config(path, [typed, nothing, "--run.seed", "3"]),
            load_config(path, [f"{typed}={nothing}", "--run.seed", "3"]),
            parse_config({section: {name: nothing}, "run": {"seed": 3}}),
        ):
            assert getattr(getattr(config, section), name) is None and config.run.seed == 3
    assert load_config(path, ["--model.keypoint-query", "none"]).model.keypoint_query == "none"


@pytest.mark.parametrize("option", [["-o", "out"], ["-o=out"], ["--output", "out"], ["--fresh"]])
@pytest.mark.parametrize(
    "setting", [["--run.steps", "10"], ["--loss.pixel", "-1e-3"], ["--perceptual.scales", "1", "2"]]
)
def test_settings_and_the_commands_own_options_come_in_any_order(option: list[str], setting: list[str]) -> None:
    for words in ([*option, *setting], [*setting, *option]):
        assert split_settings(["config.yaml", *words]) == (["config.yaml", *option], tuple(setting))


def test_a_configuration_is_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    for file in sorted(CONFIGS.glob("*.yaml")):
        config = load_config(file)
        write_config(tmp_path / "config.yaml", config)
        assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    "text", ["model: {preset: mini}\nrun: {}\nmodel: {preset: paper}\n", "run: {steps: 1, steps: 2}\n"]
)
def test_a_key_that_stands_there_twice_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"twice\.yaml: .*(model|steps) stands there twice(.|\n)*line [13]"):
        load_config(path)
