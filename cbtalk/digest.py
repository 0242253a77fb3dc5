"""Fingerprints of files by their content."""

import hashlib
from pathlib import Path

_BLOCK = 1 << 20


def digest_of(path: Path) -> str:
    """32 hexadecimal digits of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.blake2b(digest_size=16)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def combined(*parts: str) -> str:
    """One fingerprint of several texts, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(f"{len(part)} {part}".encode(errors="surrogateescape"))
    return digest.hexdigest()
