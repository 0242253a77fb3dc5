"""The command line as a user meets it: what goes wrong is one line, the right exit code, and nothing left behind."""

import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import cbtalk
from cbtalk.cli import main
from cbtalk.cli.main import COMMANDS as CLI_COMMANDS
from cbtalk.errors import SystemFailure
from cbtalk.media.video_writer import VideoWriter
from cbtalk.model.checkpoint import BUNDLED, read_notes, save_weights
from cbtalk.model.talker import Talker
from tests.helpers.commands import COMMAND, ENVIRONMENT
from tests.helpers.talkers import TINY
from tests.helpers.videos import numbered, write_clip, write_sound_only

FRAMES = 6
MOTION = ["motion", "-d", "driving.mp4", "--driving-crop", "centre", "--weights", "tiny.safetensors"]


@pytest.fixture(scope="session")
def driving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("driving") / "driving.mp4"
    return write_clip(path, [numbered(number) for number in range(FRAMES)], sound="aac")


@pytest.fixture
def folder(tmp_path: Path, weights: Path, driving: Path) -> Iterator[Path]:
    """A folder with a portrait, a driving video and weights, as the current one."""
    Image.fromarray(np.full((60, 60, 3), 80, np.uint8)).save(tmp_path / "portrait.png")
    shutil.copy(driving, tmp_path / "driving.mp4")
    shutil.copy(weights, tmp_path / "tiny.safetensors")
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def render(**changes: str | None) -> list[str]:
    """Arguments of a render that works, with some changed; None takes one away."""
    options = {"source": "portrait.png", "driving": "driving.mp4", "output": "out.mp4", "weights": "tiny.safetensors"}
    options |= {"crop": "centre", "driving-crop": "centre"}  # the images have no faces
    given = {**options, **changes}
    return ["render", *(part for name, value in given.items() if value is not None for part in (f"--{name}", value))]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_render_says_what_it_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = names(folder)
    assert main(render()) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"out\.mp4: {FRAMES} frames in \d+\.\d s, \d+\.\d a second\n", out)
    assert err == ""  # no progress bar where there is no terminal
    assert names(folder) == before | {"out.mp4"}


def test_motion_then_render(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*MOTION, "-o", "m.safetensors"]) == 0
    by_motion = {"driving": "m.safetensors", "driving-crop": None}
    assert main(render(**by_motion)) == 0
    assert main([*render(**by_motion, output="quiet.mp4"), "--quiet", "--max-frames", "2"]) == 0
    assert re.findall(r"^.*? frames", capsys.readouterr().out, re.MULTILINE) == [
        f"m.safetensors: {FRAMES} frames",
        f"out.mp4: {FRAMES} frames",
    ]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The dtypes of the talkers that a command loads."""
    dtypes = []

    def load(weights: str, *, device: str, dtype: torch.dtype = torch.float32) -> Talker:
        dtypes.append(dtype)
        return cbtalk.load(weights, device=device, dtype=dtype)

    for module in ("render.video", "evaluate.evaluator"):
        monkeypatch.setattr(f"cbtalk.{module}.load", load)
    return dtypes


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_commands_take_a_precision(folder: Path, precision: str, dtype: torch.dtype, loaded: list[torch.dtype]) -> None:
    assert main([*render(), "--precision", precision]) == 0
    (folder / "clips").mkdir()
    (folder / "driving.mp4").rename(folder / "clips" / "driving.mp4")
    words = ["evaluate", "--data", "clips", "--weights", "tiny.safetensors", "-o", "figures.json"]
    assert main([*words, "--precision", precision]) == 0
    assert loaded == [dtype, dtype]
    assert json.loads(Path("figures.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


def test_a_motion_file_is_the_same_in_every_precision(folder: Path) -> None:
    make = [*MOTION, "-o"]
    for precision in ("fp32", "bf16", "fp16"):
        assert main([*make, f"{precision}.safetensors", "--precision", precision]) == 0
    first, *others = (load_file(f"{precision}.safetensors") for precision in ("fp32", "bf16", "fp16"))
    assert all(torch.equal(other[name], first[name]) for other in others for name in first)


def test_motion_tells_about_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make = [*MOTION, "-o", "m.safetensors"]
    assert main([*make, "--quiet", "--start", "0.04"]) == 0
    assert main(["motion", "--info", "m.safetensors"]) == 0
    out = capsys.readouterr().out
    assert f"m.safetensors: {FRAMES - 1} frames, {(FRAMES - 1) / 25:.2f} seconds" in out
    assert "rate: 25 frames" in out and "none of the bundled weights" in out and f"cbtalk {cbtalk.__version__}" in out
    assert main(["motion", "--info", str(BUNDLED / "demo_motion.safetensors")]) == 0
    assert "as in mini weights" in capsys.readouterr().out
    for arguments in (["--info", "driving.mp4"], ["-d", "driving.mp4"]):
        assert main(["motion", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_part_of_the_driving_video_with_other_sound(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--start", "0.08", "--strength", "1.5", "--smooth", "0.025", "--loop", "ping-pong"]
    assert main([*render(), *options, "--audio", "driving.mp4"]) == 0
    assert f"{2 * (FRAMES - 2) - 2} frames" in capsys.readouterr().out
    assert main([*render(), "--audio", "none"]) == 0
    with av.open("out.mp4") as container:
        assert not container.streams.audio


def test_evaluate_prints_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "clips").mkdir()
    (folder / "driving.mp4").rename(folder / "clips" / "driving.mp4")
    assert main(["evaluate", "--data", "clips", "--weights", "tiny.safetensors", "-o", "figures.json"]) == 0
    out, _ = capsys.readouterr()
    assert "| driving.mp4 |" in out and "psnr" in out.lower()
    assert json.loads((folder / "figures.json").read_text())["clips"]["driving.mp4"]["frames"] == FRAMES - 1


def test_evaluate_drives_portraits_and_draws(
    folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "clips").mkdir()
    (folder / "driving.mp4").rename(folder / "clips" / "driving.mp4")
    shutil.copy("portrait.png", "other.png")
    options = ["--portraits", "portrait.png", "other.png", "--sheet", "sheet.png", "--videos", "videos"]
    assert main(["evaluate", "--data", "clips", "--weights", "tiny.safetensors", "--json", "f.json", *options]) == 0
    assert list(json.loads((folder / "f.json").read_text())["cross"]) == ["portrait.png", "other.png"]
    assert names(folder) >= {"sheet.png", "f.md"} and len(names(folder / "videos")) == 3
    out, err = capsys.readouterr()
    line = "left out: LPIPS, FID, landmarks and AKD, CSIM and AED, head pose, expression: no folder of models given"
    assert err == "" and out.count(line) == caplog.text.count(line) == 1 and out.count("--models") == 1


def test_evaluate_takes_a_list_of_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "clips").mkdir()
    (folder / "driving.mp4").rename(folder / "clips" / "driving.mp4")
    shutil.copy("portrait.png", "clips")
    (folder / "pairs.csv").write_text("source,driving\nportrait.png,driving.mp4\n")
    words = ["evaluate", "--data", "clips", "--weights", "tiny.safetensors", "--protocol", "cross"]
    assert main([*words, "--pairs", "pairs.csv"]) == 0
    assert "the pairs of `pairs.csv`" in capsys.readouterr().out
    for wrong in (words, [*words[:-2], "--pairs", "pairs.csv"]):
        assert main(wrong) == 2
        assert "go together" in capsys.readouterr().err


def truncated(path: Path, share: float) -> bytes:
    data = path.read_bytes()
    return data[: int(len(data) * share)]


def cut_after_the_table(path: Path) -> None:
    """An MP4 whose table comes first and whose last images are missing."""
    with VideoWriter(path, width=64, height=48, rate=Fraction(25), time_base=Fraction(1, 25)) as writer:
        for number in range(50):
            writer.write(numbered(number), number)
    path.write_bytes(truncated(path, 0.7))


def hostile_weights(shape: list[int]) -> bytes:
    header = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0\0\0"


def wrong_shape(path: Path) -> None:
    tensors = load_file("tiny.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: torch.zeros(3)}, path, metadata=read_notes("tiny.safetensors"))


def not_finite(path: Path) -> None:
    tensors = load_file("tiny.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, path, metadata=read_notes("tiny.safetensors"))


def foreign_motion(path: Path) -> None:
    torch.manual_seed(1)
    save_weights("other.safetensors", Talker(TINY).eval())
    assert main([*MOTION, "-o", str(path), "--weights", "other.safetensors", "--quiet"]) == 0


def pickle_file(path: Path) -> None:
    torch.save({"params": {"x": torch.zeros(1)}}, path)


def one_pixel(path: Path) -> None:
    Image.new("RGB", (1, 1)).save(path)


def no_frames(path: Path) -> None:
    """A video with a stream and not one frame in it."""
    import av

    with av.open(path, "w") as container:
        container.add_stream("libx264", rate=25, width=64, height=48)
        container.start_encoding()


Prepare = Callable[[Path], object]
BAD: dict[str, tuple[str, str, Prepare | None]] = {
    # option: name of its file, what makes the file (None: nothing does)
    "missing source": ("source", "x.png", None),
    "missing driving": ("driving", "x.mp4", None),
    "missing motion": ("driving", "x.safetensors", None),
    "missing weights": ("weights", "x.safetensors", None),
    "source is a folder": ("source", "x.png", Path.mkdir),
    "driving is a folder": ("driving", "x.mp4", Path.mkdir),
    "motion is a folder": ("driving", "x.safetensors", Path.mkdir),
    "weights are a folder": ("weights", "x.safetensors", Path.mkdir),
    "empty source": ("source", "x.png", Path.touch),
    "empty driving": ("driving", "x.mp4", Path.touch),
    "empty motion": ("driving", "x.safetensors", Path.touch),
    "empty weights": ("weights", "x.safetensors", Path.touch),
    "text for a source": ("source", "x.png", lambda path: path.write_text("a face\n" * 99)),
    "text for a video": ("driving", "x.mp4", lambda path: path.write_text("a video\n" * 99)),
    "text for a motion": ("driving", "x.safetensors", lambda path: path.write_text("motion\n" * 99)),
    "text for weights": ("weights", "x.safetensors", lambda path: path.write_text("weights\n" * 99)),
    "truncated source": ("source", "x.png", lambda path: path.write_bytes(truncated(Path("portrait.png"), 0.6))),
    "truncated video": ("driving", "x.mp4", lambda path: path.write_bytes(truncated(Path("driving.mp4"), 0.5))),
    "truncated weights": (
        "weights",
        "x.safetensors",
        lambda path: path.write_bytes(truncated(Path("tiny.safetensors"), 0.5)),
    ),
    "sound without video": ("driving", "x.mp4", write_sound_only),
    "video without frames": ("driving", "x.mp4", no_frames),
    "image for a video": ("driving", "x.png", lambda path: shutil.copy("portrait.png", path)),
    "image called .mp4": ("driving", "x.mp4", lambda path: shutil.copy("portrait.png", path)),
    "image of one pixel": ("source", "x.png", one_pixel),
    "video for a source": ("source", "x.png", lambda path: shutil.copy("driving.mp4", path)),
    "unknown preset": ("weights", "maxi", None),
    "preset without weights": ("weights", "paper", None),
    "weights of a wrong shape": ("weights", "x.safetensors", wrong_shape),
    "weights with NaN": ("weights", "x.safetensors", not_finite),
    "weights that are a pickle": ("weights", "x.safetensors", pickle_file),
    "weights that claim terabytes": ("weights", "x.safetensors", lambda p: p.write_bytes(hostile_weights([2**40]))),
    "weights without a model": ("weights", "x.safetensors", lambda p: p.write_bytes(hostile_weights([1]))),
    "motion of another model": ("driving", "x.safetensors", foreign_motion),
    "weights for a motion": ("driving", "tiny.safetensors", None),
    "motion of no motion": ("driving", "x.safetensors", lambda path: path.write_bytes(hostile_weights([1]))),
    "output in no folder": ("output", "nowhere/out.mp4", None),
    "output is a folder": ("output", "x.mp4", Path.mkdir),
    "output is the driving video": ("output", "driving.mp4", None),
    "output links to the driving video": ("output", "x.mp4", lambda path: path.symlink_to("driving.mp4")),
    "output is a hard link to it": ("output", "x.mp4", lambda path: path.hardlink_to("driving.mp4")),
    "output of no known kind": ("output", "out.txt", None),
    "output that cannot be written": ("output", "/proc/out.mp4", None),
    "crop of nonsense": ("crop", "a,b", None),
    "crop of nothing": ("crop", "900,900,10", None),
    "driving crop of nothing": ("driving-crop", "900,900,10", None),
    "no frames wanted": ("max-frames", "0", None),
    "no batch": ("batch-size", "0", None),
    "too strong": ("strength", "3", None),
    "too smooth": ("smooth", "5", None),
    "a start beyond the end": ("start", "100", None),
    "no duration": ("duration", "0", None),
    "sound that is not there": ("audio", "absent.mp3", None),
    "sound of an image": ("audio", "portrait.png", None),
    "no threads": ("threads", "0", None),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(folder: Path, capfd: pytest.CaptureFixture[str], case: str) -> None:
    option, name, prepare = BAD[case]
    if prepare is not None:
        prepare(Path(name))
    before = {path.name: path.stat().st_size for path in folder.iterdir()}
    capfd.readouterr()
    code = main(render(**{option: name}))
    out, err = capfd.readouterr()  # what the libraries print themselves counts too
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert name in err or option in err.replace(" ", "-"), "the line does not say what is wrong"
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == before


def test_what_is_left_of_a_video_is_rendered_with_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_after_the_table(Path("x.mp4"))
    assert main(render(driving="x.mp4")) == 0
    assert "warning: x.mp4: is cut off" in capsys.readouterr().err


def test_bad_usage_exits_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        [],
        ["render"],
        ["dance"],
        [*render(), "--precision", "fp8"],
        [*render(), "--motion", "sideways"],
        [*render(), "--no-such"],
    ):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1


def test_a_gpu_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert main([*render(), "--device", "cuda"]) == 2
    assert "GPU" in capsys.readouterr().err


def test_debug_shows_the_traceback(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", *render(driving="x.mp4")]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err and "InputError" in err and err.splitlines()[-1].startswith("error: x.mp4")


@pytest.mark.parametrize(
    ("failure", "line", "code"),
    [
        (ValueError("two\nlines"), "error: internal: ValueError: two lines (--debug shows where)\n", 1),
        (SystemFailure("o.mp4: the disk is full"), "error: o.mp4: the disk is full\n", 1),
        (OSError(errno.ENOSPC, "No space left on device"), "error: no space left on the disk\n", 1),
        (MemoryError(), "error: out of memory; a smaller --batch-size needs less\n", 1),
    ],
)
def test_what_is_not_the_users_fault_exits_1(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: Exception,
    line: str,
    code: int,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("cbtalk.render.video.Engine", fail)
    before = names(folder)
    assert main(render()) == code
    assert capsys.readouterr().err == line
    assert names(folder) == before


@pytest.mark.parametrize(("command", "policy"), [("render", "PASSIVE"), ("train", None)])
def test_waiting_threads_sleep_but_in_training(
    command: str, policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert os.environ.get("OMP_WAIT_POLICY") == policy
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # what the user asks for stays
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cbtalk {cbtalk.__version__}\n"


def test_signal_handlers_are_put_back(folder: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    main(render(driving="x.mp4"))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.fixture
def endless(folder: Path) -> Path:
    """A driving video that takes minutes to render."""
    write_clip(
        folder / "endless.mp4", [numbered(number % 50) for number in range(3000)], options={"preset": "ultrafast"}
    )
    return folder


def started(folder: Path, output: str = "out.mp4") -> "subprocess.Popen[str]":
    arguments = [*render(driving="endless.mp4", output=output), "--batch-size", "1"]
    return subprocess.Popen([*COMMAND, *arguments], cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def wait_for_part(folder: Path, process: "subprocess.Popen[str]") -> None:
    """Until the temporary file of the output is there to stay; one comes and goes when the place is tried."""
    deadline = time.monotonic() + 60
    seen: set[Path] = set()
    while not seen & (seen := set(folder.glob(".out.mp4.*.cbtalk-part"))):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no rendering within a minute"
        time.sleep(0.2)


def wait_for_handlers(process: "subprocess.Popen[str]") -> None:
    """Until the process catches SIGTERM: before, a busy machine is still starting Python."""
    deadline = time.monotonic() + 60
    while not int(re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())[0], 16) >> 14 & 1:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no handler within a minute"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("rendering", [False, True])
def test_interrupted_leaves_nothing(endless: Path, number: signal.Signals, rendering: bool) -> None:
    before = names(endless)
    process = started(endless)
    if rendering:
        wait_for_part(endless, process)
        time.sleep(2 * random.random())
    else:
        wait_for_handlers(process)
        time.sleep(1.5 * random.random())  # while torch is imported and the model loaded
    process.send_signal(number)
    process.send_signal(number)  # as `timeout` and impatient users do
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert err == f"error: interrupted by {number.name}\n"
    assert names(endless) == before


@pytest.mark.parametrize("signals", [1, 2])
def test_an_interruption_that_is_swallowed_comes_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], signals: int
) -> None:
    """As by a library that tries an import and catches all; what winds up on the way out is left alone."""
    wound_up = []

    def doctor() -> None:
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        for _ in range(signals - 1):
            with contextlib.suppress(BaseException):
                signal.raise_signal(signal.SIGINT)
        try:
            time.sleep(30)
        finally:
            deadline = time.monotonic() + 1.5  # longer than the look for a lost one
            while time.monotonic() < deadline:
                time.sleep(0.01)
            wound_up.append(True)

    monkeypatch.setitem(CLI_COMMANDS, "doctor", doctor)
    begin = time.monotonic()
    assert main(["doctor"]) == 130
    assert wound_up and time.monotonic() - begin < 20
    assert capsys.readouterr().err == "error: interrupted by SIGINT\n"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_killed_leaves_nothing_but_what_can_be_recognised(endless: Path) -> None:
    before = names(endless)
    process = started(endless)
    wait_for_part(endless, process)
    process.kill()
    process.communicate(timeout=30)
    left = names(endless) - before
    assert len(left) == 1
    assert left.pop().endswith(".cbtalk-part")


def test_a_full_disk_exits_1(folder: Path) -> None:
    """A limit on the size of files stands in for a full disk: writing fails in the same place."""
    before = names(folder)
    limited = ["prlimit", "--fsize=4096", *COMMAND, *render(source="portrait.png"), "--debug"]
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit is not installed")
    done = subprocess.run(limited, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: out.mp4: cannot be written")
    assert names(folder) == before
