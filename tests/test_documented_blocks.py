"""Every block of code in README and docs runs: commands in a folder of stand-ins, Python as it stands."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _pytest.mark.structures import ParameterSet
from PIL import Image

from cbtalk.cli import main
from tests.helpers.videos import write_clip

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NOT_HERE = {
    "docs/guides/published_recipe.md": "needs published networks, and minutes; the page says when it ran",
    "docs/guides/app.md": "serves until it is stopped; tests/app starts it and stops it",
    "docs/guides/export.md": "takes minutes; tests/export makes such files and uses them as the page does",
    "docs/guides/install.md": "changes the machine; bench/wheel_check.py and tests/test_completion.py do it elsewhere",
    "docs/guides/weights.md": "needs the released files, or a repository; tests/model has stand-ins for both",
}
VALIDATION = "--data.validation=val"
# Words that make a command short; the last of two equal options counts.
SHORT = {
    "train": [
        *("--run.steps=1", "--run.batch-size=1", "--run.device=cpu", VALIDATION, "--data.min-frames=2"),
        *("--loss.perceptual=0", "--loss.guidance=0", "--loss.expression=0"),
        *("--guidance.steps=0", "--guidance.model=None", "--perceptual.no-faces", "--data.expressive-pairs=0"),
    ],
    "ablate": ["--only=full", VALIDATION, "--run.steps=1", "--run.batch-size=1", "--loss.perceptual=0"],
}


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a language in a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def with_blocks(language: str, what: str = "") -> list[ParameterSet]:
    """The pages that have blocks of a language with these words in them."""
    found = []
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        if any(what in block for block in blocks(page, language)):
            marks = [pytest.mark.skip(reason=NOT_HERE[name])] if name in NOT_HERE else []
            found.append(pytest.param(page, id=name, marks=marks))
    return found


def write_moving(path: Path, photo: Image.Image, frames: int) -> None:
    """A video of a face that moves through the image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lefts = [90 + round(20 * np.sin(frame / 3)) for frame in range(frames)]
    write_clip(path, [np.asarray(photo.crop((left, 0, left + 260, 260)).resize((256, 256))) for left in lefts])


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages name: photos and clips of scikit-image's astronaut."""
    skimage_data = pytest.importorskip("skimage.data", reason="scikit-image is not installed (extra demo)")
    folder = tmp_path_factory.mktemp("stand_ins")
    photo = Image.fromarray(skimage_data.astronaut())
    for name in ("portrait.jpg", "portrait.png", "holiday.jpg", "another.png", "portraits/one.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        photo.save(folder / name)
    for name in ("driving.mp4", "clip.mp4", "clips/one.mp4", "val/one.mp4"):
        write_moving(folder / name, photo, 4)
    write_moving(folder / "raw" / "one.mp4", photo, 60)
    (folder / "models").mkdir()
    (folder / "jobs.csv").write_text("source,driving,output\nportrait.jpg,driving.mp4,one.mp4\n")
    for name in ("configs", "cbtalk"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks("sh", "cbtalk "))
def test_commands_run(page: Path, stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stand_ins)
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "cbtalk":
                assert main([*words[1:], *SHORT.get(words[1], [])]) in (None, 0), line


@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_runs_as_it_stands(page: Path) -> None:
    names: dict[str, Any] = {}
    with torch.no_grad():
        for block in blocks(page, "python"):
            exec(block, names)
    made = [value for value in names.values() if isinstance(value, torch.Tensor)]
    assert made and all(value.isfinite().all() for value in made)
