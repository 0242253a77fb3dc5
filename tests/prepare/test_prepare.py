"""Raw videos become clips of one person each, once, whatever ends the command."""

import contextlib
import csv
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cbtalk.cli import main
from cbtalk.media.clips import clip_frames, find_clips
from cbtalk.prepare import PrepareOptions, prepare
from cbtalk.prepare.report import Row
from cbtalk.prepare.stretch import Reason
from tests.helpers.commands import COMMAND, ENVIRONMENT
from tests.helpers.tiers import slow
from tests.prepare.people import RATE, Person, shot, write_raw

ROOT = Path(__file__).parents[2]
OPTIONS = PrepareOptions(min_seconds=2.0, max_seconds=10.0, min_face=60, min_sharpness=0.0, min_motion=0.5)
LEFT, RIGHT = Person(150, 170, 200), Person(480, 190, 180)


def made(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.stretch.reason is None]


def reasons(rows: Sequence[Row]) -> list[Reason]:
    return [row.stretch.reason for row in rows if row.stretch.reason is not None]


def brightness(path: Path) -> list[float]:
    """Of the wall in the corner of each frame, which tells the shot."""
    (clip,) = [clip for clip in find_clips(path.parent) if clip.path == path]
    return [float(frame[:4, :4, 0].mean()) for frame in clip_frames(clip, 256)]


def test_clips_end_at_cuts_and_have_one_person_each(tmp_path: Path) -> None:
    shots = (shot([LEFT], 3, light=20), shot([LEFT, RIGHT], 3, light=220))
    write_raw(tmp_path / "raw" / "interview.mp4", *shots)
    outcome = prepare(tmp_path / "raw", tmp_path / "out", OPTIONS, progress=False)
    clips = made(outcome.rows)
    assert [(row.stretch.start, row.stretch.end) for row in clips] == [(0, 3), (3, 6), (3, 6)]
    assert reasons(outcome.rows) == [] and outcome.failures == []
    for row in clips:
        assert row.stretch.name is not None and row.stretch.square is not None
        assert len(set(np.round(brightness(tmp_path / "out" / row.stretch.name), -2))) == 1, "frames of one scene only"
        person = LEFT if row.stretch.square.x < 320 else RIGHT
        assert abs(row.stretch.square.x - person.x) < 0.12 * person.side
        assert 0.5 * person.side < row.stretch.square.side < 0.75 * person.side  # the head's image is a wide one
    assert [row.stretch.square.x > 320 for row in clips if row.stretch.square].count(True) == 1


@pytest.mark.parametrize(
    ("person", "seconds", "options", "reason"),
    [
        (LEFT._replace(sways=False), 3, {}, Reason.STILL),
        (None, 3, {}, Reason.NO_FACE),
        *slow(
            (LEFT, 1.5, {}, Reason.SHORT),
            (Person(300, 170, 70), 3, {}, Reason.SMALL),
            (LEFT._replace(blur=4.0), 3, {"min_sharpness": 0.315}, Reason.BLURRED),
            (Person(42, 170, 200), 3, {}, Reason.EDGE),
        ),
    ],
)
def test_what_is_left_out_is_told_with_its_reason(
    tmp_path: Path, person: Person | None, seconds: float, options: dict[str, float], reason: Reason
) -> None:
    write_raw(tmp_path / "raw" / "a.mp4", shot([] if person is None else [person], seconds))
    outcome = prepare(tmp_path / "raw", tmp_path / "out", replace(OPTIONS, **options), progress=False)  # type: ignore[arg-type]
    assert made(outcome.rows) == [] and set(reasons(outcome.rows)) == {reason}
    with (tmp_path / "out" / "report.csv").open(newline="") as file:
        assert {row["reason"] for row in csv.DictReader(file)} == {str(reason)}


def test_a_damaged_video_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw(tmp_path / "raw" / "good.mp4", shot([LEFT], 3))
    (tmp_path / "raw" / "bad.mp4").write_bytes(b"no video at all")
    words = ["--min-face", "60", "--min-sharpness", "0", "--min-motion", "0.5", "--workers", "1"]
    assert main(["prepare", str(tmp_path / "raw"), str(tmp_path / "out"), *words]) == 1
    told = capsys.readouterr()
    assert told.err.count("warning: ") == 1 and "bad.mp4" in told.err and "1 clips" in told.out
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 1


def test_frames_are_a_clip_of_their_own(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw" / "anna" / "one.mp4", shot([LEFT], 3))
    options = replace(OPTIONS, frames=True, identity="folder")
    prepare(tmp_path / "raw", tmp_path / "out", options, progress=False)
    (clip,) = find_clips(tmp_path / "out")
    assert clip.identity == "anna" and len(list(clip_frames(clip, 256))) == 3 * RATE


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}


@pytest.mark.slow
def test_what_is_finished_stays_until_video_or_options_change(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    for name in ("a", "b"):
        write_raw(raw / f"{name}.mp4", shot([LEFT], 3))
    prepare(raw, out, OPTIONS, progress=False)
    first = stamps(out)
    assert len(first) == 2
    assert made(prepare(raw, out, OPTIONS, progress=False).rows) and stamps(out) == first
    write_raw(raw / "b.mp4", shot([RIGHT], 3))
    prepare(raw, out, OPTIONS, progress=False)
    changed = stamps(out)
    assert sorted(name for name in first if changed[name] != first[name]) == [sorted(first)[1]]
    prepare(raw, out, replace(OPTIONS, max_seconds=8.0), progress=False)
    assert all(stamps(out)[name] != changed[name] for name in changed)
    next(iter(out.glob("*.mp4"))).unlink()
    prepare(raw, out, replace(OPTIONS, max_seconds=8.0), progress=False)
    assert len(stamps(out)) == 2


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    for name in "abcd":
        write_raw(raw / f"{name}.mp4", shot([LEFT], 3), shot([RIGHT], 3, light=200))
    words = ["--min-face", "60", "--min-sharpness", "0", "--min-motion", "0.5", "--workers", "2", "--quiet"]
    command = [*COMMAND, "prepare", str(raw), str(out), *words]
    with subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True) as process:
        until = time.monotonic() + 120
        while process.poll() is None and len(stamps(out) if out.exists() else {}) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    before = stamps(out)
    subprocess.run(command, env=ENVIRONMENT, check=True)
    after = stamps(out)
    assert len(after) == 8 and sum(after[name] != when for name, when in before.items()) <= 2
    assert not list(out.glob(".*-part"))
    assert all(len(brightness(out / name)) == 3 * RATE for name in after)


def test_an_output_above_the_raw_videos_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw(tmp_path / "raw" / "a.mp4", shot([], 1))
    assert main(["prepare", str(tmp_path / "raw"), str(tmp_path)]) == 2
    assert "holds the raw videos" in capsys.readouterr().err
