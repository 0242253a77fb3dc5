"""Shards of a folder of clips: WebDataset's tar files, each complete or not there at all."""

import io
import logging
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from cbtalk.atomic import atomic_path, left_over
from cbtalk.dataset.shard import SUFFIX, members
from cbtalk.dataset.workers import Failed, done_by, processes_for
from cbtalk.errors import ConfigError, InputError, OutputError
from cbtalk.folder_lock import alone_in
from cbtalk.media.clips import Clip, find_clips, frame_files, good_frames
from cbtalk.options.shards import Frames, Packing

logger = logging.getLogger(__name__)

ClipFiles = tuple[Clip, list[bytes]]  # of a clip, as the contents of their files

LOCK = ".shards.lock"
_HEADER = "cbtalk.frames"  # in front of each shard: how its frames were made


class Outcome(NamedTuple):
    """Numbers of clips: written now, in the shards before, left out because they cannot be read."""

    written: int
    before: int
    failed: int


@dataclass(frozen=True)
class FrameOptions(Frames):
    """Side of the frames, and their JPEG quality, 1 to 100; "png": PNG, without loss."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what makes no sense."""
        if self.size < 16:
            raise ConfigError(f"--size {self.size}: must be 16 or more")
        if self.quality != "png" and not 1 <= self.quality <= 100:
            raise ConfigError(f"--quality {self.quality}: must be from 1 to 100, or png")

    @property
    def suffix(self) -> str:
        """Of the files of frames."""
        return ".png" if self.quality == "png" else ".jpg"

    def encoded(self, clip: Clip) -> list[bytes]:
        """The frames of a clip that can be decoded, as the contents of their files."""
        return [self._file(Image.fromarray(frame)) for frame in good_frames(clip, self.size)]

    def _file(self, image: Image.Image) -> bytes:
        target = io.BytesIO()
        if self.quality == "png":
            image.save(target, "PNG")
        else:
            image.save(target, "JPEG", quality=self.quality, subsampling=0)  # lips are small and red
        return target.getvalue()

    def __str__(self) -> str:
        """As the shards have it."""
        return f"{self.size} {self.quality}"


def write_shards(
    root: Path,
    output: Path,
    options: FrameOptions | None = None,
    *,
    shard_mb: int = Packing.shard_mb,
    processes: int | None = None,
    progress: bool = True,
) -> Outcome:
    """Write the clips below `root` into shards of about `shard_mb` MiB in `output`.

    Each frame is a file `<name of the clip>/<number>.jpg`, the frames of a clip are in one shard, and a shard appears
    when it is complete. Started again, the command goes on with the clips that are in none. A clip that cannot be read
    is left out with a notice.

    Raises InputError where there is no clip, OutputError where `output` holds other shards or cannot be written,
    SystemFailure where the disk is full.
    """
    options = options or FrameOptions()
    for name, number in (("--shard-mb", shard_mb), ("--workers", processes)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} {number}: must be 1 or more")
    clips = find_clips(root, [output])
    with alone_in(output, LOCK, "cbtalk shards"):
        _sweep(output)
        shards = sorted(output.glob(f"*{SUFFIX}"))
        before = _written_before(shards, options)
        for clip in clips:
            if before.get(clip.name, _changed(clip)) != _changed(clip):
                raise OutputError(f"{output}: holds {clip.name} as it was before it changed; choose another folder")
        left = [clip for clip in clips if clip.name not in before]
        jobs = done_by(partial(_encoded, options), left, processes or processes_for(len(left)))
        failures: list[Failed] = []
        with closing(jobs), tqdm(jobs, total=len(left), unit="clip", disable=None if progress else True) as bar:
            number = max((int(path.stem) for path in shards if path.stem.isdigit()), default=-1) + 1
            _write(_good(bar, failures), output, number, options, shard_mb * 2**20)
        return Outcome(len(left) - len(failures), len(clips) - len(left), len(failures))


def _good(results: Iterable[tuple[Clip, list[bytes] | Failed]], failures: list[Failed]) -> Iterator[ClipFiles]:
    """The clips that can be read; the others are told of and put to the failures."""
    for clip, frames in results:
        if isinstance(frames, Failed):
            failures.append(frames)
            logger.warning("left out: %s", frames.reason)
        else:
            yield clip, frames


def _encoded(options: FrameOptions, clip: Clip) -> list[bytes]:
    try:
        return options.encoded(clip)
    except OSError as error:
        raise InputError(f"{clip.path}: cannot be read: {error.strerror}") from error


def _write(clips: Iterator[ClipFiles], output: Path, number: int, options: FrameOptions, limit: int) -> None:
    for first in clips:
        with (
            atomic_path(output / f"{number:06}{SUFFIX}") as temporary,
            tarfile.open(
                temporary,
                "w",
                format=tarfile.PAX_FORMAT,
                encoding="utf-8",
                errors="surrogateescape",
                pax_headers={_HEADER: str(options)},
            ) as tar,
        ):
            _add(tar, *first, options.suffix)
            while tar.offset < limit and (clip := next(clips, None)) is not None:
                _add(tar, *clip, options.suffix)
        number += 1


def _add(tar: tarfile.TarFile, clip: Clip, frames: list[bytes], suffix: str) -> None:
    for number, data in enumerate(frames):
        info = tarfile.TarInfo(f"{clip.name}/{number:06}{suffix}")
        info.size, info.mtime = len(data), _changed(clip)
        tar.addfile(info, io.BytesIO(data))
        tar.members = []  # type: ignore[attr-defined]  # of which it would keep every one


def _changed(clip: Clip) -> int:
    """The time at which the files of a clip were changed, in seconds since 1970."""
    files = frame_files(clip) if clip.path.is_dir() else [clip.path]
    return max(int(path.stat().st_mtime) for path in files)


def _written_before(shards: list[Path], options: FrameOptions) -> dict[str, int]:
    """The clips in shards, and when their files had been changed."""
    found: dict[str, int] = {}
    for path in shards:
        with closing(_opened(path)) as tar:
            tar.next()
            if tar.pax_headers.get(_HEADER) != str(options):
                raise OutputError(f"{path.parent}: holds shards of other options; choose another folder")
        found |= {str(PurePosixPath(member.name).parent): int(member.mtime) for member in members(path)}
    return found


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except (tarfile.TarError, OSError) as error:
        raise OutputError(f"{path}: is no shard of cbtalk; choose another folder") from error


def _sweep(output: Path) -> None:
    """Remove what a killed run was writing."""
    for path, name in left_over(output):
        if name.endswith(SUFFIX):
            path.unlink()
