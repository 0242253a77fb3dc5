"""Lists of pairs for cross-identity evaluation: CSV files as FOMM and the released code have them."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from cbtalk.csv_rows import Fault, Row, read_csv, refuse
from cbtalk.errors import CbtalkError, InputError
from cbtalk.evaluate.jobs import Pair, Source
from cbtalk.media.clips import Clip, frame_files
from cbtalk.media.files import check_readable
from cbtalk.media.kinds import IMAGE_SUFFIXES

SOURCE, DRIVING, ANCHOR, ANCHOR_INDEX, FRAME = "source", "driving", "anchor", "anchor_idx", "frame"


def read_pairs(path: Path, data: Path, clips: Sequence[Clip]) -> list[Pair]:
    """The pairs of a list, in its order (docs/metrics.md says what its columns are).

    Args:
        data: the folder of the `clips`.

    Raises:
        InputError: the file cannot be read; or lines of it are wrong, which are all told on standard error.
    """
    check_readable(path, "list of pairs")
    names = _Names(data, clips)
    pairs: dict[Pair, int] = {}  # and their lines
    faults = []
    for row in read_csv(path, [SOURCE, DRIVING]):
        if isinstance(row, Fault):
            faults.append(row)
            continue
        try:
            pair = _pair(row, names)
        except CbtalkError as error:
            faults.append(Fault(row.line, str(error)))
            continue
        if pair in pairs:
            faults.append(Fault(row.line, f"the same pair as in line {pairs[pair]}"))
        pairs[pair] = row.line
    refuse(str(path), faults)
    if not pairs:
        raise InputError(f"{path}: holds no pair")
    return list(pairs)


def _pair(row: Row, names: "_Names") -> Pair:
    for name in (SOURCE, DRIVING):
        if name not in row.words:
            raise InputError(f"no {name}")
    if _whole(FRAME, row.words.get(FRAME, "0")):
        raise InputError(f"{FRAME} {row.words[FRAME].strip()}: must be 0; name the source's frame as CLIP/FRAME.png")
    clip = names.clip(DRIVING, row.words[DRIVING])
    return Pair(names.image(SOURCE, row.words[SOURCE]), clip, _anchor(row.words, clip, names))


def _anchor(words: Mapping[str, str], clip: Clip, names: "_Names") -> int:
    """The number of the anchor frame, from 0."""
    if ANCHOR_INDEX in words:
        return _whole(ANCHOR_INDEX, words[ANCHOR_INDEX]) + 1  # the released code leaves out the first frame
    if ANCHOR not in words:
        return 0
    anchor = names.image(ANCHOR, words[ANCHOR])
    if anchor.clip != clip:
        raise InputError(f"{ANCHOR} {words[ANCHOR].strip()}: is no frame of {clip.name}")
    return anchor.number


def _whole(name: str, text: str) -> int:
    """Tables write whole numbers as 3, or as 3.0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if number < 0 or number != int(number):
        raise InputError(f"{name} {text.strip()}: must be a whole number from 0 on")
    return int(number)


class _Names:
    """The clips and images of a folder by what lists call them."""

    def __init__(self, data: Path, clips: Sequence[Clip]) -> None:
        self._data = data
        self._clips = {clip.name: clip for clip in clips}
        self._by_end: dict[str, list[Clip]] = {}
        for clip in clips:
            self._by_end.setdefault(PurePosixPath(clip.name).name, []).append(clip)

    def clip(self, column: str, text: str) -> Clip:
        """A clip by its name, or by the end of its name if no other ends so; what leads to the folder may be before."""
        found = self._found(text.strip())
        if not found:
            raise InputError(f"{column} {text.strip()}: no such clip in {self._data}")
        if len(found) > 1:
            raise InputError(f"{column} {text.strip()}: {' and '.join(clip.name for clip in found[:2])} end so")
        return found[0]

    def image(self, column: str, text: str) -> Source:
        """An image's file; a frame, as CLIP/NUMBER.png where the clip is a video; or a clip, for its first frame."""
        name = text.strip()
        if self._found(name):
            clip = self.clip(column, name)
            return Source(clip.name, clip.path, clip)
        folder, own = str(PurePosixPath(name).parent), PurePosixPath(name)
        if self._found(folder):
            clip = self.clip(column, folder)
            number = _number(clip, own)
            return Source(f"{clip.name}/{own.name}", clip.path, clip, number)
        file = self._data / name
        if file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES:
            return Source(name, file)
        raise InputError(f"{column} {name}: no such clip, frame or image in {self._data}")

    def _found(self, name: str) -> list[Clip]:
        for below in self._below(name):
            if below in self._clips:
                return [self._clips[below]]
            candidates = self._by_end.get(PurePosixPath(below).name, ())
            if found := [clip for clip in candidates if clip.name.endswith(f"/{below}")]:
                return found
        return []

    def _below(self, name: str) -> list[str]:
        """The name, and what of it comes after the folder's own."""
        parts = PurePosixPath(name).parts
        own = self._data.resolve().name
        after = [parts[place + 1 :] for place, part in enumerate(parts[:-1]) if part == own]
        return [str(PurePosixPath(*rest)) for rest in (parts, *after)] if parts else []


def _number(clip: Clip, frame: PurePosixPath) -> int:
    """The place of a frame in a clip, from 0."""
    if clip.path.is_dir():
        names = [file.name for file in frame_files(clip)]
        if frame.name in names:
            return names.index(frame.name)
    elif frame.stem.isdecimal():
        return int(frame.stem)
    raise InputError(f"{frame}: no such frame in {clip.name}")
