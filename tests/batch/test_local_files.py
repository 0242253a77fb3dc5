"""Jobs with URLs are done with copies, of which a bounded number is kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cbtalk.batch.job import Job
from cbtalk.batch.local_files import LocalFiles
from cbtalk.batch.remote_files import Url
from cbtalk.batch.worker import Setting
from cbtalk.errors import InputError, OutputError
from tests.batch import stand_in

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture
def memory(memory: Any) -> Any:
    """With three files of a byte."""
    for name in "abc":
        memory.pipe_file(f"/in/{name}.png", name.encode())
    return memory


def remote_job(folder: Path, name: str) -> Job:
    source, output = Url(f"memory://in/{name}.png"), Url(f"memory://new/{name}.mp4")
    return replace(stand_in.job(folder, "local"), source=source, output=output)


def test_a_copy_serves_until_its_url_changes(tmp_path: Path, memory: Any) -> None:
    files, job = LocalFiles(tmp_path / "copies", 1000), remote_job(tmp_path, "a")
    copies = []
    for _ in range(2):
        with files.of(job) as local:
            copies.append((local.source, local.source.stat().st_mtime_ns))
            assert local.source.read_bytes() == b"a" and local.source.suffix == ".png"
            assert local.driving == job.driving and local.output.suffix == ".mp4"
            local.output.write_bytes(b"video")
    assert copies[0] == copies[1]
    assert memory.cat("/new/a.mp4") == b"video"
    memory.pipe_file("/in/a.png", b"another")
    with files.of(job) as local:
        assert local.source.read_bytes() == b"another"
        local.output.touch()


def test_the_longest_unused_copies_go_first(tmp_path: Path, memory: Any) -> None:
    files = LocalFiles(tmp_path / "copies", 2)
    for name, kept in (("a", "a"), ("b", "ab"), ("a", "ab"), ("c", "ac")):
        with files.of(remote_job(tmp_path, name)) as local:
            local.output.touch()
        assert "".join(sorted(copy.read_text() for copy in (tmp_path / "copies").iterdir())) == kept


def test_a_job_has_its_copies_also_where_there_is_no_room(tmp_path: Path, memory: Any) -> None:
    with LocalFiles(tmp_path / "copies", 0).of(remote_job(tmp_path, "a")) as local:
        assert local.source.read_bytes() == b"a"
        local.output.touch()
    assert not list((tmp_path / "copies").iterdir())


def test_a_job_that_fails_puts_nothing_and_names_the_url(tmp_path: Path, memory: Any) -> None:
    files = LocalFiles(tmp_path / "copies", 1000)
    with pytest.raises(InputError) as caught, files.of(remote_job(tmp_path, "a")) as local:
        local.output.touch()
        raise InputError(f"{local.source}: is no image")
    assert files.named(str(caught.value)) == "memory://in/a.png: is no image"
    assert not memory.find("/new")
    assert [path.suffix for path in (tmp_path / "copies").iterdir()] == [".png"]


def test_sound_may_be_behind_a_url(tmp_path: Path, memory: Any) -> None:
    memory.pipe_file("/in/a.wav", b"sound")
    job = replace(remote_job(tmp_path, "a"), audio=Url("memory://in/a.wav"))
    assert job.inputs == [job.source, job.driving, job.audio]
    with LocalFiles(tmp_path / "copies", 1000).of(job) as local:
        assert isinstance(local.options.audio, Path) and local.options.audio.read_bytes() == b"sound"
        local.output.touch()


def test_what_another_worker_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "left").touch()
    LocalFiles(tmp_path / "copies", 0)
    assert not (tmp_path / "copies").exists()


def test_a_machine_without_the_folder_of_the_batch_takes_urls_alone(tmp_path: Path, memory: Any) -> None:
    worker = stand_in.Worker(Setting(tmp_path / "elsewhere", 0, "mini", torch.float32, None, 1, 0, 1000))
    job = remote_job(tmp_path, "a")
    assert worker.render(job).kind == "done" and memory.cat("/new/a.mp4") == b"aclip.mp4"
    outcome = worker.render(stand_in.job(tmp_path, "b"))
    assert (
        outcome.kind == "failed" and outcome.error is not None and "does not share the batch's folder" in outcome.error
    )
    assert not (tmp_path / "elsewhere").exists() and not (tmp_path / "out").exists()
    with pytest.raises(OutputError), LocalFiles(tmp_path / "c", 0, shared=False).of(stand_in.job(tmp_path, "b")):
        pass
