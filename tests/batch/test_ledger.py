"""The ledger knows what is done, whatever became of the batch that wrote it."""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from cbtalk.batch.ledger import NAME, Ledger, is_at_work, open_ledger, read_ledger, sweep, worker_lock
from cbtalk.errors import InputError, OutputError, SystemFailure

JOB = ("a.mp4", "a.png", "clip.mp4", "{}", "one")


def finish(ledger: Ledger, output: str = "a.mp4") -> None:
    (ledger.folder / output).write_text("video")
    ledger.started(output)
    ledger.done(output, 2, 0.5, 5, [])


def left_to_do(folder: Path, *jobs: tuple[str, str, str, str, str]) -> list[str]:
    with open_ledger(folder) as ledger:
        return ledger.plan(jobs)


def test_what_is_done_stays_done(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        assert ledger.plan([JOB]) == ["a.mp4"]
        finish(ledger)
    assert left_to_do(tmp_path, JOB) == []
    (entry,) = read_ledger(tmp_path)
    assert (entry.state, entry.attempts, entry.frames, entry.bytes) == ("done", 1, 2, 5)


def test_changed_inputs_and_lost_outputs_are_rendered_anew(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.plan([JOB])
        finish(ledger)
    assert left_to_do(tmp_path, (*JOB[:4], "two")) == ["a.mp4"]
    with open_ledger(tmp_path) as ledger:
        finish(ledger)
    (tmp_path / "a.mp4").unlink()
    assert left_to_do(tmp_path, (*JOB[:4], "two")) == ["a.mp4"]
    with open_ledger(tmp_path) as ledger:
        finish(ledger)
    (tmp_path / "a.mp4").write_text("another one")
    assert left_to_do(tmp_path, (*JOB[:4], "two")) == ["a.mp4"]


def test_running_and_failed_jobs_wait_again(tmp_path: Path) -> None:
    other, third = ("b.mp4", *JOB[1:]), ("c.mp4", *JOB[1:])
    with open_ledger(tmp_path) as ledger:
        ledger.plan([JOB, other, third])
        ledger.started("a.mp4")
        ledger.started("b.mp4")
        ledger.failed("b.mp4", "broken", again=False)
    # A job that may have stopped the batch comes last.
    assert left_to_do(tmp_path, JOB, other, third) == ["c.mp4", "a.mp4", "b.mp4"]
    assert [(entry.state, entry.attempts) for entry in read_ledger(tmp_path)] == [("waiting", n) for n in (1, 1, 0)]
    assert left_to_do(tmp_path, (*JOB[:4], "two"), other, third) == ["a.mp4", "c.mp4", "b.mp4"]


def test_a_second_batch_is_refused(tmp_path: Path) -> None:
    with open_ledger(tmp_path), pytest.raises(OutputError, match="another batch"), open_ledger(tmp_path):
        pass
    with open_ledger(tmp_path):
        pass


def test_a_batch_at_work_is_seen(tmp_path: Path) -> None:
    assert not is_at_work(tmp_path)
    with open_ledger(tmp_path):
        assert is_at_work(tmp_path)
    assert not is_at_work(tmp_path)


def hold(folder: Path, connection: Connection) -> None:
    worker_lock(folder)
    connection.send("held")
    connection.recv()


def test_workers_of_a_dead_batch_are_awaited(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    orphan = context.Process(target=hold, args=(tmp_path, theirs))
    orphan.start()
    ours.recv()
    successor = context.Process(target=left_to_do, args=(tmp_path, JOB))
    successor.start()
    successor.join(1.0)
    assert successor.is_alive()
    ours.send("go")
    successor.join(60.0)
    assert successor.exitcode == 0
    orphan.join()


def test_a_ledger_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.plan([JOB])
        assert [entry.state for entry in read_ledger(tmp_path)] == ["waiting"]
        ledger.started("a.mp4")
        assert [entry.state for entry in read_ledger(tmp_path / NAME)] == ["running"]


def test_no_ledger_and_no_place_for_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ledger"):
        read_ledger(tmp_path)
    (tmp_path / "text").write_text("text" * 1000)
    with pytest.raises(InputError, match="not the ledger"):
        read_ledger(tmp_path / "text")
    with pytest.raises(OutputError, match="no folder"), open_ledger(tmp_path / "text"):
        pass
    (tmp_path / NAME).write_text("text" * 1000)
    with pytest.raises(OutputError, match="no ledger"), open_ledger(tmp_path):
        pass


def test_a_full_disk_is_one_clear_error_and_harms_nothing(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.plan([JOB])
        ledger._base.execute("PRAGMA max_page_count = 1")  # SQLite then answers as on a full disk
        with pytest.raises(SystemFailure, match="full"):
            ledger.plan([(f"{number}.mp4", *JOB[1:3], "x" * 500, JOB[4]) for number in range(500)])
    assert [entry.output for entry in read_ledger(tmp_path)] == ["a.mp4"]


def test_content_is_read_again_only_where_a_file_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "name \udcff.mp4"
    path.write_text("one")
    with open_ledger(tmp_path) as ledger:
        first = ledger.digest(path)
    with open_ledger(tmp_path) as ledger, monkeypatch.context() as patch:
        patch.setattr("cbtalk.batch.ledger.digest_of", lambda path: "read again")
        assert ledger.digest(path) == first
        path.write_text("other")
        assert ledger.digest(path) == "read again"


def test_only_leftovers_of_this_batch_are_swept(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    names = [".a.mp4.0123abcd.cbtalk-part", ".other.mp4.0123abcd.cbtalk-part", "a.mp4"]
    for path in (*(tmp_path / name for name in names), cache / ".hash.safetensors.01.cbtalk-part"):
        path.touch()
    sweep([tmp_path / "a.mp4", tmp_path / "missing" / "b.mp4"], cache)
    assert {path.name for path in tmp_path.iterdir()} == {*names[1:], "cache"} and not list(cache.iterdir())
