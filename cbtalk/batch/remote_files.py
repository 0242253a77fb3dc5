"""Files behind URLs of any kind that fsspec knows: s3, gs, http, sftp, ..."""

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cbtalk.atomic import MACHINE_FAULTS, SUFFIX
from cbtalk.digest import combined
from cbtalk.errors import CbtalkError, ConfigError, InputError, OutputError, SystemFailure, TransferError

_HTTP = ("http", "https")
_PATTERNS = "*?[]"  # characters that fsspec takes for more than themselves where it renames


@dataclass(frozen=True)
class Url:
    """A file behind a URL.

    The methods that look at it raise ConfigError where nothing here opens such URLs, InputError or OutputError where it
    is missing or refused, TransferError where its server does not answer or fails.
    """

    address: str

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.name

    @property
    def stem(self) -> str:
        """Its name without the suffix."""
        return self.path.stem

    @property
    def suffix(self) -> str:
        """The end of its name, from its last dot on."""
        return self.path.suffix

    @property
    def protocol(self) -> str:
        """The part before ://."""
        return self.address.partition("://")[0].rpartition("::")[2]

    @property
    def path(self) -> PurePosixPath:
        """The part behind the protocol, as far as it names the file."""
        path = self.address.partition("://")[2].partition("::")[0]  # zip://a.png::s3://b.zip is a.png in b.zip
        return PurePosixPath(path.partition("#")[0].partition("?")[0] if self.protocol in _HTTP else path)

    def check_readable(self) -> None:
        """Raise InputError unless it is a file with something in it."""
        with _opened(self, "read") as (system, path):
            info = system.info(path)
        if info.get("type") == "directory":
            raise InputError(f"{self}: is a folder; name a file in it")
        if info.get("size") == 0:
            raise InputError(f"{self}: is empty; copy the file again")

    def check_writable(self) -> None:
        """Raise OutputError for a name that no output can have; its place is tried by `place_for`."""
        if self.protocol in _HTTP:
            raise OutputError(f"{self}: an output cannot be put where HTTP alone leads; name a bucket or a share")
        if any(character in self.path.name for character in _PATTERNS):
            raise OutputError(f"{self}: the name of an output must be without {' '.join(_PATTERNS)}")

    def version(self) -> str:
        """A fingerprint of the content by the checksum, ETag or time that its file system tells; it is not read."""
        with _opened(self, "read") as (system, path):
            return combined(self.address, str(system.checksum(path)))

    def size(self) -> int | None:
        """Bytes; None where there is no such file."""
        with _opened(self, "read") as (system, path), suppress(FileNotFoundError):
            return int(system.size(path))
        return None

    def download(self, file: Path) -> None:
        """Copy its content into a file of this machine."""
        with _opened(self, "read") as (system, path):
            system.get_file(path, str(file))

    @contextmanager
    def place_for(self, file: Path) -> Iterator[None]:
        """The content of a file of this machine becomes its own when the block ends, all at once, and only then.

        Its place is tried before: an empty temporary file is put beside it, filled in the end and renamed.
        """
        with _opened(self, "written") as (system, path):
            folder, _, name = path.rpartition("/")
            temporary = f"{folder}/.{name}.{secrets.token_hex(4)}{SUFFIX}"
            if folder:
                system.makedirs(folder, exist_ok=True)
            system.pipe_file(temporary, b"")
        try:
            yield
            with _opened(self, "written"):
                system.put_file(str(file), temporary)
                system.mv(temporary, path)
        except BaseException:
            with suppress(Exception):
                system.rm_file(temporary)
            raise


File = Path | Url


def file_of(word: str, base: Path) -> File:
    """The file that a word names: a URL, or a path from `base` on."""
    return Url(word) if "://" in word else base / word


def size_of(file: File) -> int | None:
    """Bytes of a file, None where there is none; of a URL as `Url.size`."""
    if isinstance(file, Url):
        return file.size()
    with suppress(OSError):
        return file.stat().st_size
    return None


def sweep_urls(outputs: Iterable[Url]) -> None:
    """Removes what killed workers left beside these."""
    folders: dict[str, list[Url]] = {}
    for output in outputs:
        folders.setdefault(output.address.rpartition("/")[0], []).append(output)
    for together in folders.values():
        names = {output.name for output in together}
        with _opened(together[0], "swept") as (system, path), suppress(FileNotFoundError):
            for found in system.ls(path.rpartition("/")[0], detail=False):
                name = PurePosixPath(found).name
                if name.endswith(SUFFIX) and name.removesuffix(SUFFIX).rpartition(".")[0].removeprefix(".") in names:
                    system.rm_file(found)


@contextmanager
def _opened(url: Url, verb: str) -> Iterator[tuple[Any, str]]:
    """fsspec's file system of a URL and the path in it; what goes wrong with them becomes one clear line."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as failure:
        raise ConfigError(f"{url}: URLs need the package fsspec: pip install 'cbtalk[remote]'") from failure
    try:
        try:
            system, path = url_to_fs(url.address)
        except (ImportError, ValueError) as failure:
            raise ConfigError(f"{url}: cannot be opened: {_reason(failure)}") from failure
        system.invalidate_cache()
        yield system, str(path)
    except CbtalkError:
        raise
    except Exception as failure:
        raise _in_words(url, verb, failure) from failure


def _in_words(url: Url, verb: str, failure: Exception) -> CbtalkError:
    """The error that a failure of a file system is."""
    refusal = OutputError if verb == "written" else InputError
    if isinstance(failure, FileNotFoundError) and type(failure.__cause__).__module__.startswith("aiohttp"):
        assert isinstance(failure.__cause__, Exception)
        failure = failure.__cause__  # fsspec says of whatever HTTP answers that there is no such file
    status = getattr(failure, "status", None)  # of HTTP
    if isinstance(failure, FileNotFoundError) or status in (404, 410):
        return refusal(f"{url}: no such file; check its name")
    line = f"{url}: cannot be {verb}: {_reason(failure)}"
    if isinstance(failure, OSError) and failure.errno in MACHINE_FAULTS:
        return SystemFailure(f"{line}; free space or choose another place")
    if isinstance(failure, PermissionError | IsADirectoryError | NotADirectoryError) or status in (401, 403):
        return refusal(line)
    return TransferError(line)


def _reason(failure: Exception) -> str:
    """One line of what a failure says."""
    text = getattr(failure, "strerror", None) or " ".join(str(failure).split())
    return text or type(failure).__name__
