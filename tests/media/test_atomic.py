import errno
import os
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cbtalk.atomic import SUFFIX, atomic_path
from cbtalk.errors import OutputError, SystemFailure
from tests.media.child import killed


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(SUFFIX))


def test_the_file_appears_complete(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".a.bin.") and temporary.name.endswith(".cbtalk-part")
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert left_over(tmp_path) == []


def test_the_mode_is_that_of_an_ordinary_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "a"):
        pass
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o755])
def test_the_permissions_of_an_overwritten_file_are_kept(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "a"
    target.touch()
    target.chmod(mode)
    with atomic_path(target) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == mode  # from the first byte on
        temporary.write_bytes(b"new")
    assert stat.S_IMODE(target.stat().st_mode) == mode and target.read_bytes() == b"new"


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser gives files away")
def test_the_owner_of_an_overwritten_file_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.touch(mode=0o600)
    os.chown(target, 65534, 65534)
    with atomic_path(target):
        pass
    assert (target.stat().st_uid, target.stat().st_gid) == (65534, 65534)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert left_over(tmp_path) == []


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.write_bytes(b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, os.fsdecode(b"\xe9" * 255)])
def test_the_longest_names_work(tmp_path: Path, name: str) -> None:
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_bytes(b"x")
    assert (tmp_path / name).read_bytes() == b"x"


def check_refused(path: Path) -> str:
    with pytest.raises(OutputError) as caught, atomic_path(path):
        pytest.fail("the block must not run")
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    assert caught.value.exit_code == 2
    return message


def test_places_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    assert "folder" in check_refused(tmp_path)
    assert "does not exist" in check_refused(tmp_path / "none" / "a")
    (tmp_path / "file").touch()
    check_refused(tmp_path / "file" / "a")
    assert "ordinary file" in check_refused(Path("/dev/null"))
    check_refused(tmp_path / ("n" * 256))
    (tmp_path / "loop").symlink_to(tmp_path / "pool")
    (tmp_path / "pool").symlink_to(tmp_path / "loop")
    assert "leads to itself" in check_refused(tmp_path / "loop")
    check_refused(tmp_path / "loop" / "a")
    assert left_over(tmp_path) == []


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder and a user who is not the superuser, for that one may write everywhere."""
    with tempfile.TemporaryDirectory() as name:
        superuser = os.geteuid() == 0
        Path(name).chmod(0o777)
        if superuser:
            os.setresuid(65534, 65534, 0)
        yield Path(name)
        if superuser:
            os.setresuid(0, 0, 0)


def test_protected_places_are_refused(ordinary_folder: Path) -> None:
    (ordinary_folder / "file").touch(mode=0o400)
    check_refused(ordinary_folder / "file")
    (ordinary_folder / "folder").mkdir(mode=0o500)
    check_refused(ordinary_folder / "folder" / "a")
    (ordinary_folder / "closed").mkdir(mode=0o000)
    check_refused(ordinary_folder / "closed" / "a")


@pytest.mark.parametrize("refused", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_refusal_of_the_system_is_the_place_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(refused, os.strerror(refused))

    monkeypatch.setattr(os, "open", fail)
    check_refused(tmp_path / "a")


def test_a_full_disk_in_the_block_is_the_machine_s_fault(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with (
        pytest.raises(SystemFailure, match="space") as caught,
        atomic_path(target),
        Path("/dev/full").open("wb") as full,
    ):
        full.write(b"x")
    assert str(target) in str(caught.value) and caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fills_up_at_the_last_flush_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(broken, os.strerror(broken))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SystemFailure), atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_block_are_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        (tmp_path / "none").read_bytes()


def test_it_works_outside_the_main_thread(tmp_path: Path) -> None:
    def work() -> None:
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_bytes(b"x")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (tmp_path / "a").read_bytes() == b"x"


def test_the_signal_handler_is_only_borrowed(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with atomic_path(tmp_path / "a"), atomic_path(tmp_path / "b"):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


# Short sleeps: Python handles a signal that comes just before a sleep begins when that sleep is over.
IN_THE_MAIN_THREAD = """
    import time
    from cbtalk.atomic import atomic_path
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        print("ready", flush=True)
        for _ in range(600):
            time.sleep(0.1)
"""
IN_ANOTHER_THREAD = """
    import threading, time
    from cbtalk.atomic import atomic_path
    def work():
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            print("ready", flush=True)
            time.sleep(60)
    threading.Thread(target=work, daemon=True).start()
    for _ in range(600):
        time.sleep(0.1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_removes_the_temporary_file_and_still_ends_the_process(tmp_path: Path, number: signal.Signals) -> None:
    assert killed(tmp_path / "a", IN_THE_MAIN_THREAD, number) == -number
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_reaches_the_files_of_other_threads(tmp_path: Path) -> None:
    assert killed(tmp_path / "a", IN_ANOTHER_THREAD, signal.SIGINT) == -signal.SIGINT
    assert list(tmp_path.iterdir()) == []


def test_what_sigkill_leaves_can_be_recognised(tmp_path: Path) -> None:
    assert killed(tmp_path / "a", IN_THE_MAIN_THREAD, signal.SIGKILL) == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == left_over(tmp_path)
    assert len(left_over(tmp_path)) == 1


def test_a_forked_child_does_not_remove_the_file_of_its_parent(tmp_path: Path) -> None:
    body = """
        import os, signal, time
        from cbtalk.atomic import atomic_path
        with atomic_path(target) as temporary:
            child = os.fork()
            if child == 0:
                time.sleep(60)
            time.sleep(0.2)
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            temporary.write_bytes(b"whole")
        print("ready", flush=True)
        time.sleep(60)
    """
    killed(tmp_path / "a", body, signal.SIGKILL)
    assert (tmp_path / "a").read_bytes() == b"whole"
