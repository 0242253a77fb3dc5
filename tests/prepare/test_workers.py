"""A worker that dies costs its own video; a command that is interrupted leaves nothing behind."""

import os
import signal
from contextlib import closing
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest

from cbtalk.errors import OutputError
from cbtalk.prepare import PrepareOptions, prepare
from cbtalk.prepare.ledger import Ledger
from cbtalk.prepare.messages import Done, Failed
from cbtalk.prepare.sources import find_sources
from cbtalk.prepare.work import Job
from cbtalk.prepare.workers import run_jobs
from tests.helpers.commands import start_interruptible, wait_until
from tests.prepare.people import Person, shot, write_raw

ROOT = Path(__file__).parents[2]
OPTIONS = PrepareOptions(min_face=60, min_sharpness=0.0, min_motion=0.5)


def test_a_worker_that_dies_costs_one_video(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_raw(tmp_path / "raw" / f"{name}.mp4", shot([Person(150, 170, 200)], 3))
    sources = find_sources(tmp_path / "raw", tmp_path, "file")
    ended: dict[str, Done | Failed] = {}
    with closing(run_jobs([Job(source, tmp_path, OPTIONS, "") for source in sources], 1)) as messages:
        for job, message in messages:
            if not ended:  # the first video's worker tells its first step
                for process in active_children():
                    process.kill()
            if isinstance(message, Done | Failed):
                ended[job.source.name] = message
    first = ended["a.mp4"]
    assert isinstance(first, Failed) and "worker process died (SIGKILL" in first.reason
    assert isinstance(ended["b.mp4"], Done)


@pytest.mark.slow
def test_ctrl_c_ends_all_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    shots = [shot([Person(150, 170, 200)], 3, light=light) for light in (0, 200) * 4]
    for name in ("a", "b"):
        write_raw(raw / f"{name}.mp4", *shots)
    words = ["prepare", str(raw), str(out), "--workers", "2", "--min-face", "60"]
    words += ["--min-sharpness", "0", "--min-motion", "0.5"]
    with start_interruptible(*words) as process:
        wait_until(lambda: list(out.glob(".*-part")), process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and told == "error: interrupted by SIGINT\n"
    assert not list(out.glob(".*-part"))


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_raw(raw / "a.mp4", shot([], 1))
    out.mkdir()
    with Ledger.opened(out, raw), pytest.raises(OutputError, match="another cbtalk prepare works in it"):
        prepare(raw, out, OPTIONS, progress=False)
    (out / ".prepare.sqlite").write_bytes(b"no database, but text that is long enough " * 50)
    with pytest.raises(OutputError, match="is damaged"):
        prepare(raw, out, OPTIONS, progress=False)


def test_a_raw_folder_may_be_moved_but_not_mixed_with_another(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_raw(tmp_path / name / "a.mp4", shot([], 1))
    out = tmp_path / "out"
    assert prepare(tmp_path / "one", out, OPTIONS, progress=False).notes
    with pytest.raises(OutputError, match="holds the clips of"):
        prepare(tmp_path / "two", out, OPTIONS, progress=False)
    (tmp_path / "one").rename(tmp_path / "moved")
    assert "1 of 1 videos were done before" in prepare(tmp_path / "moved", out, OPTIONS, progress=False).notes


@pytest.mark.slow
def test_names_of_any_bytes(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    video = write_raw(tmp_path / "video.mp4", shot([Person(150, 170, 200)], 3))
    names = [os.fsdecode(b"caf\xe9.mp4"), "a 'b' \"c\" $(d); ü\n1.mp4", "-x.mp4", f"{'l' * 240}.mp4"]
    raw.mkdir()
    for name in names:
        (raw / name).write_bytes(video.read_bytes())
    outcome = prepare(raw, out, replace(OPTIONS, frames=True), workers=2, progress=False)
    assert outcome.failures == [] and {row.video for row in outcome.rows} == set(names)
    folders = [path for path in out.iterdir() if path.is_dir()]
    assert len(folders) == len(names) and all(len(list(folder.glob("*.png"))) == 30 for folder in folders)
    again = prepare(raw, out, replace(OPTIONS, frames=True), progress=False)
    assert f"{len(names)} of {len(names)} videos were done before" in again.notes
