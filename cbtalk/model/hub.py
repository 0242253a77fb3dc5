"""Weights files in repositories of the Hugging Face Hub, fetched once, kept in the Hub's cache and verified."""

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cbtalk.atomic import MACHINE_FAULTS
from cbtalk.errors import CbtalkError, SystemFailure, TransferError, WeightsError

logger = logging.getLogger(__name__)

PREFIX = "hf:"
FILE_NAME = "model.safetensors"  # the name that the Hub itself looks for in a repository

_CLIENT = "huggingface_hub.utils._http"  # its logger
_OF_A_TRY = re.compile(r"thrown while requesting|\[Retry \d")  # in its lines

_NAME = re.compile(rf"{PREFIX}(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def fetch(name: str) -> Path:
    """The weights file of a repository, in the Hub's cache, with the content that the Hub says it has.

    A file that is in the cache already is not fetched again. Without network, and with HF_HUB_OFFLINE=1, the newest one
    that was fetched is taken.

    Args:
        name: hf:OWNER/NAME or hf:OWNER/NAME@REVISION, a branch, a tag or a whole commit; the main branch without it.

    Raises:
        WeightsError: huggingface_hub is not installed, no such repository, revision or file, one that this user may not
            read, or a file whose checksum is wrong.
        TransferError: the Hub cannot be reached, or the transfer failed.
    """
    repository, revision = _parts(name)
    with _in_words(name, repository, revision), _one_line_for_all_tries(name):
        from huggingface_hub import hf_hub_download

        file = Path(hf_hub_download(repository, FILE_NAME, revision=revision, library_name="cbtalk"))
    _verify(name, file)
    return file


def pinned(name: str) -> str:
    """The name with the commit that its revision stands for now, for later and for other processes.

    Any other name of weights is given back. Raises what `fetch` does.
    """
    if not name.startswith(PREFIX):
        return name
    repository, _ = _parts(name)
    return f"{PREFIX}{repository}@{fetch(name).parent.name}"  # the cache has a folder for each commit


def _parts(name: str) -> tuple[str, str | None]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise WeightsError(f"{name}: is no repository; write {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION")
    return match["repository"], match["revision"]


def _verify(name: str, file: Path) -> None:
    """Raises WeightsError where the file's content is not that of its checksum.

    The cache holds a link to a file that bears its checksum as its name: SHA-256 for large files, git's for small ones.
    """
    if not file.is_symlink():
        raise WeightsError(
            f"{name}: {file} cannot be verified without symbolic links in the cache; "
            "unset HF_HUB_DISABLE_SYMLINKS, or set HF_HOME to a file system that has them"
        )
    expected = file.readlink().name
    size = file.stat().st_size
    digests = {64: hashlib.sha256(), 40: hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)}
    if len(expected) not in digests:
        raise WeightsError(f"{name}: cannot be verified: its server tells no checksum, only {expected!r}")
    with file.open("rb") as content:
        found = hashlib.file_digest(content, lambda: digests[len(expected)]).hexdigest()
    if found != expected:
        raise WeightsError(
            f"{name}: {file} was altered or damaged: its checksum is {found} instead of {expected}; "
            f"delete {os.path.realpath(file)}, so that it is fetched again"
        )


@contextmanager
def _one_line_for_all_tries(name: str) -> Iterator[None]:
    """Tells once that the Hub is tried again, in place of the two lines that its client writes for every try."""
    told = False

    def passes(record: logging.LogRecord) -> bool:
        nonlocal told
        if not _OF_A_TRY.search(record.getMessage()):
            return True
        if not told:
            logger.warning("%s: the Hub does not answer as it should; it is tried again for up to half a minute", name)
        told = True
        return False

    client = logging.getLogger(_CLIENT)
    client.addFilter(passes)
    try:
        yield
    finally:
        client.removeFilter(passes)


@contextmanager
def _in_words(name: str, repository: str, revision: str | None) -> Iterator[None]:
    """Whatever the Hub's client raises, as one clear line."""
    try:
        yield
    except ImportError as failure:
        raise WeightsError(f"{name}: needs the package huggingface_hub: pip install 'cbtalk[hub]'") from failure
    except Exception as failure:
        raise _refusal(name, repository, revision, failure) from failure


def _refusal(name: str, repository: str, revision: str | None, failure: Exception) -> CbtalkError:
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if isinstance(failure, errors.GatedRepoError):  # a kind of RepositoryNotFoundError
        page = f"{ENDPOINT}/{repository}"
        return WeightsError(f"{name}: is gated; ask for access on {page} and log in (hf auth login, or HF_TOKEN)")
    if isinstance(failure, errors.RepositoryNotFoundError):
        return WeightsError(
            f"{name}: no such repository on {ENDPOINT}, or a private one; check its name, "
            "or log in (hf auth login, or HF_TOKEN)"
        )
    if isinstance(failure, errors.RevisionNotFoundError):
        return WeightsError(f"{name}: the repository has no revision {revision}")
    if isinstance(failure, errors.LocalEntryNotFoundError):
        if HF_HUB_OFFLINE:
            return WeightsError(f"{name}: is not in the cache of this machine, and HF_HUB_OFFLINE forbids to fetch it")
        return TransferError(
            f"{name}: is not in the cache of this machine, and {ENDPOINT} cannot be reached; "
            "check the network, or give a weights file"
        )
    if isinstance(failure, errors.EntryNotFoundError):
        return WeightsError(f"{name}: the repository holds no {FILE_NAME}, as weights of cbtalk are named there")
    if isinstance(failure, errors.HFValidationError):
        return WeightsError(f"{name}: is no name of a repository")
    reason = " ".join(str(failure).split()) or type(failure).__name__
    if isinstance(failure, OSError) and failure.errno in MACHINE_FAULTS:
        return SystemFailure(f"{name}: cannot be kept: {reason}; free space or set HF_HOME to another disk")
    return TransferError(f"{name}: cannot be fetched: {reason}; try again")
