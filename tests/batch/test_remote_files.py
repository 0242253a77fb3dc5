"""Files behind URLs are read as they are now, and written whole or not at all."""

import errno
import sys
from pathlib import Path
from typing import Any

import pytest

from cbtalk.batch.remote_files import Url, file_of, size_of, sweep_urls
from cbtalk.errors import ConfigError, InputError, OutputError, SystemFailure, TransferError
from tests.batch.http_server import served

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("s3://bucket/folder/a.b.png", "a.b.png"),
        ("http://host:80/folder/a.png?key=1/2#top", "a.png"),
        ("s3://bucket/a?b#c.png", "a?b#c.png"),
        ("zip://folder/a.png::s3://bucket/all.zip", "a.png"),
        ("simplecache::s3://bucket/a.png", "a.png"),
    ],
)
def test_names(address: str, name: str) -> None:
    url = file_of(address, Path("base"))
    assert isinstance(url, Url) and str(url) == address
    assert (url.name, url.stem, url.suffix) == (name, name.removesuffix(".png"), ".png")
    assert file_of("folder/a.png", Path("base")) == Path("base/folder/a.png")


def test_sizes(tmp_path: Path, memory: Any) -> None:
    memory.pipe_file("/a", b"four")
    (tmp_path / "a").write_bytes(b"four")
    assert size_of(Url("memory://a")) == size_of(tmp_path / "a") == 4
    assert size_of(Url("memory://b")) is size_of(tmp_path / "b") is None


@pytest.mark.parametrize("protocol", ["http", "file", "memory"])
def test_a_version_is_that_of_the_content(tmp_path: Path, memory: Any, protocol: str) -> None:
    def write(text: bytes) -> None:
        (tmp_path / "a").write_bytes(text)
        memory.pipe_file("/a", text)

    pytest.importorskip("aiohttp", reason="fsspec opens HTTP with aiohttp, which is not installed")
    write(b"one")
    with served(tmp_path) as http:
        url = Url({"http": f"{http}/a", "file": f"file://{tmp_path}/a", "memory": "memory://a"}[protocol])
        first = url.version()
        assert url.version() == first
        write(b"other")
        assert url.version() != first
        url.download(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"other"


def test_an_output_is_there_when_it_is_whole(memory: Any, tmp_path: Path) -> None:
    memory.pipe_file("/new/a.mp4", b"old")
    with Url("memory://new/a.mp4").place_for(tmp_path / "a.mp4"):
        (tmp_path / "a.mp4").write_bytes(b"video")
        assert memory.cat("/new/a.mp4") == b"old"
    assert memory.find("/new") == ["/new/a.mp4"] and memory.cat("/new/a.mp4") == b"video"


@pytest.mark.parametrize("where", ["pipe_file", "put_file", "mv", "block"])
def test_an_output_that_fails_leaves_nothing(
    where: str, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("the network is gone")

    (tmp_path / "a.mp4").touch()
    memory.pipe_file("/new/a.mp4", b"old")
    if where != "block":
        monkeypatch.setattr(type(memory), where, fail)
    with (
        pytest.raises(ConnectionError if where == "block" else TransferError, match="the network is gone"),
        Url("memory://new/a.mp4").place_for(tmp_path / "a.mp4"),
    ):
        assert where != "pipe_file", "its place is tried before"
        if where == "block":
            fail()
    assert memory.find("/new") == ["/new/a.mp4"] and memory.cat("/new/a.mp4") == b"old"


def test_leftovers_of_uploads_are_swept(memory: Any) -> None:
    for name in (".a.mp4.0123.cbtalk-part", ".b.mp4.0123.cbtalk-part", "a.mp4"):
        memory.pipe_file(f"/new/{name}", b"")
    sweep_urls([Url("memory://new/a.mp4"), Url("memory://new/c.mp4"), Url("memory://missing/b.mp4")])
    assert memory.find("/new") == ["/new/.b.mp4.0123.cbtalk-part", "/new/a.mp4"]


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), OutputError, "cannot be written: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), SystemFailure, "No space left on device; free space"),
        (TimeoutError(), TransferError, "cannot be written: TimeoutError"),
        (RuntimeError("two\nlines"), TransferError, "cannot be written: two lines"),
    ],
)
def test_failures_in_words(
    failure: Exception,
    kind: type[Exception],
    words: str,
    memory: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(type(memory), "pipe_file", fail)
    with pytest.raises(kind, match=f"^memory://a.mp4: .*{words}"), Url("memory://a.mp4").place_for(tmp_path / "a"):
        pass


def test_what_cannot_be_read(memory: Any) -> None:
    memory.pipe_file("/folder/empty.png", b"")
    for name, words in (("no.png", "no such file"), ("folder", "is a folder"), ("folder/empty.png", "is empty")):
        with pytest.raises(InputError, match=words):
            Url(f"memory://{name}").check_readable()


def test_what_a_server_answers(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec opens HTTP with aiohttp, which is not installed")
    with served(tmp_path) as http:
        for name, kind, words in (
            ("no.png", InputError, "no such file"),
            ("403.png", InputError, "cannot be read: .*403"),
            ("500.png", TransferError, "cannot be read: .*500"),
        ):
            with pytest.raises(kind, match=words):
                Url(f"{http}/{name}").check_readable()
    with pytest.raises(TransferError, match="cannot be read"):
        Url(f"{http}/a.png").check_readable()


@pytest.mark.parametrize(
    ("address", "words"),
    [("nix://in/a.mp4", "Protocol not known: nix"), ("smb://host/share/a.mp4", "smbprotocol")],
)
def test_without_a_driver_it_is_named(address: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smbclient", None)
    with pytest.raises(ConfigError, match=f"^{address}: cannot be opened: .*{words}"):
        Url(address).version()


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ConfigError, match=r"pip install 'cbtalk\[remote\]'"):
        Url("memory://a").version()
