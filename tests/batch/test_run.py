"""A batch does every job once, whatever becomes of its workers, its disk and itself."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cbtalk.batch import BatchOptions, Summary, read_ledger, run_batch
from cbtalk.batch.choice import next_job
from cbtalk.batch.job import Job
from cbtalk.batch.report import table
from cbtalk.errors import WeightsError
from cbtalk.model.checkpoint import weights_file
from tests.batch import stand_in
from tests.helpers.tiers import slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbtalk.batch.process_pool.serve", stand_in.serve)


def run(folder: Path, jobs: list[Job], **options: Any) -> Summary:
    return run_batch(jobs, folder / "out", BatchOptions(**options))


def calls(folder: Path) -> list[str]:
    return sorted((folder / "out" / "calls").read_text().split())


def states(folder: Path) -> dict[str, tuple[str, int]]:
    return {entry.output: (entry.state, entry.attempts) for entry in read_ledger(folder / "out")}


def test_every_job_is_done_once(tmp_path: Path) -> None:
    jobs = [stand_in.job(tmp_path, name) for name in ("a", "b", "c", "warned", "e")]
    summary = run(tmp_path, jobs, workers=2)
    assert (summary.done, summary.failed, summary.frames, summary.stopped) == (5, 0, 15, None)
    assert calls(tmp_path) == sorted(job.output.name for job in jobs)
    again = run(tmp_path, jobs, workers=2)
    assert (again.done, again.already_done) == (0, 5)
    assert calls(tmp_path) == sorted(job.output.name for job in jobs)
    warned = next(entry for entry in read_ledger(tmp_path / "out") if entry.output == "warned0.mp4")
    assert warned.warnings == '["cut off"]'
    (tmp_path / "b.png").write_text("another image")
    assert run(tmp_path, jobs).done == 1
    assert (tmp_path / "out" / "b0.mp4").read_text().startswith("another image")


def test_another_precision_is_rendered_anew(tmp_path: Path) -> None:
    jobs = [stand_in.job(tmp_path, name) for name in ("a", "b")]
    assert run(tmp_path, jobs).done == 2
    assert run(tmp_path, jobs, dtype=torch.bfloat16).done == 2
    assert run(tmp_path, jobs, dtype=torch.bfloat16).already_done == 2


def test_jobs_that_fail_stop_no_other(tmp_path: Path) -> None:
    jobs = [stand_in.job(tmp_path, name, line) for line, name in enumerate(("wrong", "killed", "bug", "once", "a"), 2)]
    summary = run(tmp_path, jobs, workers=2, retries=1)
    assert states(tmp_path) == {
        "wrong2.mp4": ("failed", 1),  # what the user gave does not get better
        "killed3.mp4": ("failed", 2),
        "bug4.mp4": ("failed", 2),
        "once5.mp4": ("done", 2),
        "a6.mp4": ("done", 1),
    }
    assert (summary.done, summary.failed) == (2, 3)
    text = "\n".join(summary.errors)
    assert f"line 2: wrong2.mp4: {tmp_path}/wrong.png: is wrong" in text
    assert "line 3: killed3.mp4: its worker process died (SIGKILL" in text
    assert "line 4: bug4.mp4: internal: ZeroDivisionError: oh" in text


def test_a_process_in_which_a_job_crashed_gets_no_other(tmp_path: Path) -> None:
    jobs = [stand_in.job(tmp_path, name) for name in ("poison", "z")]
    summary = run(tmp_path, jobs, retries=1)
    assert (summary.done, summary.failed) == (1, 1)
    assert states(tmp_path) == {"poison0.mp4": ("failed", 2), "z0.mp4": ("done", 1)}


def test_workers_that_cannot_be_started_end_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [stand_in.job(tmp_path, name) for name in ("a", "killed", "z")]
    monkeypatch.setattr("cbtalk.batch.process_pool.serve", stand_in.serve_dying)
    summary = run(tmp_path, jobs)
    assert summary.stopped == "no worker can be started: its worker process died (SIGKILL, perhaps out of memory)"
    assert (summary.done, summary.failed) == (1, 0)
    assert {state for state, _ in states(tmp_path).values()} == {"done", "waiting"}


def test_weights_that_cannot_be_loaded_fail_no_job(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights_file("mini").read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="is damaged"):
        run_batch([stand_in.job(tmp_path, "a")], tmp_path / "out", BatchOptions(weights=str(weights)))
    assert states(tmp_path) == {"a0.mp4": ("waiting", 0)}


def test_motions_and_sources_are_worked_out_by_one_worker_where_that_is_possible(tmp_path: Path) -> None:
    waiting = [job for name in "ab" for job in jobs_by_clips(tmp_path, name, 3)]
    order, running = [], list[Job]()
    for _ in range(2):
        running.append(next_job(waiting, None, running))
    order += running
    order.append(next_job(waiting, order[0].source, running[1:]))
    assert [job.output.name for job in order] == ["a0.mp4", "a1.mp4", "a2.mp4"]
    assert next_job(waiting, order[2].source, [order[2]]).output.name == "b0.mp4"
    assert [job.output.name for job in waiting] == ["b1.mp4", "b2.mp4"]
    assert next_job(waiting, tmp_path / "b.png", [order[1], order[2]]).output.name == "b1.mp4"  # all are busy


def jobs_by_clips(folder: Path, name: str, clips: int) -> list[Job]:
    return [replace(stand_in.job(folder, name, n), driving=folder / f"{n}.mp4") for n in range(clips)]


def test_threads_are_divided_among_the_workers_that_have_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    options = BatchOptions(workers=8)
    assert [(n := options.workers_for(jobs), options.threads_of(n)) for jobs in (1, 3, 9)] == [(1, 8), (3, 2), (8, 1)]
    assert BatchOptions(workers=8, threads=1).threads_of(1) == 1
    assert BatchOptions(gpus=(0, 1)).threads_of(2) == 4
    assert BatchOptions(workers=8, ray="auto").threads_of(2) == 1


def test_names_of_any_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "folder \udcff"
    folder.mkdir()
    jobs = [stand_in.job(folder, name) for name in ("a\udcfe", "wrong")]
    summary = run(folder, jobs)
    assert (summary.done, summary.failed) == (1, 1) and (folder / "out" / "a\udcfe0.mp4").exists()
    assert run(folder, jobs).already_done == 1
    assert "wrong0.mp4" in table(read_ledger(folder / "out"))
    assert "\\xfe" in read_ledger(folder / "out")[0].output


def test_a_full_disk_stops_the_batch_and_blames_no_job(tmp_path: Path) -> None:
    jobs = [stand_in.job(tmp_path, name) for name in ("a", "full", "z")]
    summary = run(tmp_path, jobs)
    assert summary.stopped == "no room" and summary.failed == 0
    assert states(tmp_path) == {"a0.mp4": ("done", 1), "full0.mp4": ("waiting", 0), "z0.mp4": ("waiting", 0)}


SCRIPT = """
import signal
import sys
from pathlib import Path
from cbtalk.batch import BatchOptions, process_pool, run_batch
from tests.batch import stand_in

if __name__ == "__main__":
    process_pool.serve = stand_in.serve
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        signal.signal(number, handler)  # also where the tests run in the background, which ignores them
    folder = Path(sys.argv[1])
    jobs = [stand_in.job(folder, name, number) for number, name in enumerate(sys.argv[2:])]
    summary = run_batch(jobs, folder / "out", BatchOptions(workers=2))
    print(summary.stopped, summary.done, flush=True)
"""


def batch_process(folder: Path, *names: str) -> "subprocess.Popen[str]":
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), *names], env=environment, stdout=subprocess.PIPE, text=True
    )


def await_calls(folder: Path, number: int) -> None:
    until = time.monotonic() + 120
    log = folder / "out" / "calls"
    while not log.exists() or len(log.read_text().split()) < number:
        assert time.monotonic() < until
        time.sleep(0.05)


def alive(folder: Path) -> bool:
    """Whether a worker of the folder's batch lives."""
    import fcntl

    with (folder / "out" / ".workers.lock").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def test_a_batch_that_is_killed_takes_its_workers_along_and_goes_on(tmp_path: Path) -> None:
    process = batch_process(tmp_path, "a", "endless", "slow")
    await_calls(tmp_path, 3)
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while alive(tmp_path):
        assert time.monotonic() < until, "a worker outlives its batch"
        time.sleep(0.05)
    run(tmp_path, [stand_in.job(tmp_path, "a", 0), stand_in.job(tmp_path, "slow", 2)])
    assert calls(tmp_path).count("a0.mp4") == 1 and calls(tmp_path).count("slow2.mp4") <= 2
    assert states(tmp_path)["slow2.mp4"][0] == "done"


@pytest.mark.parametrize("number", [signal.SIGINT, *slow(signal.SIGTERM, signal.SIGHUP)])
def test_the_first_interruption_lets_running_jobs_finish(tmp_path: Path, number: signal.Signals) -> None:
    process = batch_process(tmp_path, *["slow"] * 8)
    await_calls(tmp_path, 1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert output.startswith(f"interrupted by {number.name}")
    found = [state for state, _ in states(tmp_path).values()]
    assert set(found) == {"done", "waiting"} and found.count("done") == len(calls(tmp_path)) <= 4


def test_the_second_interruption_ends_running_jobs(tmp_path: Path) -> None:
    process = batch_process(tmp_path, "endless", "a")
    await_calls(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert output.startswith("interrupted by SIGINT")
    assert states(tmp_path)["endless0.mp4"] == ("waiting", 0)
