"""A batch whose files lie behind URLs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.batch_work import same
from cbtalk.batch import BatchOptions, faults_of, pairs, read_ledger, read_manifest, run_batch
from cbtalk.batch.command import show_plan
from cbtalk.batch.job import Job
from cbtalk.batch.remote_files import Url
from cbtalk.cli.batch import batch
from cbtalk.errors import ConfigError
from tests.batch import stand_in
from tests.batch.http_server import served
from tests.helpers.commands import run_cbtalk
from tests.helpers.videos import numbered, write_clip

pytest.importorskip("fsspec", reason="fsspec is not installed")
pytest.importorskip("aiohttp", reason="fsspec opens HTTP with aiohttp, which is not installed")


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    """The URL of the test's folder."""
    with served(tmp_path) as url:
        yield url


def remote_job(folder: Path, http: str, name: str) -> Job:
    """The job of `stand_in` with its inputs behind HTTP, its output in another folder."""
    job = stand_in.job(folder, name)
    source, driving = Url(f"{http}/{name}.png"), Url(f"{http}/clip.mp4")
    return replace(job, source=source, driving=driving, output=Url(f"file://{folder}/far/{name}.mp4"))


def test_a_batch_of_urls_does_each_job_once(
    tmp_path: Path, http: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cbtalk.batch.process_pool.serve", stand_in.serve)
    jobs = [remote_job(tmp_path, http, name) for name in "ab"]
    far, out, options = tmp_path / "far", tmp_path / "out", BatchOptions(workers=2)
    far.mkdir()
    (far / ".a.mp4.0123.cbtalk-part").touch()
    summary = run_batch(jobs, out, options)
    assert (summary.done, summary.failed) == (2, 0), summary.errors
    assert {path.name: path.read_bytes() for path in far.iterdir()} == {
        "a.mp4": b"a.pngclip.mp4",
        "b.mp4": b"b.pngclip.mp4",
    }
    assert not (out / ".downloads").exists()
    entry = read_ledger(out)[0]
    assert (entry.output, entry.source, entry.bytes) == (str(jobs[0].output), str(jobs[0].source), 13)
    assert run_batch(jobs, out, options).already_done == 2
    assert show_plan(jobs, out, options) == 0 and "2 more are done" in capsys.readouterr().out
    (far / "a.mp4").unlink()
    (tmp_path / "b.png").write_text("changed")
    assert run_batch(jobs, out, options).done == 2
    assert (far / "b.mp4").read_bytes().startswith(b"changed")


@pytest.mark.slow
def test_a_transfer_that_fails_is_tried_again_by_the_same_worker(
    tmp_path: Path, http: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbtalk.batch.process_pool.serve", stand_in.serve)
    job = remote_job(tmp_path, http, "flaky")
    summary = run_batch([job], tmp_path / "out", BatchOptions(retries=0))
    assert summary.failed == 1 and f"flaky.mp4: {job.source}: cannot be read: 503" in summary.errors[0]
    (entry,) = read_ledger(tmp_path / "out")
    assert (entry.state, entry.attempts) == ("failed", 1)
    job = remote_job(tmp_path, http, "flaky2")
    assert run_batch([job], tmp_path / "out", BatchOptions(retries=1)).done == 1
    assert {entry.attempts for entry in read_ledger(tmp_path / "out")} == {1, 2}


def test_every_fault_of_urls_by_its_line(tmp_path: Path, http: str) -> None:
    (tmp_path / "a.png").write_text("an image, for all that is looked at")
    (tmp_path / "empty.mp4").touch()
    lines: list[tuple[str, str | None]] = [
        (f"{http}/a.png,{http}/a.png,s3://bucket/2.mp4,", None),
        (f"{http}/a.png,{http}/no.mp4,s3://bucket/3.mp4,", "no.mp4: no such file"),
        (f"{http}/500.png,{http}/a.png,s3://bucket/4.mp4,", "500.png: cannot be read"),
        (f"nix://a.png,{http}/a.png,s3://bucket/5.mp4,", "Protocol not known: nix"),
        (f"{http}/a.png,{http}/a.png,s3://bucket/2.mp4,", "the same output as line 2"),
        (f"{http}/a.png,{http}/a.png,{http}/7.mp4,", "7.mp4: an output cannot be put where HTTP"),
        (f"{http}/a.png,{http}/a.png,s3://bucket/8.png,", "must end in .mp4"),
        (f"{http}/a.png,{http}/a.png,s3://bucket/[9].mp4,", "must be without"),
        (f"{http}/a.png,{http}/empty.mp4,s3://bucket/10.mp4,", "empty.mp4: is empty"),
        (f"{http}/a.png,{http}/a.png,s3://bucket/11.mp4,{http}/no.wav", "no.wav: no such file"),
        (f"file://{tmp_path},{http}/a.png,s3://bucket/12.mp4,", "is a folder"),
        (f"file://{tmp_path}/clip.mp4,{http}/a.png,file://{tmp_path}/x/../clip.mp4,", "the output is an input"),
    ]
    (tmp_path / "clip.mp4").write_text("clip")
    (tmp_path / "jobs.csv").write_text("\n".join(["source,driving,output,audio", *(line for line, _ in lines)]))
    jobs, faults = read_manifest(tmp_path / "jobs.csv", tmp_path / "out", {})
    found = {fault.line: fault.text for fault in faults_of(jobs)}
    expected = {number: words for number, (_, words) in enumerate(lines, 2) if words is not None}
    assert not faults and found.keys() == expected.keys()
    for number, words in expected.items():
        assert words in found[number], found[number]


def test_a_manifest_names_outputs_after_urls(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text("source,driving\ns3://bucket/in/a.png,https://host/clip.mp4?key=1\n")
    (job,), _ = read_manifest(tmp_path / "jobs.csv", tmp_path / "out", {"audio": "s3://bucket/a.wav"})
    assert job.output == tmp_path / "out" / "a__clip.mp4"
    assert job.audio == Url("s3://bucket/a.wav") and dict(job.words) == {"audio": "s3://bucket/a.wav"}


def test_pairs_may_have_sound_behind_a_url(tmp_path: Path) -> None:
    for name in ("a.png", "a.mp4"):
        (tmp_path / name).touch()
    (job,) = pairs(tmp_path, tmp_path, tmp_path / "out", "all", {"audio": "s3://bucket/a.wav"})
    assert job.inputs[2:] == [Url("s3://bucket/a.wav")]


def test_the_ledger_needs_a_folder_of_this_machine() -> None:
    with pytest.raises(ConfigError, match="outputs in a manifest may be URLs"):
        batch(Path("jobs.csv"), output=Path("s3://bucket/out"))


def test_the_video_is_that_of_files(tmp_path: Path, http: str) -> None:
    """With the real worker, through the command."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    write_clip(tmp_path / "clip.mp4", [numbered(number) for number in range(3)])
    rows = [
        "source,driving,output,crop,driving_crop",
        "a.png,clip.mp4,local.mp4,centre,centre",
        f"{http}/a.png,{http}/clip.mp4,file://{tmp_path}/far/remote.mp4,centre,centre",
    ]
    (tmp_path / "jobs.csv").write_text("\n".join(rows))
    words = ["batch", str(tmp_path / "jobs.csv"), "-o", str(tmp_path / "out"), "--workers=1", "--quiet"]
    result = run_cbtalk(*words)
    assert result.returncode == 0, result.stderr
    assert same(tmp_path / "out" / "local.mp4", tmp_path / "far" / "remote.mp4")
