"""A batch on a disk that becomes full stops with one line, and goes on when there is room."""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbtalk.batch import read_ledger
from tests.helpers.commands import run_cbtalk
from tests.helpers.tiers import slow
from tests.helpers.videos import write_clip

JOBS = 4


@pytest.fixture
def files(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for number in range(JOBS):
        image = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    write_clip(tmp_path / "clip.mp4", [generator.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(3)])
    rows = [f"{number}.png,clip.mp4,{number}.mp4,centre,centre" for number in range(JOBS)]
    (tmp_path / "jobs.csv").write_text("\n".join(["source,driving,output,crop,driving_crop", *rows]))
    return tmp_path


def batch(manifest: Path, folder: Path, limit: Callable[[], None] | None = None) -> "subprocess.CompletedProcess[str]":
    return run_cbtalk("batch", str(manifest), "-o", str(folder), "--workers=1", "--quiet", preexec_fn=limit)


def check_stopped(result: "subprocess.CompletedProcess[str]") -> None:
    assert result.returncode == 1, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and any(
        words in line for words in ("full", "No space", "too large", "disk I/O error")
    ), line


def check_complete(folder: Path) -> None:
    """All is done, and nothing lies about."""
    assert [entry.state for entry in read_ledger(folder)] == ["done"] * JOBS
    names = {path.name for path in folder.iterdir() if not path.name.startswith("batch.sqlite3")}
    assert names == {f"{number}.mp4" for number in range(JOBS)} | {".batch.lock", ".workers.lock", ".motions"}
    assert all((folder / entry.output).stat().st_size == entry.bytes for entry in read_ledger(folder))
    assert len(list((folder / ".motions").iterdir())) == 1


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize("room", [0, 40, 100, 160])
def test_a_small_disk(files: Path, room: int) -> None:
    """room: KiB; the ledger alone takes about 100, a video 40."""
    folder = files / "disk"
    with small_disk(folder, 2 << 20):
        ballast = folder / "ballast"
        ballast.write_bytes(bytes((2 << 20) - (room << 10)))
        check_stopped(batch(files / "jobs.csv", folder))
        assert not list(folder.glob(".*.cbtalk-part"))
        ballast.unlink()
        result = batch(files / "jobs.csv", folder)
        assert result.returncode == 0, result.stderr
        check_complete(folder)


@pytest.mark.parametrize("room", [36, *slow(3)])
def test_a_limit_on_the_size_of_files(files: Path, room: int) -> None:
    """room: KiB; more than 32 is enough to begin the ledger."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (room << 10, resource.RLIM_INFINITY))
    check_stopped(batch(files / "jobs.csv", files / "out", limit))
    result = batch(files / "jobs.csv", files / "out")
    assert result.returncode == 0, result.stderr
    check_complete(files / "out")
