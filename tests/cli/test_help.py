"""Help of every command: what it shows can be typed, and each option is there once."""

import re
import shlex
import subprocess
import sys
from collections import Counter

import pytest

from cbtalk.cli import main
from cbtalk.cli.main import COMMANDS
from cbtalk.cli.train import split_settings
from cbtalk.options.parsing import parse_command

EVERY = pytest.mark.parametrize("command", COMMANDS)


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@EVERY
@pytest.mark.parametrize("columns", [80, 120])
def test_help_is_plain_and_fits(
    command: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = help_of(command, capsys)
    for odd in ("None", "False", "--no-", "STR", "PATH", "DESCRIPTION"):
        assert odd not in text
    assert "--debug" in text
    examples = [line for line in text.splitlines() if line.startswith("    ")]
    usage = text.splitlines()[0]
    assert all(len(line) <= columns for line in text.splitlines() if line not in (usage, *examples))
    assert not re.search(r"^│ +│$", text, re.MULTILINE), "an empty line in a box"
    assert not re.search(r"^│ +\w+ {20,}│\n│ +\w", text, re.MULTILINE), "a line that is broken in the middle"


@EVERY
def test_examples_can_be_typed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"^    cbtalk (\w+) ?(.*)$", help_of(command, capsys), re.MULTILINE)
    assert examples, "no example"
    for name, words in examples:
        assert name == command
        parse_command(COMMANDS[command], f"cbtalk {command}", split_settings(shlex.split(words))[0])


@EVERY
def test_an_option_is_there_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = Counter(re.findall(r"^│ (?:-\w \w+, )?(--[a-z-]+)", help_of(command, capsys), re.MULTILINE))
    assert (options and set(options.values()) <= {1}) or command == "doctor"


@EVERY
def test_wrong_words_are_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--no-such-option"], ["--no-such-option", "1"], ["one", "two", "three", "four"]):
        assert main([command, *words]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
        assert f"`cbtalk {command} --help`" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a command"),
        (["rendr"], "did you mean render?"),
        (["render", "-s", "a.png"], "--driving FILE, --output FILE"),
        (["render", "-s", "a.png", "-d", "b.mp4", "-o", "c.mp4", "--wieghts", "mini"], "perhaps you meant: --weights"),
        (
            ["render", "-s", "a.png", "-d", "b.mp4", "-o", "c.mp4", "--driving-crop", "1,2"],
            "--driving-crop: crop '1,2'",
        ),
        (["render", "-s", "a.png", "-d", "b.mp4", "-o", "c.mp4", "--start", "soon"], "--start"),
        (["batch"], "name the jobs, by a manifest or --sources and --drivings, and --output"),
        (["batch", "jobs.csv"], "--output: name a folder"),
        (["batch", "jobs.csv", "-o", "out", "--set", "krop=1"], "--set krop=1: no such option; did you mean crop?"),
        (["train", "nope.yaml"], "nope.yaml: cannot be read: No such file"),
        (["ablate", "nope.yaml", "--data", "clips", "-o", "out"], "nope.yaml: cannot be read: No such file"),
        (
            ["evaluate", "--data", "clips", "--weights", "foo"],
            "neither a file nor the name of bundled weights; bundled: mini",
        ),
        (["train", "configs/mini.yaml", "--run.stepz", "4"], "perhaps you meant: --run.steps"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z]", out, re.MULTILINE)
    assert "--version" in out and "--debug" in out


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; import cbtalk.cli.main; sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
