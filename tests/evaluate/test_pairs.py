"""Lists of pairs as FOMM and the released code have them, and all that is wrong with one in one answer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cbtalk.errors import ConfigError, InputError
from cbtalk.evaluate import Extractors, markdown, protocol
from cbtalk.evaluate.pairs import read_pairs
from cbtalk.media.clips import find_clips
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import SourceState, Talker
from tests.evaluate.conftest import MakeClip
from tests.helpers.videos import numbered, write_clip


def listed(folder: Path, text: str) -> Path:
    path = folder / "pairs.csv"
    path.write_text(text)
    return path


@pytest.fixture
def vox(tmp_path: Path) -> Path:
    """The layouts of VoxCeleb1's test: folders of frames as FOMM's preparation writes them, and videos by utterance."""
    root = tmp_path / "vox" / "test"
    for name in ("id10280#a#001#002.mp4", "id10281#b#001#002.mp4"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (64, 64), (50 + number,) * 3).save(root / name / f"{number:07}.png")
    for person, utterance in (("id10270", "00001"), ("id10271", "00001"), ("id10271", "00002")):
        (root / person / "video").mkdir(parents=True, exist_ok=True)
        write_clip(root / person / "video" / f"{utterance}.mp4", [numbered(n) for n in range(4)])
    return root


def read(root: Path, text: str) -> list[tuple[str, str, int]]:
    pairs = read_pairs(listed(root.parent, text), root, find_clips(root))
    return [(pair.source.name, pair.clip.name, pair.anchor) for pair in pairs]


def test_the_list_of_fomm(vox: Path) -> None:
    text = "distance,source,driving,frame\n3.5,id10280#a#001#002.mp4,id10281#b#001#002.mp4,0\n"
    text += "2.1,id10281#b#001#002.mp4,id10280#a#001#002.mp4,0.0\n"
    one, other = "id10280#a#001#002.mp4", "id10281#b#001#002.mp4"
    assert read(vox, text) == [(one, other, 0), (other, one, 0)]


def test_the_list_of_the_released_code(vox: Path) -> None:
    """Frames by their paths, which begin somewhere else; anchor_idx counts from the second frame on."""
    one, other = "id10280#a#001#002.mp4", "id10281#b#001#002.mp4"
    text = f"source,driving,anchor,anchor_idx\ndatasets/vox/test/{one}/0000002.png,/mnt/vox/test/{other},"
    text += f"/mnt/vox/test/{other}/0000002.png,1\n"
    pairs = read_pairs(listed(vox.parent, text), vox, find_clips(vox))
    assert [(pair.source.number, pair.clip.name, pair.anchor) for pair in pairs] == [(2, other, 2)]
    assert pairs[0].source.read(64).mean() == 52
    assert pairs[0].title == f"{one}/0000002.png by {other} @2"


def test_an_anchor_alone_and_frames_of_videos(vox: Path) -> None:
    text = "source,driving,anchor\nid10270/video/00001.mp4/0000003.png,id10271/video/00002.mp4,"
    text += "id10271/video/00002.mp4/0000002.png\n00002.mp4,id10280#a#001#002.mp4,\n"
    pairs = read_pairs(listed(vox.parent, text), vox, find_clips(vox))
    assert (pairs[0].source.number, pairs[0].anchor) == (3, 2)
    assert np.median(pairs[0].source.read(48)) == pytest.approx(12, abs=3)  # the fourth frame
    assert pairs[1].source.name == "id10271/video/00002.mp4" and pairs[1].anchor == 0


def test_clips_of_celebv_hq_and_a_portrait(tmp_path: Path) -> None:
    for name in ("--abc_0.mp4", "--abc_1.mp4"):
        write_clip(tmp_path / name, [numbered(n) for n in range(3)])
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "portrait.png")
    assert read(tmp_path, "source,driving\n--abc_0.mp4,--abc_1.mp4\nportrait.png,--abc_1.mp4\n") == [
        ("--abc_0.mp4", "--abc_1.mp4", 0),
        ("portrait.png", "--abc_1.mp4", 0),
    ]


FAULTS = """source,driving,anchor,anchor_idx,frame
id10280#a#001#002.mp4,id10281#b#001#002.mp4,,,0
nobody.mp4,id10281#b#001#002.mp4,,,
id10280#a#001#002.mp4,nobody.mp4,,,
id10280#a#001#002.mp4,00001.mp4,,,
id10280#a#001#002.mp4,id10281#b#001#002.mp4,,-1,
id10280#a#001#002.mp4,id10281#b#001#002.mp4,,2.5,
id10280#a#001#002.mp4,id10281#b#001#002.mp4,id10280#a#001#002.mp4/0000001.png,,
id10280#a#001#002.mp4/9.png,id10281#b#001#002.mp4,,,
id10280#a#001#002.mp4,id10281#b#001#002.mp4,,,3
id10280#a#001#002.mp4,id10281#b#001#002.mp4,,,
,id10281#b#001#002.mp4,,,
a,b,c,d,e,f
"""


def test_every_fault_is_told_with_its_line(vox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"pairs\.csv: 11 faults; nothing was begun"):
        read(vox, FAULTS)
    told = capsys.readouterr().err.splitlines()
    wanted = {
        3: "source nobody.mp4: no such clip, frame or image",
        4: "driving nobody.mp4: no such clip",
        5: "id10270/video/00001.mp4 and id10271/video/00001.mp4 end so",
        6: "anchor_idx -1: must be a whole number",
        7: "anchor_idx 2.5: must be a whole number",
        8: "is no frame of id10281",
        9: "9.png: no such frame",
        10: "frame 3: must be 0",
        11: "the same pair as in line 2",
        12: "no source",
        13: "6 cells in 5 columns",
    }
    for (line, text), said in zip(wanted.items(), told, strict=True):
        assert f"pairs.csv:{line}: " in said and text in said


@pytest.mark.parametrize(
    ("text", "why"),
    [("a,b\n1,2\n", "name the columns, source and driving"), ("source,driving\n", "holds no pair"), ("", "is empty")],
)
def test_no_list(vox: Path, text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read(vox, text)


def test_a_list_is_evaluated_pair_by_pair(
    tmp_path: Path, make_clip: MakeClip, weights: str, extractors: Extractors
) -> None:
    make_clip("one", [50, 60, 70, 100])
    data = make_clip("two", [150, 180, 210])
    pairs = listed(tmp_path, "source,driving,anchor_idx\none,two,1\ntwo,one,\ntwo/1.png,one,\none,two,7\n")
    report = protocol.evaluate_weights(
        weights, data, tmp_path / "f.json", pairs=pairs, extractors=extractors, sheet=tmp_path / "s.png"
    )
    assert report["clips"] == {} and report["mean"] == {}
    assert {source: list(found) for source, found in report["cross"].items()} == {
        "one": ["two @2"],
        "two": ["one"],
        "two/1.png": ["one"],
    }
    assert list(report["failed"]) == ["one by two @8"] and "number 8" in report["failed"]["one by two @8"]
    pair = report["cross"]["two/1.png"]["one"]
    assert pair["measured"] == 3
    assert pair["real"]["identity_distance_brightness"] == pytest.approx(np.mean([120, 110, 80]))
    assert {"pose_brightness", "expression_brightness", "aed_brightness"} <= set(pair["result"])
    table = (tmp_path / "f.md").read_text()
    assert (
        f"the pairs of `{pairs}`, relative motion" in table and "| two/1.png | " in table and table == markdown(report)
    )
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.height % 3 == 0


def test_the_anchor_is_the_frame_whose_pose_is_the_sources(
    tmp_path: Path, make_clip: MakeClip, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the anchor the source stands as it is; before and behind it, it moves as the clip does."""
    make_clip("source", [90, 90])
    data = make_clip("driving", [10, 40, 70, 100])

    def keypoints(self: Talker, image: Tensor) -> Keypoints:
        value = image.mean(dim=(1, 2, 3))[:, None, None].expand(-1, self.config.keypoints, 2).contiguous()
        return Keypoints(value, torch.eye(2).expand(*value.shape[:2], 2, 2))

    moved: list[float] = []

    def animate_keypoints(self: Talker, state: SourceState, keypoints: Keypoints) -> Tensor:
        moved.extend((keypoints.value - state.keypoints.value)[:, 0, 0].tolist())
        return state.small.expand(len(keypoints.value), -1, -1, -1)

    def encode_source(self: Talker, source: Tensor) -> SourceState:
        return SourceState(keypoints(self, source), (), source)

    for method in (keypoints, animate_keypoints, encode_source):
        monkeypatch.setattr(Talker, method.__name__, method)
    protocol.evaluate_weights(weights, data, pairs=listed(tmp_path, "source,driving,anchor_idx\nsource,driving,1\n"))
    assert moved == pytest.approx([(level - 70) / 127.5 for level in (40, 70, 100)], abs=1e-5)


def test_a_list_and_portraits_do_not_go_together(tmp_path: Path, make_clip: MakeClip, weights: str) -> None:
    pairs = listed(tmp_path, "source,driving\none,one\n")
    with pytest.raises(ConfigError, match="--portraits"):
        protocol.evaluate_weights(weights, make_clip("one", [1, 2]), pairs=pairs, portraits=[tmp_path])
