"""Bad clips cost themselves alone; what is done stays done, whoever does it and whatever stops it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cbtalk.cli.main import main
from cbtalk.errors import ConfigError
from cbtalk.evaluate import Extractors, protocol
from cbtalk.evaluate.jobs import file_names
from tests.evaluate.conftest import Angles, Brightness, MakeClip
from tests.helpers.commands import ENVIRONMENT, start_interruptible, wait_until
from tests.helpers.videos import numbered, write_clip

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(make_clip: MakeClip) -> Path:
    for number in range(3):
        make_clip(f"clip{number}", [50 + number, 60, 70 + number, 80])
    return make_clip("clip3", [90, 80, 70])


class Trouble:
    """Does something when it sees an image of a brightness; finds no face."""

    name = "trouble"
    same_person = 0.0

    def __init__(self, level: int, number: int, times: int = 1) -> None:
        self._level, self._number, self._times = level, number, times

    def identity(self, frame: NDArray[np.uint8]) -> None:
        if round(frame.mean()) == self._level:
            for _ in range(self._times):
                os.kill(os.getpid(), self._number)
                time.sleep(0.3)  # two at once count as one


def without(report: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in names}


def test_bad_clips_are_named_and_the_others_measured(
    tmp_path: Path,
    data: Path,
    weights: str,
    make_clip: MakeClip,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_clip("one_frame", [50])
    write_clip(data / "truncated.mp4", [numbered(n) for n in range(30)])
    whole = (data / "truncated.mp4").read_bytes()
    (data / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (data / "clip1" / "2.png").write_bytes(b"no image")
    words = ["evaluate", "--data", str(data), "--weights", weights, "-o", str(tmp_path / "f.json")]
    assert main(words) == 1
    report = json.loads((tmp_path / "f.json").read_text())
    assert list(report["failed"]) == ["one_frame", "truncated.mp4"]
    assert list(report["clips"]) == [f"clip{number}" for number in range(4)]
    assert report["mean"]["repeat"]["l1"] == pytest.approx(
        np.mean([clip["repeat"]["l1"] for clip in report["clips"].values()])
    )
    assert "2.png" in report["warnings"]["clip1"][0]
    out, err = capsys.readouterr()
    assert "- failed: one_frame: " in out and "- clip1: frame left out" in out
    assert "error: truncated.mp4: " in err and "2.png" in caplog.text
    kept = len(list((tmp_path / "f.parts").glob("*.json")))
    assert kept == 6  # the good ones need not be done again
    (data / "one_frame" / "1.png").write_bytes((data / "one_frame" / "0.png").read_bytes())
    (data / "truncated.mp4").write_bytes(whole)
    assert main(words) == 0
    assert list(json.loads((tmp_path / "f.json").read_text())["clips"])[4:] == ["one_frame", "truncated.mp4"]
    assert not (tmp_path / "f.parts").exists()


def test_a_fault_of_cbtalk_costs_one_clip(data: Path, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(Brightness):
        def identity(self, frame: NDArray[np.uint8]) -> NDArray[np.float64] | None:
            assert round(frame.mean()) != 52, "oh"
            return super().identity(frame)

    report = protocol.evaluate_weights(weights, data, extractors=Extractors(identity=[Broken()]))
    assert list(report["failed"]) == ["clip2"]
    assert report["failed"]["clip2"].startswith("internal: AssertionError: oh")
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as a terminal's Python has it, also where the shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_keeps_what_was_done(tmp_path: Path, data: Path, weights: str) -> None:
    """SIGINT in the second clip: it is finished, the figures of two are written, and the rest is done the next time."""
    output, whole = (
        tmp_path / "f.json",
        protocol.evaluate_weights(weights, data, extractors=Extractors(identity=[Trouble(-1, 0)])),
    )
    stopped = protocol.evaluate_weights(
        weights, data, output, extractors=Extractors(identity=[Trouble(51, signal.SIGINT)]), sheet=tmp_path / "s.png"
    )
    assert stopped["interrupted"] == signal.SIGINT and stopped["missing"] == ["clip2", "clip3"]
    assert list(stopped["clips"]) == ["clip0", "clip1"]
    assert json.loads(output.read_text())["missing"] == ["clip2", "clip3"]
    assert "- not done: clip2, clip3" in output.with_suffix(".md").read_text()
    done = [file.stat().st_mtime_ns for file in sorted((tmp_path / "f.parts").glob("*.json"))]
    # The first two are kept: an extractor that would kill the process there is not asked again.
    more = protocol.evaluate_weights(
        weights, data, output, extractors=Extractors(identity=[Trouble(51, signal.SIGKILL)]), sheet=tmp_path / "s.png"
    )
    assert len(done) == 2 and without(more, "weights") == without(whole, "weights")
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.height % 4 == 0
    assert not (tmp_path / "f.parts").exists()


def test_the_command_exits_130(
    tmp_path: Path,
    data: Path,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    interruptible: None,
) -> None:
    trouble = Extractors(identity=[Trouble(51, signal.SIGINT)])
    monkeypatch.setattr("cbtalk.evaluate.judge.find_extractors", lambda models, device: trouble)
    words = ["evaluate", "--data", str(data), "--weights", weights, "-o", str(tmp_path / "f.json")]
    assert main(words) == 130
    out, err = capsys.readouterr()
    assert "| clip1 |" in out and "| clip2 |" not in out
    assert err.endswith("error: interrupted by SIGINT, 2 not done; the same command goes on with the rest\n")
    assert main(words) == 0 and not (tmp_path / "f.parts").exists()


def test_a_second_interruption_ends_at_once(
    tmp_path: Path, data: Path, weights: str, monkeypatch: pytest.MonkeyPatch, interruptible: None
) -> None:
    trouble = Extractors(identity=[Trouble(51, signal.SIGINT, times=2)])
    monkeypatch.setattr("cbtalk.evaluate.judge.find_extractors", lambda models, device: trouble)
    assert main(["evaluate", "--data", str(data), "--weights", weights, "-o", str(tmp_path / "f.json")]) == 130
    assert [file.suffix for file in (tmp_path / "f.parts").iterdir()] == [".json"]  # of the first clip, and no other
    assert not (tmp_path / "f.json").exists()


@pytest.mark.slow
def test_ctrl_c_with_workers(tmp_path: Path, make_clip: MakeClip, weights: str) -> None:
    for number in range(12):
        data = make_clip(f"clip{number:02}", [50 + number, *[60 + number] * 9])
    words = ["evaluate", "--data", str(data), "--weights", weights, "-o", str(tmp_path / "f.json"), "--workers", "2"]
    with start_interruptible(*words) as process:
        wait_until(lambda: list((tmp_path / "f.parts").glob("*.json")), process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all
        out, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "| mean |" in out
    report = json.loads((tmp_path / "f.json").read_text())
    done = len(report["clips"])
    assert 0 < done < 12 and len(report["missing"]) == 12 - done and report["failed"] == {}
    assert f"{12 - done} not done; the same command goes on" in told
    assert main(words) == 0
    assert len(json.loads((tmp_path / "f.json").read_text())["clips"]) == 12


def test_what_changes_the_figures_is_done_anew(tmp_path: Path, data: Path, weights: str) -> None:
    output = tmp_path / "f.json"
    (data / "bad.mp4").write_bytes(b"no video")  # so that the parts are kept
    protocol.evaluate_weights(weights, data, output)
    parts = {file.name for file in (tmp_path / "f.parts").glob("*.json")}
    protocol.evaluate_weights(weights, data, output)
    assert {file.name for file in (tmp_path / "f.parts").glob("*.json")} == parts
    Image.new("RGB", (64, 64), (1, 2, 3)).save(data / "clip0" / "9.png")
    protocol.evaluate_weights(weights, data, output)
    assert len({file.name for file in (tmp_path / "f.parts").glob("*.json")} - parts) == 1
    protocol.evaluate_weights(weights, data, output, batch_size=2)
    assert len({file.name for file in (tmp_path / "f.parts").glob("*.json")} - parts) == 6


def test_workers_give_the_same_report(tmp_path: Path, data: Path, weights: str, extractors: Extractors) -> None:
    (data / "bad.mp4").write_bytes(b"no video")
    portrait = tmp_path / "portrait.png"
    Image.new("RGB", (64, 64), (90, 90, 90)).save(portrait)
    reports = [
        protocol.evaluate_weights(
            weights,
            data,
            tmp_path / f"{workers}.json",
            extractors=extractors,
            portraits=[portrait],
            videos=tmp_path / f"videos{workers}",
            workers=workers,
        )
        for workers in (1, 2)
    ]
    assert reports[0] == reports[1] and len(reports[0]["failed"]) == 2
    assert {path.name for path in (tmp_path / "videos2").iterdir()} == {
        path.name for path in (tmp_path / "videos1").iterdir()
    }


def test_a_worker_that_dies_costs_one_clip(tmp_path: Path, data: Path, weights: str) -> None:
    killed = Extractors(identity=[Trouble(51, signal.SIGKILL)], pose=[Angles()])
    report = protocol.evaluate_weights(weights, data, tmp_path / "f.json", extractors=killed, workers=2)
    assert list(report["failed"]) == ["clip1"] and "worker process died (SIGKILL" in report["failed"]["clip1"]
    assert list(report["clips"]) == ["clip0", "clip2", "clip3"]


@pytest.mark.slow
def test_ranks_of_torchrun_share_the_clips(tmp_path: Path, data: Path, weights: str) -> None:
    (data / "bad.mp4").write_bytes(b"no video")
    words = ["evaluate", "--data", str(data), "--weights", weights, "--threads", "1", "-o"]
    assert main([*words, str(tmp_path / "one.json")]) == 1
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cbtalk"]
    ended = subprocess.run(
        [sys.executable, *launch, *words, str(tmp_path / "two.json")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.count("| mean |") == 1
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one == two and list(two["failed"]) == ["bad.mp4"]


def test_ranks_need_an_output(data: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *_, **__: None)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    with pytest.raises(ConfigError, match="--output"):
        protocol.evaluate_weights(weights, data)


def test_no_two_names_share_an_output(
    tmp_path: Path, make_clip: MakeClip, weights: str, extractors: Extractors
) -> None:
    make_clip("a/b", [50, 60])
    make_clip("a_b", [70, 80])
    (tmp_path / "videos").mkdir()
    for name in ("c_b.mp4", "another.mp4"):  # as killed processes leave them
        (tmp_path / "videos" / f".{name}.0123abcd.cbtalk-part").touch()
    protocol.evaluate_weights(weights, make_clip("c/b", [70, 80]), videos=tmp_path / "videos", extractors=extractors)
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 3
    assert [path.name for path in (tmp_path / "videos").glob(".*")] == [".another.mp4.0123abcd.cbtalk-part"]
    titles = ["a/b", "a_b", "A_B", "c/b", "d"]
    names = file_names(titles)
    assert len({name.casefold() for name in names.values()}) == len(titles) and not any(
        "/" in n for n in names.values()
    )
    assert names["c/b"] == "c_b" and names["d"] == "d"
