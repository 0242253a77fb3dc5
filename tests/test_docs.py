"""README and docs: their links lead somewhere, their commands exist with the options that they are given."""

import dataclasses
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import cbtalk
from cbtalk import nn, ops
from cbtalk.cli import main
from cbtalk.cli.main import COMMANDS
from cbtalk.train.sections import TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every `cbtalk` command in the page's blocks of shell."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and words[0] != "cbtalk":
                del words[0]  # torchrun ... -m cbtalk
            if words:
                yield words[1:]


def settings() -> set[str]:
    """The settings of a training configuration, as options."""
    found = set()
    for section in dataclasses.fields(TrainConfig):
        values = getattr(TrainConfig(), section.name)
        found |= {f"--{section.name}.{field.name}".replace("_", "-") for field in dataclasses.fields(values)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist_with_their_options(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, *words in commands(page):
        if name == "--tyro-write-completion":  # tests/test_completion.py
            continue
        assert name in COMMANDS, name
        with pytest.raises(SystemExit):
            main([name, "--help"])
        known = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", capsys.readouterr().out)
        for word in words:
            option = word.partition("=")[0]
            if "." in option and option.startswith("--"):
                assert name in ("train", "ablate") and option.replace("_", "-") in settings(), option
            elif option.startswith("-"):
                assert option in known, f"cbtalk {name} {option}"


def test_readme_fits_a_screen_or_two() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 120
    assert (ROOT / "docs" / "images" / "demo.gif").stat().st_size <= 3 << 20


def test_the_table_of_extras_is_that_of_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    del extras["dev"]  # in the text below the table
    page = (ROOT / "docs" / "guides" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+)` \| .+ \| (.+) \|$", page, re.MULTILINE)
    assert len(rows) == len(extras)
    names = {extra: {Requirement(line).name for line in lines} for extra, lines in extras.items()}
    assert {extra: set(packages.split(", ")) for extra, packages in rows} == names


def test_the_documentation_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (extra docs)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "reference" / "ops" / "index.html").read_text(encoding="utf-8")
    assert "nearest_code" in page and "squared Euclidean distance" in page


def test_every_public_name_is_in_the_reference() -> None:
    reference = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    documented = {name.rpartition(".")[2] for name in re.findall(r"^::: ([\w.]+)", reference, re.MULTILINE)}
    errors = {
        name for name in cbtalk.__all__ if isinstance(getattr(cbtalk, name), type)
    }  # on the page of cbtalk.errors
    public = {name for module in (ops, nn) for name in vars(module) if not name.startswith("_")} | set(cbtalk.__all__)
    modules = {name for name in public if isinstance(getattr(ops, name, getattr(nn, name, None)), type(sys))}
    assert public - errors - modules - {"__version__"} <= documented
