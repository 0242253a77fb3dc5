"""The completion script of the command line, in a real bash."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cbtalk.cli import main
from cbtalk.cli.main import COMMANDS

# Asks as bash does where the user presses the tab key behind the last word.
ASK = """
source "$1"; shift
function=$(complete -p cbtalk | sed 's/.*-F \\([^ ]*\\).*/\\1/')
for line in "$@"; do
  read -ra COMP_WORDS <<< "$line"
  [[ $line == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$line COMP_POINT=${#line} COMPREPLY=()
  $function
  echo "${COMPREPLY[*]}"
done
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that a user writes with `cbtalk --tyro-write-completion bash FILE`."""
    path = tmp_path_factory.mktemp("completion") / "cbtalk"
    with pytest.raises(SystemExit) as ended:
        main(["--tyro-write-completion", "bash", str(path)])
    assert not ended.value.code
    return path


def completed(script: Path, *lines: str) -> list[list[str]]:
    """The words that bash offers behind each of these lines."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    done = subprocess.run([bash, "-c", ASK, "ask", str(script), *lines], capture_output=True, text=True, check=True)
    assert not done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_commands_and_choices_are_completed(script: Path) -> None:
    commands, beginning, encoders = completed(script, "cbtalk ", "cbtalk re", "cbtalk render --encoder ")
    assert set(COMMANDS) <= set(commands)
    assert beginning == ["render"]
    assert encoders == ["auto", "libx264", "h264_nvenc"]


def test_every_option_of_every_command_is_completed(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, found in zip(COMMANDS, completed(script, *(f"cbtalk {name} --" for name in COMMANDS)), strict=True):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        named = set(re.findall(r"^[│ ]+(?:-\w(?: \S+)?, )?(--[a-z][a-z-]*)", capsys.readouterr().out, re.MULTILINE))
        assert len(named) > 1 or name == "doctor"
        assert named <= set(found), name
