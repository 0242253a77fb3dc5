import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cbtalk import ablate, train
from cbtalk.ablate.variants import variants
from cbtalk.cli import main
from cbtalk.errors import ConfigError, TrainingError
from cbtalk.model.checkpoint import load, save_weights, without_storage
from cbtalk.model.talker import Talker
from cbtalk.train.config import load_config
from cbtalk.train.sections import TrainConfig
from tests.helpers.talkers import TINY
from tests.helpers.training import MakeConfig


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "ablation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_variant_is_trained_and_evaluated(make_config: MakeConfig, clips: Path, tmp_path: Path) -> None:
    init = tmp_path / "init.safetensors"
    save_weights(init, Talker(TINY))
    config = load_config(make_config(run={"steps": 2, "init": str(init)}))
    rows = ablate.compare_variants(config, clips, tmp_path / "out")
    names = [variant.name for variant in variants(config)]
    assert {"full", "no-mcc", "no-acc", "no-mcc-acc", "motion-disjoint", "appearance-unsplit"} <= set(names)
    assert [row.variant for row in rows] == names == [line["variant"] for line in table(tmp_path / "out")]
    assert all(row.figures["l1"] > 0 and row.steps == 2 for row in rows)
    by_name = {row.variant: row for row in rows}
    assert by_name["no-mcc-acc"].parameters < by_name["no-mcc"].parameters < by_name["full"].parameters
    for variant in variants(config):  # each with its own model, and nothing frozen but what should be
        trained = load(tmp_path / "out" / variant.name / "weights.safetensors")
        assert trained.config == variant.config.model
    encoder = load(tmp_path / "out" / "frozen-encoder" / "weights.safetensors").net_g.encoder.state_dict()
    started = load(init).net_g.encoder.state_dict()
    assert all(torch.equal(value, started[name]) for name, value in encoder.items())


def test_no_two_variants_are_one(make_config: MakeConfig) -> None:
    config = load_config(make_config(run={"init": "any"}))
    found = [replace(variant.config) for variant in variants(config)]
    assert all(one != other for index, one in enumerate(found) for other in found[:index])
    for variant in variants(config):
        without_storage(variant.config.model)  # each is a model that can be made


def test_an_ablation_goes_on_where_it_was_ended(
    make_config: MakeConfig, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, only = load_config(make_config(run={"steps": 2})), ("full", "no-acc", "no-mcc")
    trained: list[str] = []
    real = train.train_talker

    def run(settings: TrainConfig) -> Path:
        trained.append(settings.run.output.name)
        if trained == ["full", "no-mcc"]:
            raise TrainingError("diverged")
        return real(settings)

    monkeypatch.setattr(train, "train_talker", run)
    with pytest.raises(TrainingError):
        ablate.compare_variants(config, clips, tmp_path / "out", only=only)
    assert [row["variant"] for row in table(tmp_path / "out")] == ["full"]
    assert json.loads((tmp_path / "out" / "ablation.json").read_text())[0]["variant"] == "full"
    ablate.compare_variants(config, clips, tmp_path / "out", only=only)
    assert trained == ["full", "no-mcc", "no-mcc", "no-acc"]
    ablate.compare_variants(config, clips, tmp_path / "out", only=only)
    assert len(trained) == 4
    longer = replace(config, run=replace(config.run, steps=3))
    ablate.compare_variants(longer, clips, tmp_path / "out", only=("full",))
    assert trained[4:] == ["full"]  # other steps, another result


def test_an_unknown_variant_is_refused_before_any_work(make_config: MakeConfig, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no variant 'no-codes'.* no-mcc"):
        ablate.compare_variants(load_config(make_config()), clips, tmp_path / "out", only=("no-codes",))
    assert not (tmp_path / "out").exists()


def test_the_command_lists_and_runs(
    make_config: MakeConfig, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ablate", str(make_config()), "--data", str(clips), "-o", str(tmp_path / "out"), "--only", "no-mcc"]
    assert main([*words, "--list"]) == 0
    assert capsys.readouterr().out == "no-mcc: without motion compensation\n"
    assert main([*words, "--run.steps", "1"]) == 0
    assert "| no-mcc | without motion compensation |" in capsys.readouterr().out
