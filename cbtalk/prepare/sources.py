"""The raw videos of a folder, whose they are, and what their clips are called.

Who is who in a video is not told: all of its clips bear its identity, so that nobody is on both sides of a split.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cbtalk.errors import InputError
from cbtalk.file_names import printable
from cbtalk.media.clips import identity_of
from cbtalk.media.kinds import VIDEO_SUFFIXES

_LONGEST = 100  # bytes of an identity or of a name: both, the number and the mark of a part stay below 255


@dataclass(frozen=True)
class Source:
    """A raw video. name: its path below the raw folder; stem: what the names of its clips begin with."""

    name: str
    path: Path
    stem: str

    def clip_stem(self, identity: str | None = None) -> str:
        """The beginning of a clip's name, of another identity than the video's where one is given."""
        return self.stem if identity is None else _of_identity(_plain(identity), plain_name(self.path.stem))


def find_sources(root: Path, output: Path, identity: Literal["folder", "file"]) -> list[Source]:
    """All videos below `root`, but not below `output`, in the order of their names; hidden ones are none.

    Raises InputError where `root` is no folder, or holds no video.
    """
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder of videos; name the folder that holds the raw videos")
    found = [
        Source(path.relative_to(root).as_posix(), path, _stem(path.relative_to(root), identity))
        for path in _videos(root, output.resolve())
    ]
    if not found:
        raise InputError(f"{root}: no video in it; its files need the suffix of a video, as .mp4")
    return _told_apart(sorted(found, key=lambda source: source.name))


def _videos(root: Path, output: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and (here / name).resolve() != output]
        yield from (
            here / name for name in files if not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES
        )


def _stem(path: Path, identity: Literal["folder", "file"]) -> str:
    """The beginning of the names of a video's clips: its identity, and where that does not name it, its own name."""
    parts = [*path.parts[:-1], path.stem]
    if identity == "folder" and len(parts) > 1:
        return _of_identity(_plain(parts[0]), plain_name(*parts[1:]))
    return plain_name(*parts)


def _of_identity(identity: str, name: str) -> str:
    return name if identity_of(name) == identity else f"{identity}__{name}"


def _plain(identity: str) -> str:
    """An identity as `identity_of` finds it again in a name that begins with it."""
    return re.sub(r"#|__+", "_", plain_name(identity)).strip("_") or "unnamed"


def plain_name(*parts: str) -> str:
    """Names as one name, of characters that every file system and the terminal can take, and not too long."""
    name = printable("-".join(parts))
    name = re.sub(r'[\x00-\x1f\x7f\\/:*?"<>|]', "-", name)
    return name if len(os.fsencode(name)) <= _LONGEST else f"{_cut(name)}-{_mark(name)}"


def _cut(name: str) -> str:
    return name.encode()[: _LONGEST - 7].decode(errors="ignore")


def _told_apart(sources: Sequence[Source]) -> list[Source]:
    """The sources with a mark of their names in the stems that several share, in a file system of one case too."""
    shared = Counter(source.stem.casefold() for source in sources)
    return [
        replace(source, stem=f"{source.stem}-{_mark(source.name)}") if shared[source.stem.casefold()] > 1 else source
        for source in sources
    ]


def _mark(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:6]
