"""Clips in tar files: what is written is complete and can be gone on with, and read like any folder of clips."""

import io
import logging
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbtalk.atomic import SUFFIX as UNFINISHED
from cbtalk.cli import main
from cbtalk.dataset import FrameOptions, holds_shards, index_clips, write_shards
from cbtalk.errors import InputError, OutputError
from tests.dataset.conftest import SIZE, MakeClips

PNG = FrameOptions(SIZE, "png")
NAMES = (
    "id10001/x/00001.mp4",
    "ann__0.mp4",
    "ann__1.mp4",
    os.fsdecode(b"\xff\xfe__0.mp4"),
    f"{150 * 'long'}.mp4"[-200:],
)


def members(folder: Path) -> dict[str, int]:
    """The names in all shards, and how often each is there."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path, errors="surrogateescape") as tar:
            for name in tar.getnames():
                found[name] = found.get(name, 0) + 1
    return found


@pytest.mark.parametrize("processes", [1, 2])
def test_clips_come_back_as_they_were(make_clips: MakeClips, tmp_path: Path, processes: int) -> None:
    root = make_clips(*NAMES)
    assert write_shards(root, tmp_path / "out", PNG, processes=processes) == (5, 0, 0)
    assert holds_shards(tmp_path / "out") and not holds_shards(root)
    packed = index_clips(tmp_path / "out", "files", SIZE, tmp_path / "a")
    plain = index_clips(root, "decoded", SIZE, tmp_path / "b")
    assert packed.lengths.tolist() == plain.lengths.tolist() and packed.people.tolist() == plain.people.tolist()
    assert packed.changes.tolist() == plain.changes.tolist()
    for number in range(len(NAMES)):
        np.testing.assert_array_equal(packed.read(number, [4, 0, 4]), plain.read(number, [4, 0, 4]))
    assert len(set(packed.own_files())) == len(NAMES)
    assert packed.title(0) == f"{tmp_path / 'out' / '000000.tar'}: ann__0.mp4"


def test_shards_are_cut_by_size_and_a_clip_is_in_one_of_them(make_clips: MakeClips, tmp_path: Path) -> None:
    root = tmp_path / "noise"
    rng = np.random.default_rng(0)
    for clip in "abc":
        (root / clip).mkdir(parents=True)
        for frame in range(4):
            Image.fromarray(rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)).save(root / clip / f"{frame}.png")
    write_shards(root, tmp_path / "out", FrameOptions(400, "png"), shard_mb=1)
    names = [path.name for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert names == ["000000.tar", "000001.tar", "000002.tar"]
    assert members(tmp_path / "out") == {f"{clip}/{frame:06}.png": 1 for clip in "abc" for frame in range(4)}


def test_it_goes_on_with_what_is_in_no_shard(make_clips: MakeClips, tmp_path: Path) -> None:
    root, out = make_clips("a.mp4", "b.mp4"), tmp_path / "out"
    write_shards(root, out, PNG)
    (out / f".000001.tar.12345678{UNFINISHED}").write_bytes(b"what a killed run was writing")
    make_clips("a.mp4", "b.mp4", "c.mp4", folder="more")
    (tmp_path / "more" / "c.mp4").rename(root / "c.mp4")
    (root / "d.mp4").write_bytes(b"no video")
    assert write_shards(root, out, PNG) == (1, 2, 1)
    assert sorted(path.name for path in out.iterdir()) == [".shards.lock", "000000.tar", "000001.tar"]
    assert members(out) == {f"{clip}.mp4/{frame:06}.png": 1 for clip in "abc" for frame in range(6)}
    with pytest.raises(OutputError, match="shards of other options"):
        write_shards(root, out, FrameOptions(SIZE, 90))
    os.utime(root / "b.mp4", (1, 1))
    with pytest.raises(OutputError, match=r"holds b\.mp4 as it was before it changed"):
        write_shards(root, out, PNG)


def test_the_command(make_clips: MakeClips, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = make_clips("a.mp4"), tmp_path / "clips" / "shards"
    assert main(["shards", str(root), str(out), "--size", "32", "--quality", "90", "--quiet"]) == 0
    assert members(out) == {f"a.mp4/{frame:06}.jpg": 1 for frame in range(6)}
    for option, value in (("--quality", "101"), ("--quality", "best"), ("--size", "0"), ("--shard-mb", "0")):
        assert main(["shards", str(root), str(out), option, value]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {option}") and f"{value}: must be" in err
    (root / "b.mp4").write_bytes(b"no video")
    assert main(["shards", str(root), str(out), "--size", "32", "--quality", "90"]) == 1
    assert "0 clips written, 1 there before, 1 left out" in capsys.readouterr().out


def test_shards_of_others_damaged_ones_and_what_is_no_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make_clips: MakeClips
) -> None:
    """Frames of two clips in turn, files beside them, a damaged frame, a file that is cut off, one that is none."""
    out = tmp_path / "out"
    out.mkdir()
    images = [np.full((SIZE, SIZE, 3), 20 * level, dtype=np.uint8) for level in range(10)]
    with tarfile.open(out / "a.tar", "w") as tar:
        for number, image in enumerate(images):
            data = io.BytesIO()
            Image.fromarray(image).save(data, "PNG")
            content = b"damaged" if number == 4 else data.getvalue()
            for name, value in (
                (f"clip{number % 2}/{number}.png", content),
                (f"clip{number % 2}/{number}.json", b"{}"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
    whole = (out / "a.tar").read_bytes()
    (out / "b.tar").write_bytes(whole[:9000])
    (out / "c.tar").write_bytes(b"no tar file" * 100)
    with caplog.at_level(logging.WARNING):
        clips = index_clips(out, "files", SIZE, tmp_path / "cache")
    assert clips.lengths[:3].tolist()[0] == 4 and 5 in clips.lengths.tolist() and len(clips) == 4
    assert "frame left out: clip0/4.png" in caplog.text and "c.tar: is no tar file" in caplog.text
    assert "b.tar: is damaged or cut off" in caplog.text
    np.testing.assert_array_equal(clips.read(0, range(4)), np.stack(images)[[0, 2, 6, 8]])
    with tarfile.open(out / "a.tar", "w") as tar:
        pass
    for name in ("b.tar", "c.tar"):
        (out / name).unlink()
    with pytest.raises(InputError, match="no clip in it that can be used"):
        index_clips(out, "files", SIZE, tmp_path / "cache")
