"""Manifests of a batch: CSV or JSON Lines, one job a line; or every pairing of two folders."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cbtalk.batch.job import Job
from cbtalk.batch.remote_files import File, Url, file_of
from cbtalk.csv_rows import Fault, Row, read_csv
from cbtalk.errors import CbtalkError, InputError
from cbtalk.file_names import real_path
from cbtalk.media.files import check_readable
from cbtalk.media.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from cbtalk.options.batch import Pairing
from cbtalk.render.parse_options import parse_options, why_unknown

SUFFIXES = (".csv", ".jsonl")
FILES = ("source", "driving", "output")


def read_manifest(path: Path, folder: Path, defaults: Mapping[str, str]) -> tuple[list[Job], list[Fault]]:
    """The jobs of a manifest, and all that is wrong with its lines.

    Sources, driving clips and sounds lie relative to the manifest, outputs relative to `folder`, or are URLs; a line
    without output is named after its source and driving clip. `defaults` are options of jobs that do not have their
    own.

    Raises InputError where the file as a whole cannot be read.
    """
    check_readable(path, "manifest")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a manifest's name ends in {' or '.join(SUFFIXES)}")
    is_table = path.suffix.lower() == ".csv"
    rows = list(read_csv(path, FILES[:2], _why_no_column) if is_table else _known(_json_rows(path)))
    jobs, faults = [], []
    for row in rows:
        if isinstance(row, Fault):
            faults.append(row)
            continue
        try:
            jobs.append(_job_of(row, path.parent, folder, defaults))
        except CbtalkError as failure:
            faults.append(Fault(row.line, str(failure)))
    if not rows:
        raise InputError(f"{path}: holds no job")
    return jobs, faults


def pairs(sources: Path, drivings: Path, folder: Path, pairing: Pairing, words: Mapping[str, str]) -> list[Job]:
    """Jobs of all pairs of the images of one folder and the clips of another, or of the first with the first, ...

    Raises InputError where a folder has none, or for "zip" not as many as the other.
    """
    images = _files(sources, IMAGE_SUFFIXES, "images")
    clips = _files(drivings, VIDEO_SUFFIXES | {".safetensors"}, "videos or motion files")
    if pairing == "zip" and len(images) != len(clips):
        raise InputError(f"{sources}: {len(images)} images for the {len(clips)} clips of {drivings}; --pairs all?")
    chosen = zip(images, clips, strict=True) if pairing == "zip" else ((p, c) for p in images for c in clips)
    return [_job(image, clip, folder / _name(image, clip), words) for image, clip in chosen]


def _files(folder: Path, suffixes: Iterable[str], what: str) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder of {what}")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != ".")
    if not found:
        raise InputError(f"{folder}: no {what} in it")
    return found


def _name(source: File, driving: File) -> str:
    return f"{source.stem}__{driving.stem}.mp4"


def _json_rows(path: Path) -> Iterator[Row | Fault]:
    """An object of text, numbers and true or false in each line."""
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as failure:
            yield Fault(line, f"not JSON ({failure})")
            continue
        if not isinstance(found, dict):
            yield Fault(line, "not an object with source, driving and options by name")
            continue
        words = {name: _word(value) for name, value in found.items() if value is not None}
        wrong = [name for name, word in words.items() if word is None]
        if wrong:
            yield Fault(line, f"{wrong[0]}: must be text, a number, or true or false")
        else:
            yield Row(line, {name: word for name, word in words.items() if word is not None})


def _why_no_column(name: str) -> str | None:
    return None if name in FILES else why_unknown(name)


def _known(rows: Iterator[Row | Fault]) -> Iterator[Row | Fault]:
    """Rows without the names that are none, each of which is a fault of the first row that has it."""
    told: set[str] = set()
    for row in rows:
        if isinstance(row, Fault):
            yield row
            continue
        unknown = {name: reason for name in row.words if (reason := _why_no_column(name))}
        yield from (Fault(row.line, f"{name}: {reason}") for name, reason in unknown.items() if name not in told)
        told |= unknown.keys()
        yield Row(row.line, {name: word for name, word in row.words.items() if name not in unknown})


def _word(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


def _job_of(row: Row, base: Path, folder: Path, defaults: Mapping[str, str]) -> Job:
    words = {**defaults, **row.words}
    for name in FILES[:2]:
        if name not in words:
            raise InputError(f"no {name}")
    source, driving = (file_of(words.pop(name).strip(), base) for name in FILES[:2])
    if words.get("audio", "none").strip() not in ("driving", "none"):
        words["audio"] = str(file_of(words["audio"].strip(), base))
    named = words.pop("output", "").strip() or _name(source, driving)
    output = file_of(named, folder)
    if isinstance(output, Path) and real_path(folder) not in real_path(output).parents:
        raise InputError(f"{named}: the output must lie in the folder of the batch")
    return _job(source, driving, output, words, row.line)


def _job(source: File, driving: File, output: File, words: Mapping[str, str], line: int | None = None) -> Job:
    sound = file_of(words.get("audio", ""), Path())
    audio = sound if isinstance(sound, Url) else None
    options = parse_options({name: word for name, word in words.items() if audio is None or name != "audio"})
    return Job(source, driving, output, tuple(sorted(words.items())), options, line, audio)
