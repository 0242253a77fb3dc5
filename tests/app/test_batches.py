from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cbtalk.app.batches import COLUMNS, PageBatch, every_pair, manifest_of
from cbtalk.batch import BatchOptions
from cbtalk.errors import InputError
from tests.app.conftest import CLIP_FRAMES, LIMITS

ROWS = [["portrait.png", "driving.mp4"]]
MANIFEST = "source,driving,output,crop,driving_crop\nportrait.png,driving.mp4,{},centre,centre\n"


@pytest.fixture
def begun(portrait: Path, make_clip: Callable[..., Path], tmp_path: Path) -> Callable[..., PageBatch]:
    """A batch with a portrait and a clip uploaded, by a manifest's text or by rows."""
    files = [str(portrait), str(make_clip())]

    def begin(text: str | None = None, rows: Sequence[Sequence[object]] = ROWS) -> PageBatch:
        if text is not None:
            (tmp_path / "jobs.csv").write_text(text)
        return PageBatch(files, None if text is None else str(tmp_path / "jobs.csv"), rows, LIMITS, tmp_path)

    return begin


def test_the_table_begins_with_every_image_by_every_clip() -> None:
    rows = every_pair(["/up/b.png", "/up/a.jpg", "/up/clip.mp4", "/up/m.safetensors"])
    assert [row[:2] for row in rows] == [
        ["a.jpg", "clip.mp4"],
        ["a.jpg", "m.safetensors"],
        ["b.png", "clip.mp4"],
        ["b.png", "m.safetensors"],
    ]
    assert {len(row) for row in rows} == {len(COLUMNS)}


def test_a_table_is_a_manifest_without_its_empty_rows() -> None:
    text = manifest_of([["a, b.png", "clip.mp4", 0.5, None, ""], ["", " ", None, None, None]])
    assert text.splitlines() == ["source,driving,strength,smooth,paste", '"a, b.png",clip.mp4,0.5,,']


def test_a_batch_runs_to_videos_and_a_report(begun: Callable[..., PageBatch], weights: Path) -> None:
    batch = begun(MANIFEST.format("out.mp4"))
    batch.start(batch.check(str(weights)), BatchOptions(weights=str(weights), workers=1, threads=1))
    while not batch.finished(0.2):
        pass
    assert [(entry.output, entry.state, entry.frames) for entry in batch.entries()] == [
        ("out.mp4", "done", CLIP_FRAMES)
    ]
    assert [path.name for path in batch.results()] == ["out.mp4", "report.csv"]
    assert all(path.is_file() for path in batch.results())


def test_a_batch_that_is_stopped_begins_no_other_job(begun: Callable[..., PageBatch], weights: Path) -> None:
    batch = begun(MANIFEST.format("out.mp4"))
    batch.stop()
    batch.start(batch.check(str(weights)), BatchOptions(weights=str(weights), workers=1, threads=1))
    while not batch.finished(0.2):
        pass
    assert [entry.state for entry in batch.entries()] == ["waiting"]
    assert batch.summary is not None and batch.summary.stopped is not None
    assert [path.name for path in batch.results()] == ["report.csv"]


def test_a_batch_that_has_ended_has_nothing_to_stop(begun: Callable[..., PageBatch], tmp_path: Path) -> None:
    batch = begun(MANIFEST.format("out.mp4"))
    batch.start(batch.check("mini"), BatchOptions(weights=str(tmp_path / "gone.safetensors"), workers=1, threads=1))
    with pytest.raises(OSError, match=r"gone\.safetensors"):
        while not batch.finished(0.2):
            pass
    assert not batch.stop()


def test_a_job_that_fails_is_told_in_the_report(begun: Callable[..., PageBatch], weights: Path) -> None:
    batch = begun()  # neither the portrait nor the clip shows a face
    batch.start(batch.check(str(weights)), BatchOptions(weights=str(weights), workers=1, threads=1))
    while not batch.finished(0.2):
        pass
    (entry,) = batch.entries()
    assert entry.state == "failed" and "no face is found" in str(entry.error)
    assert [path.name for path in batch.results()] == ["report.csv"]


@pytest.mark.parametrize(
    "row",
    ["{}/secret.png,driving.mp4,", "../secret.png,driving.mp4,", "https://example.org/a.png,driving.mp4,"],
)
def test_a_manifest_reaches_no_file_but_the_uploaded(
    begun: Callable[..., PageBatch], weights: Path, portrait: Path, row: str
) -> None:
    secret = portrait.rename(portrait.with_name("secret.png"))
    portrait.write_bytes(secret.read_bytes())
    batch = begun("source,driving,strength\n" + row.format(secret.parent) + "\n")
    with pytest.raises(InputError, match=r"line 2: .*only uploaded files can be named"):
        batch.check(str(weights))


def test_a_manifest_writes_to_its_own_folder_alone(begun: Callable[..., PageBatch], weights: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: .*must lie in the folder of the batch"):
        begun(MANIFEST.format("../out.mp4")).check(str(weights))
    with pytest.raises(InputError, match=r"line 2: .*writes no URLs"):
        begun(MANIFEST.format("https://example.org/out.mp4")).check(str(weights))


def test_sound_of_other_files_is_refused_too(begun: Callable[..., PageBatch], weights: Path) -> None:
    batch = begun("source,driving,audio\nportrait.png,driving.mp4,/etc/hostname\n")
    with pytest.raises(InputError, match="only uploaded files"):
        batch.check(str(weights))


def test_faults_are_told_in_one_line(begun: Callable[..., PageBatch], weights: Path) -> None:
    lines = "".join(f"portrait.png,driving.mp4,{strength}\n" for strength in (3, 4, 5, 6))
    with pytest.raises(InputError) as failure:
        begun(f"source,driving,strength\n{lines}").check(str(weights))
    assert str(failure.value).startswith("nothing was begun: line 2: ")
    assert str(failure.value).endswith("; and 1 more")


def test_more_jobs_than_the_limit_are_refused(begun: Callable[..., PageBatch], weights: Path) -> None:
    rows = [["portrait.png", "driving.mp4", strength] for strength in (0.5, 1, 1.5, 2)]
    with pytest.raises(InputError, match="4 jobs are more than 3"):
        begun(rows=rows).check(str(weights))


def test_a_clip_over_the_limit_is_refused(
    begun: Callable[..., PageBatch], weights: Path, make_clip: Callable[..., Path]
) -> None:
    batch = begun(MANIFEST.format("out.mp4"))
    make_clip(11).replace(batch.folder / "inputs" / "driving.mp4")
    with pytest.raises(InputError, match=r"line 2: .*11 frames are more than 10"):
        batch.check(str(weights))


def test_two_files_of_one_name_are_told(portrait: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / portrait.name
    other.parent.mkdir()
    other.write_bytes(portrait.read_bytes())
    with pytest.raises(InputError, match=r"portrait\.png: two of the files have this name"):
        PageBatch([str(portrait), str(other)], None, ROWS, LIMITS, tmp_path)
