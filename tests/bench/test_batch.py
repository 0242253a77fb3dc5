"""The parts of the benchmark of batches that judge."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import run
from bench.batch_kills import _faults
from bench.batch_stages import partition
from bench.batch_work import Line, portraits, same, short_clips, write_jobs
from cbtalk.batch import read_ledger, read_manifest
from cbtalk.batch.ledger import open_ledger
from tests.bench.test_run import command, planted
from tests.helpers.videos import numbered, write_clip

__all__ = ["planted"]  # a fixture


def test_of_stages_at_once_the_first_takes_the_time() -> None:
    spans = [("model", 0.0, 2.0), ("encode", 1.0, 4.0), ("decode", 3.0, 5.0), ("model", 6.0, 7.0), ("decode", 6.5, 6.9)]
    assert partition(spans) == pytest.approx({"model": 3.0, "encode": 2.0, "faces": 0.0, "decode": 1.0})


def test_videos_are_the_same_only_in_every_frame_and_time(tmp_path: Path) -> None:
    images = [numbered(number) for number in range(4)]
    one, other = write_clip(tmp_path / "one.mp4", images), write_clip(tmp_path / "other.mp4", images)
    assert same(one, other)
    assert not same(one, write_clip(tmp_path / "short.mp4", images[:3]))
    assert not same(one, write_clip(tmp_path / "changed.mp4", [*images[:3], numbered(7)]))


def test_jobs_of_real_files(tmp_path: Path) -> None:
    images, clips, scratch = tmp_path / "images", tmp_path / "clips", tmp_path / "scratch"
    for folder in (images, clips, scratch):
        folder.mkdir()
    for name in ("a_256.png", "a_512.png", "b_256.png"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(images / name)
    for number in range(3):
        write_clip(clips / f"{number}.mp4", [numbered(n) for n in range(12)])
    drivings = short_clips(clips, scratch, 2, (3, 5), 2, seed=0)
    sources = portraits(images, drivings, scratch, 3)
    assert [path.name for path in sources[:2]] == ["a_256.png", "b_256.png"] and len(sources) == 3
    manifest, lines = write_jobs(scratch / "jobs.csv", sources, drivings, 5)
    jobs, faults = read_manifest(manifest, scratch / "out", {})
    assert not faults and [(job.source, job.driving) for job in jobs] == [(line.source, line.driving) for line in lines]


def test_faults_of_a_batch_that_was_killed_are_found(tmp_path: Path) -> None:
    lines = [Line(tmp_path, tmp_path, f"{number}.mp4") for number in range(3)]
    with open_ledger(tmp_path) as ledger:
        ledger.plan([(line.output, "", "", "{}", "") for line in lines])
        for line in lines:
            (tmp_path / line.output).write_text("video")
            ledger.started(line.output)
            ledger.done(line.output, 1, 0.1, 5, [])
    (tmp_path / ".motions").mkdir()
    (tmp_path / ".workers.lock").touch()
    entries = read_ledger(tmp_path)
    assert _faults(tmp_path, lines, entries) == []
    (tmp_path / "0.mp4").write_text("cut")
    (tmp_path / ".0.mp4.12.cbtalk-part").touch()
    (tmp_path / ".motions" / ".x.cbtalk-part").touch()
    faults = _faults(tmp_path, lines[:2], entries)
    assert sum("stray" in fault for fault in faults) == 3  # the third job's video among them
    assert len(faults) == 5 and "0.mp4: done, 5 bytes" in faults


def test_batches_have_a_table(
    planted: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"jobs": "4 of 25 frames", "precision": "fp32", "workers": 2, "seconds": 20.0, "frames": 100, "start": 5.0}
    record = {"weights": "mini", "rows": [row | {"running": 9.0, "floor": 10.0}], "shares": {"model": 0.9, "rest": 0.1}}
    monkeypatch.setattr(run, "measure_batch", lambda workers, jobs: record)
    assert command(monkeypatch, "--batch", "--html", str(tmp_path / "run.html")) == 0
    shown = capsys.readouterr().out
    assert "5.00" in shown and "90%" in shown and "model 90.0%" in shown
    assert "the model alone" in (tmp_path / "run.html").read_text()
