import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cbtalk.errors import ConfigError, InputError, OutputError
from cbtalk.evaluate import Extractors, markdown, protocol
from cbtalk.evaluate.extractors import find_extractors
from cbtalk.evaluate.jobs import find_portraits
from cbtalk.evaluate.report import KINDS
from cbtalk.media.video_reader import Frame, open_video
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import SourceState, Talker
from tests.evaluate.conftest import MakeClip
from tests.helpers.videos import write_clip


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two folders of 64 px frames: five frames that stay the same, and three that change."""
    rng = np.random.default_rng(0)
    for name, count, changes in (("still", 5, 0), ("moving", 3, 40)):
        folder = tmp_path / "clips" / name
        folder.mkdir(parents=True)
        image = rng.integers(40, 120, (64, 64, 3), dtype=np.uint8)
        for index in range(count):
            Image.fromarray(image + np.uint8(changes * (index > 0))).save(folder / f"{index}.png")
    return tmp_path / "clips"


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    path = tmp_path / "portrait.png"
    Image.new("RGB", (80, 70), (200, 200, 200)).save(path)
    return path


@pytest.fixture
def keeps_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A talker whose results are the source, whatever drives it."""

    def encode_source(self: Talker, source: Tensor) -> SourceState:
        count = self.config.keypoints
        return SourceState(Keypoints(torch.zeros(1, count, 2), torch.eye(2).expand(1, count, 2, 2)), (), source)

    def animate_keypoints(self: Talker, state: SourceState, keypoints: Keypoints) -> Tensor:
        return state.small.expand(len(keypoints.value), -1, -1, -1)

    monkeypatch.setattr(Talker, "encode_source", encode_source)
    monkeypatch.setattr(Talker, "animate_keypoints", animate_keypoints)


def test_report(tmp_path: Path, clips: Path, weights: str) -> None:
    report = protocol.evaluate_weights(weights, clips, tmp_path / "figures.json", batch_size=2)
    moving = report["clips"]["moving"]
    assert moving["frames"] == 2 and report["clips"]["still"]["frames"] == 4
    assert moving["repeat"]["l1"] == pytest.approx(40 / 255, abs=1e-6)
    assert report["clips"]["still"]["repeat"]["l1"] == 0
    assert report["mean"]["repeat"]["l1"] == pytest.approx(20 / 255, abs=1e-6)  # over clips, not over frames
    assert json.loads((tmp_path / "figures.json").read_text())["mean"]["result"] == report["mean"]["result"]
    table = (tmp_path / "figures.md").read_text()
    assert f"| moving | {moving['result']['l1']:.4f} (0.1569) |" in table and "| mean |" in table
    assert table.count("no folder of models given (--models)") == 1 and "absent" not in table


def test_a_network_that_is_missing_in_the_folder_is_named_with_its_file(
    tmp_path: Path, clips: Path, weights: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "models").mkdir()
    protocol.evaluate_weights(weights, clips, tmp_path / "figures.json", models=tmp_path / "models")
    table = (tmp_path / "figures.md").read_text()
    assert "- `dlib_68` is absent: no shape_predictor_68" in table and "- `lpips_alex` is absent: no alexnet" in table
    assert "the report has the reasons): mediapipe_mesh, dlib_5" in caplog.text


def test_every_network_belongs_to_a_kind_of_figures() -> None:
    names = {*find_extractors(None).absent, "lpips_alex", "lpips_vgg", "fid"}
    assert names == {name for kind in KINDS.values() for name in kind}


@pytest.mark.parametrize("every", [1, 2])
def test_batches_do_not_change_the_figures(
    make_clip: MakeClip, weights: str, extractors: Extractors, portrait: Path, every: int
) -> None:
    data = make_clip("clip", [20, 30, 50, 40, 60, 20, 90, 10, 70, 80, 30])
    reports = [
        protocol.evaluate_weights(
            weights, data, extractors=extractors, portraits=[portrait], every=every, batch_size=size
        )
        for size in (1, 4)
    ]
    assert reports[1]["clips"]["clip"]["measured"] == {1: 10, 2: 6}[every]
    assert reports[1]["mean"]["real"] == pytest.approx(reports[0]["mean"]["real"])
    for mean in ("mean", "cross_mean"):
        assert reports[1][mean]["result"] == pytest.approx(reports[0][mean]["result"], rel=1e-3, abs=1e-3)


def test_the_talker_sees_first_frame_and_driving_frames(
    clips: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A talker that returns its driving frames is perfect at its own size, and nearly so at another."""

    monkeypatch.setattr(Talker, "keypoints", lambda self, image: image)
    monkeypatch.setattr(Talker, "animate_keypoints", lambda self, state, keypoints: keypoints)
    assert protocol.evaluate_weights(weights, clips)["mean"]["result"]["l1"] == 0
    with torch.no_grad():
        larger = protocol.evaluate_weights(weights, clips, size=128)["mean"]
    assert 0 < larger["result"]["l1"] < 0.04 < larger["repeat"]["l1"]


def test_faces_of_results_and_of_the_repeated_source(
    make_clip: MakeClip, weights: str, extractors: Extractors, keeps_the_source: None
) -> None:
    """Results equal the source here, so their figures are those of repeating it, and only the real clip shakes."""
    data = make_clip("clip", [50, 60, 70, 100])
    figures = protocol.evaluate_weights(weights, data, extractors=extractors)["clips"]["clip"]
    for subject in ("result", "repeat"):
        assert figures[subject]["landmarks_brightness"] == pytest.approx(np.mean([10, 20, 50]))
        assert figures[subject]["identity_same_brightness"] == pytest.approx(2 / 3)
    assert figures["result"]["jitter_brightness"] == 0
    assert figures["real"]["jitter_brightness"] == pytest.approx(100 - 2 * 70 + 60)


def test_lost_faces_are_counted_and_left_out(
    make_clip: MakeClip, weights: str, extractors: Extractors, keeps_the_source: None
) -> None:
    data = make_clip("clip", [50, 60, 0, 60])
    report = protocol.evaluate_weights(weights, data, extractors=extractors)
    assert report["clips"]["clip"]["no_face"] == {
        "source": {"brightness": 0},
        "result": {"brightness": 0},
        "real": {"brightness": 1},
    }
    assert report["mean"]["result"]["landmarks_brightness"] == pytest.approx(10)
    assert "found no face (the clips): source 0 of 1, result 0 of 3, real 1 of 3" in markdown(report)


def test_no_face_at_all_leaves_a_dash(make_clip: MakeClip, weights: str, extractors: Extractors) -> None:
    make_clip("dark", [0, 0, 0])
    report = protocol.evaluate_weights(weights, make_clip("light", [50, 60, 70]), extractors=extractors)
    assert "landmarks_brightness" not in report["clips"]["dark"]["repeat"]
    rows = markdown(report).split("| dark |")
    assert " - |" in rows[2] and report["mean"]["repeat"]["landmarks_brightness"] == pytest.approx(15)


def test_portraits_are_driven_by_each_clip(
    make_clip: MakeClip, weights: str, extractors: Extractors, portrait: Path, keeps_the_source: None
) -> None:
    make_clip("one", [50, 60, 70, 100])
    data = make_clip("two", [150, 180, 210])
    report = protocol.evaluate_weights(weights, data, extractors=extractors, portraits=[portrait])
    pairs = report["cross"]["portrait.png"]
    assert list(pairs) == ["one", "two"] and pairs["one"]["measured"] == 3
    for pair in pairs.values():
        assert pair["result"]["identity_brightness"] == pytest.approx(1)
        assert pair["result"]["identity_same_brightness"] == 1
    assert pairs["one"]["real"]["identity_distance_brightness"] == pytest.approx(np.mean([140, 130, 100]))
    assert pairs["two"]["real"]["identity_same_brightness"] == 1
    assert report["cross_mean"]["real"]["identity_same_brightness"] == pytest.approx(1 / 2)
    assert "| portrait.png | 1.0000 (" in markdown(report)


def test_relative_motion_starts_from_the_first_frame(
    make_clip: MakeClip, weights: str, extractors: Extractors, portrait: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip that stands still leaves the portrait's keypoints where they are."""
    seen: list[tuple[Keypoints, Keypoints]] = []
    original = Talker.animate_keypoints

    def animate_keypoints(self: Talker, state: SourceState, keypoints: Keypoints) -> Tensor:
        seen.append((state.keypoints, keypoints))
        return original(self, state, keypoints)

    data = make_clip("clip", [90, 90, 90])
    monkeypatch.setattr(Talker, "animate_keypoints", animate_keypoints)
    protocol.evaluate_weights(weights, data, extractors=extractors, portraits=[portrait])
    source, moved = seen[-1]
    assert torch.allclose(moved.value, source.value.expand_as(moved.value), atol=1e-5)


@pytest.fixture
def shows_its_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    """A talker whose keypoints are where an image's brightness puts them, and whose images are as bright again."""

    def keypoints(self: Talker, image: Tensor) -> Keypoints:
        brightness = image.mean(dim=(1, 2, 3))
        value = brightness[:, None, None].expand(-1, self.config.keypoints, 2).contiguous()
        return Keypoints(value, torch.eye(2).expand(*value.shape[:2], 2, 2))

    def animate_keypoints(self: Talker, state: SourceState, keypoints: Keypoints) -> Tensor:
        return keypoints.value[:, 0, 0].view(-1, 1, 1, 1).expand(-1, *state.small.shape[1:])

    def encode_source(self: Talker, source: Tensor) -> SourceState:
        return SourceState(keypoints(self, source), (), source)

    for method in (keypoints, animate_keypoints, encode_source):
        monkeypatch.setattr(Talker, method.__name__, method)


def test_smoothing_lessens_the_jitter_of_the_results_alone(
    make_clip: MakeClip, weights: str, extractors: Extractors, portrait: Path, shows_its_motion: None
) -> None:
    data = make_clip("clip", [100 + i + 8 * (i % 2) for i in range(20)])
    plain, smooth = (
        protocol.evaluate_weights(
            weights, data, extractors=extractors, portraits=[portrait], smooth=seconds, batch_size=3
        )
        for seconds in (0, 0.05)
    )
    for pairs in ("clips", "cross"):
        before, after = (report[pairs] for report in (plain, smooth))
        if pairs == "cross":
            before, after = (report["portrait.png"] for report in (before, after))
        assert before["clip"]["result"]["jitter_brightness"] == pytest.approx(16)
        assert after["clip"]["result"]["jitter_brightness"] < 3
        assert after["clip"]["real"] == before["clip"]["real"]
    assert smooth["clips"]["clip"]["result"]["landmarks_brightness"] < 4.5  # a level a frame is followed
    assert "time constant of 0.05 s" in markdown(smooth) and "time constant" not in markdown(plain)


def test_jitter_is_that_of_25_frames_a_second(
    tmp_path: Path, weights: str, extractors: Extractors, shows_its_motion: None
) -> None:
    """The same acceleration, seen at two rates."""
    (tmp_path / "videos").mkdir()
    for rate in (25, 50):
        images = [np.full((64, 64, 3), round(60 + 400 * (i / rate) ** 2), np.uint8) for i in range(rate // 2)]
        write_clip(tmp_path / "videos" / f"{rate}.mp4", images, rate=rate, options={"crf": "1"})
    clips = protocol.evaluate_weights(weights, tmp_path / "videos", extractors=extractors)["clips"]
    for subject in ("real", "result"):
        assert clips["25.mp4"][subject]["jitter_brightness"] == pytest.approx(2 * 400 / 25**2, rel=0.25)
        fast = clips["50.mp4"][subject]["jitter_brightness"]
        assert fast == pytest.approx(4 * np.mean(np.abs(np.diff(shown(tmp_path / "videos" / "50.mp4"), n=2))), rel=0.1)


def shown(path: Path) -> list[float]:
    """The brightness of the frames of a video, from the second on."""
    with open_video(path) as reader:
        return [float(frame.image.mean()) for frame in reader if isinstance(frame, Frame)][1:]


def test_every_takes_runs_of_three_frames(make_clip: MakeClip, weights: str, extractors: Extractors) -> None:
    data = make_clip("clip", [50] + [10, 20, 40] + [90, 0, 90] * 2 + [10, 20, 40] + [9])
    figures = protocol.evaluate_weights(weights, data, extractors=extractors, every=3)["clips"]["clip"]
    assert (figures["frames"], figures["measured"]) == (13, 6)
    assert figures["real"]["jitter_brightness"] == pytest.approx(10)  # the frames between are not seen
    assert sum(figures["no_face"]["real"].values()) == 0


def test_sheet_and_videos(
    tmp_path: Path, make_clip: MakeClip, weights: str, extractors: Extractors, portrait: Path
) -> None:
    make_clip("group/one", [50, 60, 70, 100])
    data = make_clip("two", [90, 80])
    protocol.evaluate_weights(
        weights,
        data,
        tmp_path / "f.json",
        extractors=extractors,
        portraits=[portrait],
        sheet=tmp_path / "sheet.png",
        videos=tmp_path / "videos",
        every=2,
    )
    names = ["group_one.mp4", "portrait.png by group_one.mp4", "two.mp4"]  # a portrait is shown with one clip
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == names
    for name, frames in zip(names, (3, 3, 1), strict=True):
        with open_video(tmp_path / "videos" / name) as reader:
            assert (reader.info.width, reader.info.height) == (3 * 64, 64)
            assert sum(1 for _ in reader) == frames
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.height % 3 == 0  # bands


def test_nothing_is_written_when_every_clip_fails(tmp_path: Path, make_clip: MakeClip, weights: str) -> None:
    data = make_clip("short", [50])
    (data / "a.mp4").write_bytes(b"no video")
    outputs = {"sheet": tmp_path / "sheet.png", "videos": tmp_path / "videos"}
    with pytest.raises(InputError, match=r"none of 2 could be evaluated; a\.mp4: .*a\.mp4"):
        protocol.evaluate_weights(weights, data, tmp_path / "figures.json", **outputs)  # type: ignore[arg-type]
    assert list((tmp_path / "videos").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"clips", "videos"}


@pytest.mark.parametrize("name", ["figures.md", "absent/figures.json"])
def test_an_output_that_cannot_be_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=name):
        protocol.evaluate_weights("absent weights", tmp_path, tmp_path / name)


def test_images_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="sheet"):
        protocol.evaluate_weights("absent weights", tmp_path, sheet=tmp_path / "sheet.jpg")
    with pytest.raises(ConfigError, match="--sheet"):
        protocol.evaluate_weights("absent weights", tmp_path, beside=tmp_path / "old.png")
    with pytest.raises(InputError, match=r"old\.png"):
        protocol.evaluate_weights("absent weights", tmp_path, sheet=tmp_path / "s.png", beside=tmp_path / "old.png")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        protocol.evaluate_weights("absent weights", tmp_path, videos=tmp_path / "file")


def test_a_clip_of_one_frame(tmp_path: Path, weights: str) -> None:
    (tmp_path / "one" / "clip").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "one" / "clip" / "0.png")
    with pytest.raises(InputError, match="one frame only"):
        protocol.evaluate_weights(weights, tmp_path / "one")


@pytest.mark.parametrize("options", [{"size": 31}, {"every": 0}, {"batch_size": 0}, {"smooth": -1}, {"smooth": 1.1}])
def test_options_out_of_range(make_clip: MakeClip, weights: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="or more"):
        protocol.evaluate_weights(weights, make_clip("clip", [1, 2]), **options)  # type: ignore[arg-type]


def test_portraits_are_files_and_folders(tmp_path: Path, portrait: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InputError, match="no image in it"):
        find_portraits([folder])
    Image.new("RGB", (100, 64)).save(folder / "other.jpg")
    (folder / "notes.txt").touch()
    found = find_portraits([folder, portrait])
    assert [source.name for source in found] == ["other.jpg", "portrait.png"] and found[1].read(64).shape == (64, 64, 3)
    with pytest.raises(InputError, match=r"portrait\.png"):
        find_portraits([portrait, portrait])
