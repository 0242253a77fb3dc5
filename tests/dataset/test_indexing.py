"""The index: made once, by several processes, and right whatever happens to it and to the clips."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbtalk.dataset import ClipSet, Way, index_clips, indexing
from cbtalk.dataset.index import FILE
from cbtalk.dataset.kinds import KINDS
from cbtalk.dataset.record import Record
from cbtalk.errors import InputError
from cbtalk.media.clips import Clip, mean_change
from tests.dataset.conftest import SIZE, MakeClips, expected
from tests.helpers.tiers import slow


def indexed(root: Path, way: Way = "files", processes: int | None = None) -> ClipSet:
    return index_clips(root, way, SIZE, root.parent / "cache", processes=processes)


@pytest.fixture
def surveyed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read whole, in this process."""
    read: list[str] = []
    survey = indexing._surveyed

    def noted(job: indexing._Job, *, size: int, cache: Path) -> list[Record]:
        read.append(job.source.path.name)
        return survey(job, size=size, cache=cache)

    monkeypatch.setattr(indexing, "_surveyed", noted)
    return read


@pytest.mark.parametrize(("way", "processes"), [("decoded", 1), ("files", 1), ("files", 3), *slow(("decoded", 3))])
def test_frames_people_and_motion_of_every_clip(make_clips: MakeClips, way: Way, processes: int) -> None:
    root = make_clips("bob__1.mp4", "id10001/x/00001.mp4", "id10001/x/00002.mp4", "bob__0.mp4")
    (root / "carol").mkdir()
    for number in range(3):
        Image.fromarray(expected(root / "bob__0.mp4")[number]).save(root / "carol" / f"{number}.png")
    (root / "carol" / "1.png").write_bytes(b"damaged")
    clips = indexed(root, way, processes)
    names = ["bob__0.mp4", "bob__1.mp4", "carol", "id10001/x/00001.mp4", "id10001/x/00002.mp4"]
    assert [clips.title(number) for number in range(len(clips))] == [str(root / name) for name in names]
    assert clips.people.tolist() == [0, 0, 1, 2, 2]
    for name, frames, change in zip(names, clips, clips.changes, strict=True):
        whole = expected(root / name)
        np.testing.assert_array_equal(frames[np.arange(len(frames))], whole)
        assert len(frames) == len(whole) and change == mean_change(whole)


def test_only_what_is_new_or_changed_is_read(make_clips: MakeClips, surveyed: list[str]) -> None:
    root = make_clips("a.mp4", "b.mp4")
    before = indexed(root)
    assert sorted(surveyed) == ["a.mp4", "b.mp4"]
    shutil.copy(root / "a.mp4", root / "c.mp4")
    shutil.copy(make_clips("x.mp4", frames=9, folder="other") / "x.mp4", root / "b.mp4")
    surveyed.clear()
    after = indexed(root)
    assert sorted(surveyed) == ["b.mp4", "c.mp4"]
    assert before.lengths.tolist() == [6, 6] and after.lengths.tolist() == [6, 9, 6]
    np.testing.assert_array_equal(after.read(1, range(9)), expected(root / "b.mp4"))
    surveyed.clear()
    indexed(root)
    assert not surveyed


def test_an_index_that_was_ended_goes_on(
    make_clips: MakeClips, surveyed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_clips("a.mp4", "b.mp4", "c.mp4")
    noted = indexing._surveyed

    def ended(job: indexing._Job, *, size: int, cache: Path) -> list[Record]:
        if job.source.name == "b.mp4":
            raise KeyboardInterrupt
        return noted(job, size=size, cache=cache)

    with monkeypatch.context() as patch:
        patch.setattr(indexing, "_surveyed", ended)
        with pytest.raises(KeyboardInterrupt):
            indexed(root)
    assert surveyed == ["a.mp4"]
    indexed(root)
    assert surveyed == ["a.mp4", "b.mp4", "c.mp4"]


def dies_at_b(job: indexing._Job, *, size: int, cache: Path) -> list[Record]:
    if job.source.name == "b.mp4":
        os._exit(9)
    return KINDS[job.source.kind].survey(job.source.path, size, cache)


def test_a_clip_whose_process_dies_is_left_out_alone(
    make_clips: MakeClips, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_clips("a.mp4", "b.mp4", "c.mp4", "d.mp4")
    monkeypatch.setattr(indexing, "_surveyed", dies_at_b)
    with caplog.at_level(logging.WARNING):
        clips = indexed(root, processes=2)
    assert [Path(clips.title(number)).name for number in range(len(clips))] == ["a.mp4", "c.mp4", "d.mp4"]
    assert f"left out: {root / 'b.mp4'}: the process that read it died (exit code 9)" in caplog.text


@pytest.mark.parametrize("processes", [1, *slow(2)])
def test_what_cannot_be_read_is_left_out_with_its_reason(
    make_clips: MakeClips, caplog: pytest.LogCaptureFixture, processes: int
) -> None:
    root = make_clips("a.mp4")
    (root / "b.mp4").write_bytes(b"no video")
    (root / "cut.mkv").write_bytes((make_clips("x.mkv", frames=30, folder="other") / "x.mkv").read_bytes()[:-200])
    with caplog.at_level(logging.WARNING):
        assert len(indexed(root, processes=processes)) == 2
    assert "b.mp4: is not a video" in caplog.text and "cut.mkv: is cut off" in caplog.text
    (root / "a.mp4").unlink()
    (root / "cut.mkv").unlink()
    with pytest.raises(InputError, match="no clip in it that can be used"):
        indexed(root, processes=processes)


@pytest.mark.parametrize("damage", [b"", b"no index", None])
def test_an_index_that_is_damaged_is_made_anew(
    make_clips: MakeClips, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_clips("a.mp4", "b.mp4")
    indexed(root)
    file = root.parent / "cache" / FILE
    file.write_bytes(file.read_bytes()[:5000] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        clips = indexed(root)
    assert len(clips) == 2 and (damage == b"" or "is damaged and made anew" in caplog.text)
    np.testing.assert_array_equal(clips.read(1, range(6)), expected(root / "b.mp4"))


@pytest.mark.parametrize("damage", [b"no frames", None])
def test_decoded_frames_that_are_gone_or_damaged_are_made_anew(make_clips: MakeClips, damage: bytes | None) -> None:
    root = make_clips("a.mp4", "b.mp4")
    (first, _) = indexed(root, "decoded").own_files()
    first.unlink()
    if damage is not None:
        first.write_bytes(damage)
    np.testing.assert_array_equal(indexed(root, "decoded").read(0, range(6)), expected(root / "a.mp4"))


def test_names_of_any_bytes(make_clips: MakeClips) -> None:
    root = make_clips("a.mp4")
    name = os.fsdecode(b"\xff\xe4__0.mp4")
    (root / "a.mp4").rename(root / name)
    (root / "link.mp4").symlink_to(root / name)
    for way in ("decoded", "files"):
        clips = indexed(root, way)  # type: ignore[arg-type]
        assert len(clips) == 2 and len(set(clips.people.tolist())) == 2
        np.testing.assert_array_equal(clips.read(0, [3, 1, 3]), expected(Clip("", root / name, "").path)[[3, 1, 3]])
