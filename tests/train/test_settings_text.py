"""The list of settings that `--settings` prints has them all, as they can be typed, and says what each is."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest

from cbtalk.cli import main
from cbtalk.train.config import load_config
from cbtalk.train.sections import TrainConfig
from cbtalk.train.settings_text import meanings, settings_text

CONFIGS = Path(__file__).parents[2] / "configs"
EVERY_FILE = pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)


@EVERY_FILE
def test_every_setting_is_listed_with_its_value_and_can_be_typed_so(file: Path) -> None:
    config = load_config(file)
    lines = [line.split() for line in settings_text(config).splitlines() if re.match("  --", line)]
    assert len(lines) == sum(len(vars(section)) for section in vars(config).values())
    words = []
    for name, *values in lines:
        section, _, setting = name.partition(".")
        if values in (["yes"], ["no"]):
            words.append(name if values == ["yes"] else f"{section}.no-{setting}")
        else:
            words += [name, *values]
    assert load_config(CONFIGS / "paper.yaml", words) == config


def test_every_setting_says_what_it_is() -> None:
    for kind in get_type_hints(TrainConfig).values():
        assert set(meanings(kind)) == set(get_type_hints(kind))


@pytest.mark.parametrize("command", [["train"], ["ablate", "--data", "clips", "-o", "out"]], ids=["train", "ablate"])
def test_the_commands_print_it_and_errors_point_there(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [*command, str(CONFIGS / "mini.yaml"), "--run.steps", "7"]
    assert main([*words, "--settings"]) == 0
    out = capsys.readouterr().out
    assert "\n  --run.steps 7\n        Steps of the whole run.\n" in out
    assert main([*words, "--run.stepz", "1"]) == 2
    assert "--settings` shows" in capsys.readouterr().err
