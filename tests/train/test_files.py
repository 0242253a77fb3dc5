"""All that a configuration needs and that is not there is told at once, before any work, with a remedy that works."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from cbtalk.ablate import compare_variants
from cbtalk.cli import main
from cbtalk.errors import ConfigError
from cbtalk.train import files
from cbtalk.train.config import load_config
from cbtalk.train.files import check_files
from tests.helpers.training import MakeConfig

NEEDS = {
    "data": {"root": "no-root", "validation": "no-validation", "expressive_pairs": 0.5},
    "model": {"keypoints": 16},
    "loss": {"perceptual": 1.0, "guidance": 1.0, "expression": 1.0},
    "perceptual": {"weights": "no-vgg.npz", "faces": True},
    "guidance": {"model": "no-mesh.tflite", "steps": 2},
    "run": {"init": "no-weights.safetensors"},
}
NAMED = ("data.root", "data.validation", "perceptual.weights", "run.init", "guidance.model")


def test_everything_that_is_missing_is_one_error_before_any_work(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(make_config(**NEEDS))]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "5 files or folders are missing" in err
    assert all(name in err for name in NAMED)
    assert not list(tmp_path.rglob("frames"))


def test_an_ablation_looks_at_all_of_it_and_at_the_clips_to_evaluate_on(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = load_config(make_config(**NEEDS))
    with pytest.raises(ConfigError, match="6 files or folders are missing") as caught:
        compare_variants(config, tmp_path / "no-data", tmp_path / "out")
    assert all(name in str(caught.value) for name in (*NAMED, "--data "))
    assert not (tmp_path / "out").exists()


def test_the_remedies_that_it_names_are_arguments_that_help(make_config: MakeConfig, clips: Path) -> None:
    path = make_config(**NEEDS)
    with pytest.raises(ConfigError) as caught:
        check_files(load_config(path), starting=True)
    remedies = re.findall(r"(--\w+\.[^()]*?)(?: leaves| does|\))", str(caught.value))
    words = [word for remedy in remedies for word in shlex.split(remedy)]
    check_files(load_config(path, [*words, "--data.root", str(clips)]), starting=True)
    assert len(remedies) == 4


def test_a_missing_package_is_told_with_the_files(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = tmp_path / "mesh.tflite"
    mesh.touch()
    monkeypatch.setitem(sys.modules, files.MESH_PACKAGES[0], None)
    path = make_config(**NEEDS | {"guidance": {"model": str(mesh)}})
    with pytest.raises(ConfigError, match=r"pip install 'cbtalk\[evaluate\]'") as caught:
        check_files(load_config(path), starting=True)
    assert "no-vgg.npz" in str(caught.value)


def test_what_is_not_used_need_not_be_there(make_config: MakeConfig) -> None:
    unused = {"perceptual": {"weights": "no-vgg.npz"}, "guidance": {"model": "no-mesh.tflite"}}
    config = load_config(make_config(run={"init": "no-weights.safetensors"}, **unused))
    check_files(config, starting=False)
